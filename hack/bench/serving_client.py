"""A client that costs little: raw HTTP/1.1 over a kept connection, events counted and not decoded.

In: a request's bytes. Out: seconds to the first part with text, to the end, and the number of parts. Its own CPU
is what `time.process_time` says of the process that runs it.
"""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Timing:
    """One answer. ``first`` is when the first event (or the whole body) came, both in seconds."""

    first: float
    total: float
    events: int
    status: int


class Connection(asyncio.Protocol):
    """One request at a time."""

    def __init__(self) -> None:
        self._transport: Any = None
        self._done: asyncio.Future[Timing] | None = None
        self._reset()

    def _reset(self) -> None:
        self._head = b""
        self._left: int | None = None  # bytes of the body, None while it comes in chunks
        self._in_body = False
        self._tail = b""
        self._first = 0.0
        self._events = 0
        self._status = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        if self._done is not None and not self._done.done():
            self._done.set_exception(ConnectionResetError(f"after {self._events} events"))

    async def send(self, raw: bytes) -> Timing:
        """Raises ConnectionResetError if the server drops the connection."""
        self._reset()
        self._done = asyncio.get_running_loop().create_future()
        self._began = time.perf_counter()
        self._transport.write(raw)
        return await self._done

    def data_received(self, data: bytes) -> None:
        if not self._in_body:
            self._head += data
            end = self._head.find(b"\r\n\r\n")
            if end < 0:
                return
            head, data = self._head[:end].lower(), self._head[end + 4 :]
            self._in_body = True
            self._status = int(head[9:12])
            at = head.find(b"content-length:")
            if at >= 0:
                self._left = int(head[at + 15 :].split(b"\r\n", 1)[0])
        if not data:
            return
        if self._left is not None:
            self._first = self._first or time.perf_counter()
            self._left -= len(data)
            if self._left <= 0:
                self._finish()
            return
        found = data.count(b"data: ")
        if found and not self._first:
            self._first = time.perf_counter()
        self._events += found
        self._tail = (self._tail + data)[-5:]
        if self._tail == b"0\r\n\r\n":
            self._finish()

    def _finish(self) -> None:
        if self._done is not None and not self._done.done():
            now = time.perf_counter()
            self._done.set_result(Timing(self._first - self._began, now - self._began, self._events, self._status))

    def close(self) -> None:
        """Close it."""
        self._transport.close()


async def connect(port: int) -> Connection:
    """A connection to a port of this machine."""
    _, protocol = await asyncio.get_running_loop().create_connection(Connection, "127.0.0.1", port)
    return protocol


def post(path: str, body: dict[str, Any]) -> bytes:
    """A request's bytes."""
    raw = json.dumps(body).encode()
    return (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(raw)}\r\n\r\n"
    ).encode() + raw
