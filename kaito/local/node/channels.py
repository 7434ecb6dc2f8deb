"""The remote-command protocol over a WebSocket: `v5.channel.k8s.io` and `v4.channel.k8s.io`.

In: an upgraded connection. Out: standard input and terminal sizes as a stream of `Input`, and methods that
send output and the final status. Each message begins with its channel's number: 0 stdin, 1 stdout, 2
stderr, 3 status, 4 terminal size; v5 adds 255, "the channel with this number is closed", which is how the
end of input is told. Sending waits while the peer does not read, so no output piles up here.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass

from aiohttp import WSMsgType, web

from manager.types import Obj

PROTOCOLS = ("v5.channel.k8s.io", "v4.channel.k8s.io")
STDIN, STDOUT, STDERR, STATUS, RESIZE, CLOSE = 0, 1, 2, 3, 4, 255


@dataclass(frozen=True, slots=True)
class Input:
    """One thing that the client did: exactly one field is set."""

    data: bytes | None = None
    size: tuple[int, int] | None = None  # rows, columns
    end: bool = False


class Channels:
    """One connection."""

    def __init__(self, socket: web.WebSocketResponse) -> None:
        self._socket = socket
        self.sent = 0  # messages that the connection took

    @classmethod
    async def accept(cls, request: web.Request) -> Channels:
        """Upgrade the request.

        Raises:
            web.HTTPException: it is no WebSocket request, or offers none of our protocols.
        """
        offered = {
            p.strip() for value in request.headers.getall("Sec-WebSocket-Protocol", []) for p in value.split(",")
        }
        if request.headers.get("Upgrade", "").lower() != "websocket":
            raise web.HTTPBadRequest(text="this endpoint speaks WebSocket only (v5.channel.k8s.io)")
        if not offered & set(PROTOCOLS):
            raise web.HTTPBadRequest(text=f"none of the protocols {sorted(offered)} is served: {PROTOCOLS}")
        socket = web.WebSocketResponse(protocols=PROTOCOLS, compress=False, autoping=True, max_msg_size=0)
        await socket.prepare(request)
        channels = cls(socket)
        await channels.send(STDOUT, b"")  # tells clients that wait for it that the stream is open
        return channels

    async def input(self) -> AsyncIterator[Input]:
        """What the client sends until it goes away."""
        async for message in self._socket:
            if message.type is WSMsgType.TEXT:
                data = message.data.encode()
            elif message.type is WSMsgType.BINARY:
                data = message.data
            else:
                continue
            if not data:
                continue
            channel, rest = data[0], data[1:]
            if channel == STDIN and rest:
                yield Input(data=rest)
            elif channel == RESIZE:
                size = _size(rest)
                if size:
                    yield Input(size=size)
            elif channel == CLOSE and rest[:1] == bytes([STDIN]):
                yield Input(end=True)

    async def send(self, channel: int, data: bytes) -> bool:
        """Send on a channel; False when the client has gone."""
        try:
            await self._socket.send_bytes(bytes([channel]) + data)
        except (ConnectionError, RuntimeError):
            return False
        self.sent += 1
        return not self._socket.closed

    async def finish(self, status: Obj) -> None:
        """Send the final status and close."""
        await self.send(STATUS, json.dumps(status).encode())
        await self._socket.close()

    @property
    def response(self) -> web.WebSocketResponse:
        """What the handler returns."""
        return self._socket


def exit_status(code: int) -> Obj:
    """The final status of a command that ended with this exit code."""
    if code == 0:
        return {"metadata": {}, "status": "Success"}
    return {
        "metadata": {},
        "status": "Failure",
        "message": f"command terminated with non-zero exit code: exit status {code}",
        "reason": "NonZeroExitCode",
        "details": {"causes": [{"reason": "ExitCode", "message": str(code)}]},
    }


def failure_status(message: str) -> Obj:
    """The final status when the command could not be run at all."""
    return {"metadata": {}, "status": "Failure", "message": message, "reason": "InternalError", "code": 500}


def _size(data: bytes) -> tuple[int, int] | None:
    try:
        value = json.loads(data)
        rows, columns = int(value.get("Height", 0)), int(value.get("Width", 0))
    except (ValueError, AttributeError, TypeError):
        return None
    return (rows, columns) if 0 < rows < 65536 and 0 < columns < 65536 else None
