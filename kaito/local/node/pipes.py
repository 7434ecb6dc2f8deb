"""Pipes and terminals as asyncio streams, for the commands that run beside a container.

In: a file descriptor, which is owned from then on. Out: a reader or a writer that can be waited for;
closing it closes the descriptor. `collect` is the whole output of a short command, bounded.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable

_LIMIT = 256 * 1024
_CHUNK = 32 * 1024
_GRACE = 0.5  # seconds in which output that was written before the end still arrives


class PipeReader:
    """The reading end of a pipe, or the master of a terminal."""

    def __init__(self, stream: asyncio.StreamReader, transport: asyncio.ReadTransport) -> None:
        self._stream, self._transport = stream, transport

    @classmethod
    async def open(cls, fd: int) -> PipeReader:
        """Take over `fd`."""
        loop = asyncio.get_running_loop()
        stream = asyncio.StreamReader(limit=_LIMIT)
        file = os.fdopen(fd, "rb", buffering=0)
        transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stream), file)
        return cls(stream, transport)

    async def read(self) -> bytes:
        """The next bytes; empty at the end (a terminal ends with EIO)."""
        try:
            return await self._stream.read(_CHUNK)
        except OSError:
            return b""

    def close(self) -> None:
        """Close the descriptor."""
        self._transport.close()


class PipeWriter:
    """The writing end of a pipe, or the master of a terminal."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer

    @classmethod
    async def open(cls, fd: int) -> PipeWriter:
        """Take over `fd`."""
        loop = asyncio.get_running_loop()
        file = os.fdopen(fd, "wb", buffering=0)
        transport, protocol = await loop.connect_write_pipe(asyncio.streams.FlowControlMixin, file)
        return cls(asyncio.StreamWriter(transport, protocol, None, loop))

    async def write(self, data: bytes) -> None:
        """Write and wait while the other end does not read; data for a closed end is dropped."""
        try:
            self._writer.write(data)
            await self._writer.drain()
        except OSError:
            pass

    def close(self) -> None:
        """Close the descriptor; what was written before is still delivered."""
        self._writer.close()


async def collect(fd: int, ended: Awaitable[int], limit: int) -> tuple[int, str]:
    """A command's exit code and the last `limit` bytes of what it wrote to the pipe `fd`."""
    reader = await PipeReader.open(fd)
    output = bytearray()

    async def pump() -> None:
        while data := await reader.read():
            output.extend(data)
            del output[:-limit]

    pumping = asyncio.create_task(pump(), name="collect output")
    try:
        code = await ended
        # A grandchild may hold the pipe open for ever: take what is there.
        await asyncio.wait([pumping], timeout=_GRACE)
        return code, output.decode(errors="replace")
    finally:
        pumping.cancel()
        reader.close()
