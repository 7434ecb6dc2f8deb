"""A misbehaving proxy between a client and a real API server: faults on request, the server's truth otherwise.

In: the configuration of a server, and faults as data. Out: an address to give to a client; GET requests are passed
on, lists and watches alike, and each fault hits the next requests that it fits. A fault never changes what the
server holds: whatever a client makes of the faults can be compared with what a direct client sees. Writes are not
passed on; tests write to the server itself.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from aiohttp import web

from manager.config import RestConfig
from manager.errors import ApiError
from manager.transport import Transport, header_lines, target_of
from manager.types import Obj

Edit = Callable[[bytes], list[bytes]]


@dataclass(slots=True, kw_only=True)
class Fault:
    """Which requests are hit.

    Attributes:
        on: ``list``, ``watch`` (streamed lists too) or ``stream`` (streamed lists alone).
        times: how many requests in a row.
    """

    on: str = "watch"
    times: int = 1


@dataclass(slots=True, kw_only=True)
class Answer(Fault):
    """Answers itself: with a Status, or with ``html``."""

    status: int
    reason: str = ""
    retry_after: int | None = None
    html: str = ""


@dataclass(slots=True, kw_only=True)
class Hang(Fault):
    """Accepts the connection and the request, and never answers."""


@dataclass(slots=True, kw_only=True)
class Break(Fault):
    """Passes on so many lines of a watch, then: ``cut`` resets the connection in the middle of the next line,
    ``stall`` passes on nothing more and closes nothing, ``end`` ends the answer as a server would, and a Status
    is sent as an ERROR event."""

    after: int = 0
    then: str | Obj


@dataclass(slots=True, kw_only=True)
class Rewrite(Fault):
    """Puts other lines in place of each line of a watch."""

    edit: Edit


@dataclass(slots=True, kw_only=True)
class Replay(Fault):
    """First sends again all lines of earlier watches of the same collection, newest watch first."""


@dataclass(slots=True, kw_only=True)
class Misroute(Fault):
    """Passes a watch on to another path; after so many lines the connection is reset."""

    to: str
    after: int


def doubled(line: bytes) -> list[bytes]:
    """Every line twice."""
    return [line, line]


def without_bookmarks(line: bytes) -> list[bytes]:
    """No bookmarks, but for the one that ends a streamed list."""
    return [] if b'"BOOKMARK"' in line[:40] and b"initial-events-end" not in line else [line]


def padded(size: int) -> Edit:
    """The same event in a line of so many bytes: white space means nothing in JSON."""
    return lambda line: [b"{" + b" " * size + line[1:]]


@dataclass(slots=True)
class Passed:
    """One request: ``kind`` as in :class:`Fault`, when it came, in the loop's time, and whether a fault hit it."""

    kind: str
    at: float
    hit: bool


