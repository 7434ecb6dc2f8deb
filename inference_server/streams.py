"""Server-sent events to one reader, at the reader's pace.

In: parts of an answer. Out: bytes on a connection. What the reader does not take stays where it is made: the
engine merges what it has for a stream that waits, so a slow reader costs a buffer of the connection and no more. A
reader that takes nothing for a while is cut off, and what it asked for is aborted.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

from aiohttp import HttpVersion11, web

from inference_server.guard import now
from inference_server.metrics import Metrics
from inference_server.protocol import Outlet


class ReaderGone(ConnectionError):
    """The reader has left or has stopped reading."""


class EventStream:
    """The reply to one request; implements `inference_server.protocol.Outlet`.

    The status line goes out with the first event: until then a refusal can still be a status.
    """

    def __init__(
        self,
        request: web.Request,
        metrics: Metrics,
        stall_seconds: float,
        headers: dict[str, str] | None = None,
    ) -> None:
        self._request = request
        self._metrics = metrics
        self._stall = stall_seconds
        self._headers = headers or {}
        self._began = now()
        self._transport: asyncio.Transport | None = None  # once events may be written to it
        self._chunked = request.version >= HttpVersion11
        self.reply: web.StreamResponse | None = None

    @property
    def free(self) -> bool:
        """The kernel took all so far, so that a write cannot block."""
        transport = self._transport
        return transport is not None and transport.get_write_buffer_size() == 0 and not transport.is_closing()

    def write(self, data: bytes) -> None:
        """See the protocol. Past the web framework, whose way to the same call costs three times as much."""
        if self._transport is not None:
            self._transport.write(b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data)

    async def _open(self) -> web.StreamResponse:
        self._metrics.first_token.labels(self._request.path).observe(now() - self._began)
        # X-Accel-Buffering: a proxy that collects the events would take away what streaming is for.
        fixed = {
            "Content-Type": "text/event-stream",
            "Cache-Control": "no-cache",
            "X-Accel-Buffering": "no",
        }
        reply = web.StreamResponse(headers=self._headers | fixed)
        await reply.prepare(self._request)
        self.reply = reply
        return reply

    async def send(self, data: bytes) -> None:
        """See the protocol. Raises ReaderGone."""
        await self._at_the_readers_pace(data, last=False)
        self._transport = self._request.transport

    async def end(self, data: bytes = b"") -> None:
        """See the protocol. Raises ReaderGone."""
        await self._at_the_readers_pace(data, last=True)

    async def _at_the_readers_pace(self, data: bytes, *, last: bool) -> None:
        reply = self.reply or await self._open()
        send = reply.write_eof if last else reply.write
        transport = self._request.transport
        if transport is None or transport.is_closing():
            raise ReaderGone
        if transport.get_write_buffer_size() == 0:
            await send(data)
            return
        try:
            async with asyncio.timeout(self._stall or None):
                await send(data)
        except TimeoutError:
            self._metrics.stalled.inc()
            transport.abort()
            raise ReaderGone from None


class Parts:
    """Implements `inference_server.protocol.Pushed` for events that a generator makes."""

    def __init__(self, parts: AsyncGenerator[bytes, None]) -> None:
        self._parts = parts

    async def run(self, outlet: Outlet) -> None:
        """See the protocol."""
        async with aclosing(self._parts) as parts:
            async for part in parts:
                if outlet.free:
                    outlet.write(part)
                else:
                    await outlet.send(part)
        await outlet.end()
