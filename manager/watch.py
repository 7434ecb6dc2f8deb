"""One watch: the stream of changes to a collection, from its request to decoded events.

In: where to watch and from which resource version. Out: batches of events, all that arrived in one read together,
because one wake-up per event is what a busy watch cannot afford. An ERROR event is raised as the error that it is.
Nothing is retried here: what follows from an end or an error is the reflector's decision. Semantics: Kubernetes
API concepts, "efficient detection of changes" and "streaming lists".
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import orjson

from manager.errors import ApiError, ConnectionFailed, api_error
from manager.transport import Query, Transport
from manager.types import Obj

WATCH_SLACK = 30.0  # seconds after timeoutSeconds at which a watch is ended from this side
INACTIVITY_SECONDS = 70.0  # bookmarks come about once a minute; HTTP/1.1 has no ping to tell a dead peer

ACCEPT_OBJECTS = "application/json"
ACCEPT_METADATA = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
ACCEPT_METADATA_LIST = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"


@dataclass(frozen=True, slots=True)
class WatchEvent:
    """ADDED, MODIFIED, DELETED or BOOKMARK, with the object. ERROR events are raised, not delivered."""

    type: str
    object: Obj


def table_refused() -> ApiError:
    """The error for an answer that is a Table."""
    return ApiError(406, "NotAcceptable", "the server answered with a Table where objects were asked for")


def decode(raw: bytes) -> dict[str, Any]:
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise ConnectionFailed(f"the server's answer is not JSON: {raw[:120]!r}") from error
    if not isinstance(value, dict):
        raise ConnectionFailed(f"the server's answer is not an object: {raw[:120]!r}")
    return value


async def watch_events(
    transport: Transport,
    path: str,
    query: Query,
    *,
    silence: float | None,
    total: float | None,
    accept: str = ACCEPT_OBJECTS,
) -> AsyncGenerator[list[WatchEvent], None]:
    """The events of one watch request, in batches, until the server ends it.

    Raises:
        ApiError: the watch could not be opened, or an ERROR event came; events before it are delivered first.
        ConnectionFailed: the connection broke, was silent for too long, or carried something that is no event.
    """
    stream = transport.stream(path, query, silence=silence, total=total, accept=accept)
    async with aclosing(stream) as batches:
        async for lines in batches:
            events: list[WatchEvent] = []
            failure: Exception | None = None
            for line in lines:
                try:
                    event = decode(line)
                except ConnectionFailed as error:
                    failure = error
                    break
                if event.get("type") == "ERROR":
                    status = event.get("object") or {}
                    failure = api_error(int(status.get("code") or 500), status)
                    break
                events.append(WatchEvent(str(event.get("type")), event.get("object") or {}))
            if events:
                yield events
            if failure is not None:
                raise failure