@dataclass(slots=True)
class FaultProxy:
    """See the module. Use as an async context manager; add to ``faults`` at any time."""

    server: RestConfig
    faults: list[Fault] = field(default_factory=list)
    requests: list[Passed] = field(default_factory=list)
    _running: list[web.Request] = field(default_factory=list)
    _history: dict[str, list[list[bytes]]] = field(default_factory=dict)
    _runner: web.AppRunner | None = None
    _upstream: Transport | None = None
    _url: str = ""

    def config(self) -> RestConfig:
        """How to reach the proxy; it adds the server's credentials itself."""
        return RestConfig(server=self._url)

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_get("/{path:.*}", self._serve)
        self._upstream = Transport(self.server, user_agent="fault-proxy")
        # Who hangs up must not leave a watch open at the server.
        runner = self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self._url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
        if self._upstream is not None:
            await self._upstream.close()

    async def disconnect(self) -> None:
        """Reset all connections of watches that run."""
        for request in self._running:
            if request.transport is not None:
                request.transport.abort()
        await asyncio.sleep(0)

    # ------------------------------------------------------------------ one request

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        kind = "list"
        if request.query.get("watch"):
            kind = "stream" if request.query.get("sendInitialEvents") else "watch"
        fault = self._take(kind)
        self.requests.append(Passed(kind, asyncio.get_running_loop().time(), fault is not None))
        if isinstance(fault, Hang):
            await asyncio.Event().wait()
        if isinstance(fault, Answer):
            return _answer(fault)
        self._running.append(request)
        try:
            if kind == "list":
                return await self._list(request)
            return await self._watch(request, fault)
        except ApiError as error:
            return _status(error.status, error.reason, error.message, error.details)
        finally:
            self._running.remove(request)

    def _take(self, kind: str) -> Fault | None:
        for fault in self.faults:
            if fault.on == kind or (fault.on == "watch" and kind == "stream"):
                fault.times -= 1
                if fault.times <= 0:
                    self.faults.remove(fault)
                return fault
        return None

    async def _list(self, request: web.Request) -> web.StreamResponse:
        upstream = self._transport()
        headers = header_lines({"Accept": request.headers.get("Accept", "application/json")})
        body = await upstream.request("GET", target_of(request.path, dict(request.query)), None, headers)
        return web.Response(body=body, content_type="application/json")

    async def _watch(self, request: web.Request, fault: Fault | None) -> web.StreamResponse:
        path = fault.to if isinstance(fault, Misroute) else request.path
        lines_left = fault.after if isinstance(fault, Break | Misroute) else -1
        stream = self._transport().stream(
            path,
            dict(request.query),
            silence=None,
            total=None,
            accept=request.headers.get("Accept", "application/json"),
        )
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        told: list[bytes] = []
        async with aclosing(stream) as batches:
            if not request.query.get("sendInitialEvents"):
                # The headers of a quiet watch come at once; those of a refusal are the server's.
                await response.prepare(request)
            if isinstance(fault, Replay):
                for earlier in reversed(self._history.get(request.path, [])):
                    await response.write(b"".join(line + b"\n" for line in earlier))
            self._history.setdefault(request.path, []).append(told)
            if lines_left == 0:
                return await _broken(request, response, fault, b"")
            async for batch in batches:
                if not response.prepared:
                    await response.prepare(request)
                for line in batch:
                    if lines_left == 0:
                        return await _broken(request, response, fault, line)
                    lines_left -= 1
                    out = fault.edit(line) if isinstance(fault, Rewrite) else [line]
                    told += out
                    await response.write(b"".join(one + b"\n" for one in out))
                    if lines_left == 0 and not (isinstance(fault, Break) and fault.then == "cut"):
                        return await _broken(request, response, fault, b"")
        return response

    def _transport(self) -> Transport:
        if self._upstream is None:
            raise RuntimeError("the proxy is used as an async context manager")
        return self._upstream


def _answer(fault: Answer) -> web.StreamResponse:
    headers = {} if fault.retry_after is None else {"Retry-After": str(fault.retry_after)}
    if fault.html:
        return web.Response(text=fault.html, status=fault.status, content_type="text/html", headers=headers)
    return _status(fault.status, fault.reason, "", None, headers)


def _status(
    status: int, reason: str, message: str, details: Obj | None, headers: dict[str, str] | None = None
) -> web.StreamResponse:
    body: Obj = {"kind": "Status", "code": status, "reason": reason, "message": message, "details": details}
    return web.json_response(body, status=status, headers=headers)


async def _broken(
    request: web.Request, response: web.StreamResponse, fault: Fault | None, line: bytes
) -> web.StreamResponse:
    """The end of an answer that a fault breaks."""
    if not response.prepared:
        await response.prepare(request)
    then = fault.then if isinstance(fault, Break) else "cut"
    if isinstance(then, dict):
        await response.write(json.dumps({"type": "ERROR", "object": then}).encode() + b"\n")
    elif then == "stall":
        await asyncio.Event().wait()
    elif then == "cut":
        await response.write(line[: len(line) // 2])
        await asyncio.sleep(0.01)  # what was written must be on its way before the reset overtakes it
        if request.transport is not None:
            request.transport.abort()
    return response
