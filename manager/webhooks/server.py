"""The HTTPS server that API servers call: one path per webhook, alive with or without leadership.

In: handlers by path, a certificate that may change at any time. Out: answers; limits on size and time keep one bad
client from taking the process along: headers within 32 s of connecting, a body of a known most size within 30 s.
Idle connections live longer here than at the API server (Go closes its own after 90 s), so that it is always the
client that ends them: a server that closes first makes a request fail now and then. HTTP/1.1 only, which API
servers fall back to. What must never happen: an exception of a handler that ends in a broken connection.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from pathlib import Path
from typing import Any, Protocol

from aiohttp import web
from prometheus_client import CollectorRegistry

from manager.certs.serving import ServingCertificate
from manager.certs.watcher import DEFAULT_DIR, CertWatcher
from manager.errors import ManagerError
from manager.types import Resource
from manager.webhooks.admission import (
    AdmissionEndpoint,
    Defaulter,
    Handler,
    Validator,
    chain,
    mutate_path,
    mutating,
    validate_path,
    validating,
)
from manager.webhooks.conversion import Conversions
from manager.webhooks.metrics import PathMetrics, WebhookMetrics

log = logging.getLogger("kaito.manager.webhooks")

PORT = 9443
_DIAL_SECONDS = 10.0
_HEADER_SECONDS = 32.0
_BODY_SECONDS = 30.0
_IDLE_SECONDS = 120.0
_HANDSHAKE_SECONDS = 10.0
_STOP_SECONDS = 10.0
_MAX_HEADER_LINE = 32 * 1024
_JSON = {"Content-Type": "application/json"}


class Endpoint(Protocol):
    """What answers the requests of one path."""

    @property
    def limit(self) -> int:
        """The most bytes of a body."""
        ...

    async def answer(self, body: bytes, content_type: str) -> tuple[int, bytes]:
        """HTTP status and JSON; raises nothing."""
        ...

    def refuse(self, code: int, message: str) -> tuple[int, bytes]:
        """The answer to a body that was not read."""
        ...


class WebhookServer:
    """See the module. ``Manager.add(server.run, name="webhooks", needs_leader=False)``.

    Args:
        host: address to listen on; empty for all.
        port: 0 takes a free one, -1 turns the server off.
        certificate: what the rotator loads; None follows ``tls.crt`` and ``tls.key`` in ``cert_dir``.
        client_ca: PEM file of the authorities whose clients alone may connect; only with ``cert_dir``, else it is
            the certificate's.
        registry: for metrics; ``Manager.metrics``.
    """

    def __init__(
        self,
        *,
        host: str = "",
        port: int = PORT,
        certificate: ServingCertificate | None = None,
        cert_dir: Path = DEFAULT_DIR,
        cert_name: str = "tls.crt",
        key_name: str = "tls.key",
        client_ca: Path | None = None,
        registry: CollectorRegistry | None = None,
        header_seconds: float = _HEADER_SECONDS,
        body_seconds: float = _BODY_SECONDS,
    ) -> None:
        registry = registry or CollectorRegistry()
        self._host, self._port = host, port
        self._watcher: CertWatcher | None = None
        if certificate is None:
            certificate = ServingCertificate(client_ca=_read(client_ca) if client_ca else None)
            files = (cert_dir / cert_name, cert_dir / key_name)
            self._watcher = CertWatcher(*files, serving=certificate, registry=registry)
        self._certificate = certificate
        self._metrics = WebhookMetrics(registry)
        self._paths: dict[str, tuple[Endpoint, PathMetrics]] = {}
        self._header_seconds, self._body_seconds = header_seconds, body_seconds
        self._problem: str | None = "the webhook server has not been started"
        self._serving = asyncio.Event()
        self.address: tuple[str, int] | None = None
        """(host, port) once it listens."""

    def __repr__(self) -> str:
        return f"<WebhookServer {self.address or 'stopped'} paths={len(self._paths)}>"

    # ------------------------------------------------------------------ composition

    def register(self, path: str, endpoint: Endpoint) -> None:
        """Have an endpoint answer a path; at any time, also while serving.

        Raises:
            ManagerError: the path is taken.
        """
        if path in self._paths:
            raise ManagerError(f"there is a webhook at {path} already")
        self._paths[path] = (endpoint, PathMetrics(self._metrics, path))

    def admission(self, path: str, *handlers: Handler) -> None:
        """Have these handlers, one after the other, answer a path."""
        handler = handlers[0] if len(handlers) == 1 else chain(*handlers)
        self.register(path, AdmissionEndpoint(handler, panicked=self._metrics.panics.inc))

    def validate(self, resource: Resource, *validators: Validator) -> None:
        """Serve validators at the usual path of a kind."""
        self.admission(validate_path(resource), *map(validating, validators))

    def default(self, resource: Resource, *defaulters: Defaulter) -> None:
        """Serve defaulters at the usual path of a kind."""
        self.admission(mutate_path(resource), *map(mutating, defaulters))

    def convert(self, conversions: Conversions) -> None:
        """Serve conversions at ``/convert``."""
        conversions.panicked = self._metrics.conversion_panics.inc
        self.register(conversions.path, conversions)

    # ------------------------------------------------------------------ life

    def started(self) -> str | None:
        """For a readiness probe: None once a TLS connection to the server has succeeded, else why not."""
        return self._problem

    async def ready(self) -> None:
        """Wait until the server can be called."""
        await self._serving.wait()

    async def run(self) -> None:
        """Serve until cancelled, then let requests under way end.

        Raises:
            ManagerError: the address cannot be used.
        """
        if self._port < 0:
            self._problem = None
            self._serving.set()
            await asyncio.Event().wait()
        try:
            async with asyncio.TaskGroup() as group:
                if self._watcher is not None:
                    group.create_task(self._watcher.run(), name="webhook-certificate")
                group.create_task(self._serve(), name="webhook-server")
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from failures

    async def _serve(self) -> None:
        self._problem = "there is no certificate yet"
        await self._certificate.ready()
        protocols = _Server(
            self._handle,
            self._header_seconds,
            access_log=None,
            keepalive_timeout=_IDLE_SECONDS,
            max_line_size=_MAX_HEADER_LINE,
            max_field_size=_MAX_HEADER_LINE,
            max_headers=128,
            lingering_time=0.25,  # long enough for an answer to reach a client that still sends
        )
        loop = asyncio.get_running_loop()
        try:
            listener = await loop.create_server(
                protocols,
                self._host or None,
                self._port,
                ssl=self._certificate.context,
                ssl_handshake_timeout=_HANDSHAKE_SECONDS,
                backlog=512,
                reuse_address=True,
            )
        except (OSError, OverflowError) as error:
            where = f"{self._host}:{self._port}"
            raise ManagerError(
                f"the webhook server cannot listen on {where}: {error}; choose another port"
            ) from error
        self.address = listener.sockets[0].getsockname()[:2]
        try:
            log.info("webhooks served address=%s paths=%d", self.address, len(self._paths))
            self._problem = await self.dial()
            if self._problem is None:
                self._serving.set()
            await asyncio.Event().wait()
        finally:
            self._problem = "the webhook server has stopped"
            listener.close()
            protocols.pre_shutdown()
            await protocols.shutdown(_STOP_SECONDS)

    async def dial(self) -> str | None:
        """Connect to the server over TLS as a client would: None when that works, else why not."""
        if self.address is None:
            return "the webhook server has not been started"
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.address[0], self.address[0])  # noqa: S104
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE  # whether it answers is asked, not who it is
        try:
            async with asyncio.timeout(_DIAL_SECONDS):
                _, writer = await asyncio.open_connection(host, self.address[1], ssl=context)
                writer.transport.abort()
        except (OSError, TimeoutError) as error:
            return f"the webhook server cannot be reached: {error or type(error).__name__}"
        return None

    # ------------------------------------------------------------------ one request

    async def _handle(self, request: web.BaseRequest) -> web.Response:
        found = self._paths.get(request.path)
        if found is None:
            return web.Response(status=404, text="404 page not found\n")
        endpoint, metrics = found
        loop = asyncio.get_running_loop()
        began = loop.time()
        status = 500
        metrics.in_flight.inc()
        try:
            status, body, keep = await self._answer(endpoint, request)
            response = web.Response(status=status, body=body, headers=_JSON)
            if not keep:
                response.force_close()
            return response
        finally:
            metrics.in_flight.dec()
            metrics.finished(status, loop.time() - began)

    async def _answer(self, endpoint: Endpoint, request: web.BaseRequest) -> tuple[int, bytes, bool]:
        """Status, body, and whether the connection may be used again."""
        too_large = f"request entity is too large; limit is {endpoint.limit} bytes"
        if (request.content_length or 0) > endpoint.limit:
            return *endpoint.refuse(413, too_large), False
        body = bytearray()
        try:
            async with asyncio.timeout(self._body_seconds):
                while chunk := await request.content.readany():
                    body += chunk
                    if len(body) > endpoint.limit:
                        return *endpoint.refuse(413, too_large), False
        except TimeoutError:
            message = f"the body was not sent within {self._body_seconds:.0f} s"
            return *endpoint.refuse(408, message), False
        except (OSError, web.RequestPayloadError) as error:
            return *endpoint.refuse(400, f"the body could not be read: {error}"), False
        return *(await endpoint.answer(bytes(body), request.headers.get("Content-Type", ""))), True


class _Server(web.Server):
    """aiohttp's, with a limit on the time between a connection and its first request."""

    def __init__(self, handler: Any, header_seconds: float, **options: Any) -> None:
        super().__init__(self._note, **options)
        self._handler = handler
        self._header_seconds = header_seconds
        self._unused: dict[web.RequestHandler, asyncio.TimerHandle] = {}

    async def _note(self, request: web.BaseRequest) -> web.StreamResponse:
        timer = self._unused.pop(request.protocol, None)
        if timer is not None:
            timer.cancel()
        response: web.StreamResponse = await self._handler(request)
        return response

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        super().connection_made(handler, transport)
        loop = asyncio.get_running_loop()
        self._unused[handler] = loop.call_later(self._header_seconds, transport.abort)

    def connection_lost(self, handler: web.RequestHandler, exc: BaseException | None = None) -> None:
        super().connection_lost(handler, exc)
        timer = self._unused.pop(handler, None)
        if timer is not None:
            timer.cancel()


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ManagerError(f"the authorities of webhook clients cannot be read: {error}") from error
