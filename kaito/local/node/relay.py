"""One relayed TCP connection: bytes both ways, half-close included.

In: an accepted connection and a way to open one to a backend. Out: nothing but the bytes. Each direction
ends by itself (a client may close its sending side and still read a long answer); buffers are bounded by
waiting for the slower side. If no backend can be reached, the client's connection is reset, as a refused
one would be.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Sequence

Address = tuple[str, int]
_CHUNK = 64 * 1024
_CONNECT_SECONDS = 5.0


async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, backends: Sequence[Address]) -> bool:
    """Serve one connection by the first backend that accepts it; False when none does."""
    for host, port in backends:
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                back_reader, back_writer = await asyncio.open_connection(host, port)
        except OSError:  # TimeoutError is one
            continue
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(_pump(reader, back_writer))
                both.create_task(_pump(back_reader, writer))
        except* OSError:
            reset(writer)  # one side broke: the other must not wait for what cannot come
        finally:
            back_writer.close()
            writer.close()
        return True
    reset(writer)
    return False


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(_CHUNK):
        writer.write(data)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()


def reset(writer: asyncio.StreamWriter) -> None:
    """Close with RST instead of FIN."""
    sock = writer.get_extra_info("socket")
    if sock is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
