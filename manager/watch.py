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

from manager.errors import ApiError, ConnectionFailed, ManagerError, api_error
from manager.transport import Query, Transport
from manager.types import Obj

WATCH_SLACK = 30.0  # seconds after timeoutSeconds at which a watch is ended from this side
INACTIVITY_SECONDS = 70.0  # bookmarks come about once a minute; HTTP/1.1 has no ping to tell a dead peer

ACCEPT_OBJECTS = "application/json"
ACCEPT_METADATA = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
ACCEPT_METADATA_LIST = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"


@dataclass(slots=True)
class WatchEvent:
    """ADDED, MODIFIED, DELETED or BOOKMARK, with the object. ERROR events are raised, not delivered.

    Not frozen: one is made per event of every watch, and a frozen one costs 2.5 times as much to make.
    """

    type: str
    object: Obj


def table_refused() -> ApiError:
    """The error for an answer that is a Table."""
    return ApiError(406, "NotAcceptable", "the server answered with a Table where objects were asked for")


def decode(raw: bytes | bytearray) -> dict[str, Any]:
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise ConnectionFailed(f"the server's answer is not JSON: {bytes(raw[:120])!r}") from error
    if not isinstance(value, dict):
        raise ConnectionFailed(f"the server's answer is not an object: {bytes(raw[:120])!r}")
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
            events, failure = decode_events(lines)
            if events:
                yield events
            if failure is not None:
                raise failure


def decode_events(lines: list[bytes]) -> tuple[list[WatchEvent], ManagerError | None]:
    """The events of these lines up to the first that is an ERROR or no event at all, and what that one means."""
    events: list[WatchEvent] = []
    append, loads = events.append, orjson.loads
    line = b""
    try:
        for line in lines:
            event = loads(line)
            kind = event["type"]
            if kind == "ERROR":
                status = event["object"]
                return events, api_error(int(status.get("code") or 500), status)
            append(WatchEvent(kind, event["object"]))
    except orjson.JSONDecodeError as error:
        failure = ConnectionFailed(f"a line of the watch is not JSON: {line[:120]!r}")
        failure.__cause__ = error
        return events, failure
    except (KeyError, TypeError, AttributeError, ValueError):
        return events, ConnectionFailed(f"a line of the watch is not an event: {line[:120]!r}")
    return events, None
