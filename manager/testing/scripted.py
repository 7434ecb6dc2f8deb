"""A scripted API server: what it answers next is decided by the test, one answer after the other.

For faults that no real server shows on request: 410, 429, broken streams, nonsense. It records every query, with
the loop's time at which it came. What a test leaves unscripted hangs, as a dead peer would; streamed lists that
are not scripted are refused, as a server of 1.20 does. It runs in the test's own event loop, so that everything
that happens on the wire also happens in virtual time.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from aiohttp import web

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Events = tuple[str, dict[str, Any]]

INITIAL_EVENTS_END = "k8s.io/initial-events-end"


@dataclass(frozen=True, slots=True)
class Asked:
    """One request: ``kind`` is list, watch or stream (a watch that asks for a streamed list)."""

    kind: str
    at: float
    query: dict[str, str]
    accept: str


class Script:
    """Answers requests from queues of handlers, for lists, watches and streamed lists; records every query."""

    def __init__(self) -> None:
        self.lists: list[Handler] = []
        self.watches: list[Handler] = []
        self.streams: list[Handler] | None = None
        self.seen: list[dict[str, str]] = []
        self.asked: list[Asked] = []
        self.url = ""

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.seen.append({"path": request.path, "method": request.method, **request.query})
        kind = "list"
        if request.query.get("watch"):
            kind = "stream" if request.query.get("sendInitialEvents") else "watch"
        now = asyncio.get_running_loop().time()
        self.asked.append(Asked(kind, now, dict(request.query), request.headers.get("Accept", "")))
        if kind == "stream" and self.streams is None:
            return await failing(422, "Invalid", "resourceVersionMatch is forbidden for watch")(request)
        queue = {"list": self.lists, "watch": self.watches, "stream": self.streams}[kind]
        if not queue:
            await asyncio.Event().wait()  # the script is over: hang until the test ends
            raise AssertionError("unreachable")
        return await queue.pop(0)(request)

    def queries(self, *, watch: bool) -> list[dict[str, str]]:
        """What was asked, lists or watches; streamed lists are neither."""
        return [asked.query for asked in self.of("watch" if watch else "list")]

    def of(self, kind: str) -> list[Asked]:
        """The requests of one kind, in order."""
        return [asked for asked in self.asked if asked.kind == kind]


def listing(*names: str, rv: str = "10", cont: str = "") -> Handler:
    """Answers a list of ConfigMaps."""

    async def handle(_: web.Request) -> web.StreamResponse:
        items = [config_map(name, "1") for name in names]
        metadata = {"resourceVersion": rv, **({"continue": cont} if cont else {})}
        return web.json_response({"kind": "ConfigMapList", "metadata": metadata, "items": items})

    return handle


def failing(
    status: int,
    reason: str = "",
    message: str = "",
    headers: dict[str, str] | None = None,
    details: dict[str, Any] | None = None,
) -> Handler:
    """Answers with a Status."""

    async def handle(_: web.Request) -> web.StreamResponse:
        return web.json_response(status_object(status, reason, message, details), status=status, headers=headers)

    return handle


def watching(*events: Events, hold: bool = False, broken: bool = False, after: float = 0.0) -> Handler:
    """Answers a watch with events and then, ``after`` some seconds, ends it, holds it open, or breaks the
    connection in the middle of a line."""

    async def handle(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        lines = b"".join(json.dumps({"type": kind, "object": obj}).encode() + b"\n" for kind, obj in events)
        if lines:
            await response.write(lines)
        if hold:
            await asyncio.Event().wait()
        await asyncio.sleep(after)
        if broken:
            await response.write(b'{"type":"ADDED","obj')
            await asyncio.sleep(0)
            _abort(request)
        return response

    return handle


def dropping() -> Handler:
    """Closes the connection instead of answering."""

    async def handle(request: web.Request) -> web.StreamResponse:
        _abort(request)
        return web.Response()

    return handle


def _abort(request: web.Request) -> None:
    if request.transport is not None:
        request.transport.abort()


def streaming(
    *names: str, rv: str, then: tuple[Events, ...] = (), hold: bool = False, after: float = 0.0
) -> Handler:
    """Answers a streamed list of ConfigMaps: what is there, the mark of its end, and what happens then."""
    present = [("ADDED", config_map(name, "1")) for name in names]
    return watching(*present, ("BOOKMARK", bookmark(rv, end=True)), *then, hold=hold, after=after)


def status_object(
    code: int, reason: str = "", message: str = "", details: dict[str, Any] | None = None
) -> dict[str, Any]:
    """A Status, as the body of an error and as the object of an ERROR event."""
    body: dict[str, Any] = {"kind": "Status", "code": code, "reason": reason, "message": message}
    return {**body, "details": details} if details else body


def bookmark(rv: str, *, end: bool = False) -> dict[str, Any]:
    """The object of a BOOKMARK of ConfigMaps; ``end``: it marks the end of a streamed list."""
    metadata: dict[str, Any] = {"resourceVersion": rv, "creationTimestamp": None}
    if end:
        metadata["annotations"] = {INITIAL_EVENTS_END: "true"}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata}


def config_map(name: str, rv: str, **data: str) -> dict[str, Any]:
    """A ConfigMap as a server would send it."""
    metadata = {"name": name, "namespace": "n", "resourceVersion": rv, "uid": f"uid-{name}"}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}
