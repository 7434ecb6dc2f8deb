"""The HTTP servers of a manager: one application on one address, plain or with TLS, and the one of the metrics.

Each is a runnable: it listens when it starts, is ready when it listens, and closes when it is cancelled, with a
minute for answers under way. None needs leadership; they start first and stop last. A port in use is an error of
this room that names the address and the way out. Who may connect is bounded: headers of 1 MiB at most (128 of
8 KiB), and 90 s for the next request of a connection, its headers included.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from manager.errors import ConfigError, ManagerError

IDLE_SECONDS = 90.0
SHUTDOWN_SECONDS = 60.0
OFF = ("", "0")

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Filter = Callable[[web.Request], Awaitable["web.Response | None"]]
"""Looks at a request first; what it answers is the answer, None lets the request through."""


def parse_bind(bind: str, what: str) -> tuple[str, int]:
    """Host (empty: all addresses) and port of ``host:port`` or ``:port``; IPv6 in brackets.

    Raises:
        ConfigError: it is none.
    """
    host, separator, port = bind.rpartition(":")
    if not separator or not port.isdigit() or int(port) > 65535:
        raise ConfigError(f"the {what} server cannot listen on {bind!r}: write host:port, or 0 for no server")
    return host.strip("[]"), int(port)


class HttpServer:
    """One application on one address. ``address`` is (host, port) while it listens.

    Args:
        bind: ``host:port``; port 0 takes a free one.
        what: for messages, such as ``metrics``.
        option: what to change if the address cannot be used, for the same.
        tls: None serves plain HTTP.
    """

    def __init__(
        self, bind: str, app: web.Application, what: str, *, option: str = "", tls: ssl.SSLContext | None = None
    ) -> None:
        self._host, self._port = parse_bind(bind, what)
        self.what = what
        self._bind, self._tls, self._app = bind, tls, app
        self._option = option or f"{what}_bind"
        self._listening = asyncio.Event()
        self.address: tuple[str, int] | None = None

    def __repr__(self) -> str:
        return f"<HttpServer {self.what} {self._bind} {'listens' if self.address else 'is closed'}>"

    def add(self, path: str, handler: Handler) -> None:
        """Serve another path.

        Raises:
            ManagerError: it is taken, or the server has been started.
        """
        if self._app.frozen:
            raise ManagerError(f"{path} cannot be served: the {self.what} server runs already")
        if any(resource.canonical == path for resource in self._app.router.resources()):
            raise ManagerError(f"the {self.what} server has {path} already, and it is not replaced")
        self._app.router.add_route("*", path, handler)

    async def run(self) -> None:
        """Serve until cancelled.

        Raises:
            ManagerError: the address cannot be used.
        """
        runner = web.AppRunner(
            self._app, access_log=None, keepalive_timeout=IDLE_SECONDS, shutdown_timeout=SHUTDOWN_SECONDS
        )
        await runner.setup()
        try:
            try:
                await web.TCPSite(runner, self._host or None, self._port, ssl_context=self._tls).start()
            except OSError as error:
                raise ManagerError(
                    f"the {self.what} server cannot listen on {self._bind}: {error.strerror or error}; free it, "
                    f"name another address with {self._option}, or turn the server off with {self._option}=0"
                ) from error
            self.address = runner.addresses[0][:2]
            self._listening.set()
            await asyncio.Event().wait()
        finally:
            self.address = None
            await runner.cleanup()

    async def ready(self) -> None:
        """Wait until it listens."""
        await self._listening.wait()


def metrics_app(registry: CollectorRegistry, check: Filter | None = None) -> web.Application:
    """The application of the metrics, with a filter before all its paths."""

    async def serve(request: web.Request) -> web.StreamResponse:
        encoder, content_type = choose_encoder(request.headers.get("Accept", ""))
        return web.Response(body=encoder(registry), headers={"Content-Type": content_type})

    @web.middleware
    async def filtered(request: web.Request, handler: Handler) -> web.StreamResponse:
        refused = await check(request) if check is not None else None
        return await handler(request) if refused is None else refused

    app = web.Application(middlewares=[filtered])
    app.router.add_get("/metrics", serve)
    return app
