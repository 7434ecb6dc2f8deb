"""A TCP proxy on loopback that can go dead: a partition, as a client sees it.

In: the address of a server. Out: an address that leads there until :meth:`TcpProxy.cut`. Then nothing moves any
more, in either direction, and nothing is closed or refused: connections are half open, as when a cable is pulled.
It runs in a thread of its own, so that a stuck event loop does not stop it.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from urllib.parse import urlsplit


class TcpProxy:
    """See the module. ``url`` is valid after :meth:`start`."""

    def __init__(self, server: str) -> None:
        parts = urlsplit(server)
        self._scheme = parts.scheme
        self._host, self._port = parts.hostname or "127.0.0.1", parts.port or 443
        self._flows = threading.Event()
        self._flows.set()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="tcp-proxy", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._over: asyncio.Event | None = None
        self.url = ""

    def start(self) -> None:
        """Listen."""
        self._thread.start()
        self._ready.wait(10)

    def stop(self) -> None:
        """Close everything."""
        if self._loop is not None and self._over is not None:
            self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join(10)

    def cut(self) -> None:
        """From now on bytes vanish."""
        self._flows.clear()

    def mend(self) -> None:
        """From now on bytes flow again; those that vanished are gone."""
        self._flows.set()

    async def _serve(self) -> None:
        self._loop, self._over = asyncio.get_running_loop(), asyncio.Event()
        tasks: set[asyncio.Task[None]] = set()

        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.create_task(self._connect(reader, writer))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

        server = await asyncio.start_server(accept, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        self.url = f"{self._scheme}://127.0.0.1:{port}"
        self._ready.set()
        await self._over.wait()
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers = [writer]
        try:
            beyond, to = await asyncio.open_connection(self._host, self._port)
            writers.append(to)
            await asyncio.gather(self._pump(reader, to), self._pump(beyond, writer))
        except OSError:
            pass
        finally:
            for each in writers:
                each.close()
                with contextlib.suppress(Exception):
                    await each.wait_closed()

    async def _pump(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        while data := await source.read(65536):
            if self._flows.is_set():
                target.write(data)
                await target.drain()
        if self._flows.is_set():
            target.close()
