"""Server-sent events to one reader, at the reader's pace.

In: parts of an answer. Out: bytes on a connection. What the reader does not take stays where it is made: the
engine merges what it has for a stream that waits, so a slow reader costs a buffer of the connection and no more. A
reader that takes nothing for a while is cut off, and what it asked for is aborted.
"""

from __future__ import annotations

import asyncio

from aiohttp import web

from inference_server.metrics import Metrics


class ReaderGone(ConnectionError):
    """The reader has left or has stopped reading."""


class EventStream:
    """The reply to one request. Create, ``open``, ``send`` in turn, ``close``."""

    def __init__(self, request: web.Request, metrics: Metrics, stall_seconds: float) -> None:
        self._request = request
        self._metrics = metrics
        self._stall = stall_seconds
        self.reply: web.StreamResponse | None = None

    async def open(self, headers: dict[str, str] | None = None) -> None:
        """Send the status line. From here on a failure can only be told inside the stream."""
        # X-Accel-Buffering: a proxy that collects the events would take away what streaming is for.
        fixed = {
            "Content-Type": "text/event-stream",
            "Cache-Control": "no-cache",
            "X-Accel-Buffering": "no",
        }
        reply = web.StreamResponse(headers=(headers or {}) | fixed)
        self.reply = reply
        await reply.prepare(self._request)

    async def send(self, data: bytes) -> None:
        """Send one or more whole events. Raises ReaderGone."""
        transport = self._request.transport
        if self.reply is None or transport is None or transport.is_closing():
            raise ReaderGone
        if transport.get_write_buffer_size() == 0:  # the kernel took all so far: this write cannot block
            await self.reply.write(data)
            return
        try:
            async with asyncio.timeout(self._stall or None):
                await self.reply.write(data)
        except TimeoutError:
            self._metrics.stalled.inc()
            transport.abort()
            raise ReaderGone from None

    async def close(self) -> web.StreamResponse:
        """The regular end. Returns what a handler returns."""
        if self.reply is None:
            raise ReaderGone
        await self.reply.write_eof()
        return self.reply
