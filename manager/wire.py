"""One request and its whole answer over HTTP/1.1, at the least cost per request.

In: method, target, header lines and body as bytes. Out: status, headers and body; foreign exceptions end here.
This is the hot path of every controller (one status write per reconciled object), so of aiohttp only that part is
used which is hard: the connector (pool, TLS, proxies, name look-up) and the parser of answers. Its session, which
makes a request object, a response object and a writer task for each request, costs as much again as all the rest
together (``hack/bench/client.py``). The request side is a few lines of text, and they are here.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from typing import TYPE_CHECKING

from manager.errors import ConfigError, ConnectionFailed

if TYPE_CHECKING:
    import aiohttp
    from aiohttp.abc import AbstractResolver
    from yarl import URL

_CONNECT_SECONDS = 10.0
_IDLE_SECONDS = 30.0  # API servers close idle connections after 90 s, and load balancers before them sooner
_CONNECTIONS = 100
_IDEMPOTENT = frozenset({"GET", "HEAD", "PUT", "DELETE"})

Body = bytes | bytearray
Answer = tuple[int, Mapping[str, str], Body]


def server_url(address: str) -> URL:
    """The address of a server or a proxy.

    Raises:
        ConfigError: it cannot be connected to.
    """
    from yarl import URL

    try:
        url = URL(address)
        host = url.host or ""
        host.encode("idna")  # as the look-up will do, in a place where nobody expects its errors
    except ValueError as error:  # UnicodeError is one
        raise ConfigError(f"the address {_public(address)} cannot be used: {error}") from None
    if not host or url.scheme not in ("http", "https"):
        raise ConfigError(f"the address {_public(address)} is no http or https URL")
    return url


def _public(address: str) -> str:
    """Without a user and password."""
    scheme, mark, rest = address.rpartition("://")
    return f"{scheme}{mark}{rest.rpartition('@')[2]}"


class _Deadline:
    """Ends a connection when its time is up, and remembers it."""

    __slots__ = ("_transport", "hit")

    def __init__(self, transport: asyncio.Transport) -> None:
        self.hit = False
        self._transport = transport

    def __call__(self) -> None:
        self.hit = True
        self._transport.abort()


class Wire:
    """The connections to one server for requests that are answered at once. Made in the event loop that uses it.

    Args:
        base: URL of the server, without a slash at the end.
        headers: lines that every request carries, each ended by CR LF.
        timeout: seconds from the sending of a request to the end of its answer.
        server_hostname: what to expect in the certificate, where it is not the URL's host.
        proxy: URL of a proxy.
        resolver: looks up host names; None: aiohttp's own.

    Raises:
        ConfigError: a URL cannot be used.
    """

    def __init__(
        self,
        base: str,
        *,
        headers: bytes,
        timeout: float,
        server_hostname: str | None = None,
        proxy: str | None = None,
        resolver: AbstractResolver | None = None,
    ) -> None:
        import aiohttp
        from aiohttp.http_exceptions import HttpProcessingError

        self._base = base
        self._timeout = timeout
        self._server_hostname = server_hostname
        self._foreign = (aiohttp.ClientError, HttpProcessingError, OSError)
        self._broken = (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError)
        self._connect_timeout = aiohttp.ClientTimeout(total=None, connect=_CONNECT_SECONDS)
        self._url = server_url(base)
        self._proxy = server_url(proxy) if proxy else None
        host = self._url.host_port_subcomponent or ""
        self._common = b"Host: %s\r\n%s" % (host.encode(), headers)
        # A proxy of plain http is told the whole address; to https it opens a tunnel, which the connector does.
        self._plain_proxy = self._proxy is not None and self._url.scheme == "http"
        path = self._url.raw_path.rstrip("/")
        self._prefix = f"{self._url.origin()}{path}" if self._plain_proxy else path
        self._connector = aiohttp.TCPConnector(
            limit=_CONNECTIONS, keepalive_timeout=_IDLE_SECONDS, resolver=resolver
        )
        self._loop = asyncio.get_running_loop()
        self._key: aiohttp.ClientRequest | None = None
        self._context: ssl.SSLContext | None = None

    async def close(self) -> None:
        """End all connections; requests that run fail."""
        # A polite TLS farewell would outlive the call, and often the event loop.
        await self._connector.close(abort_ssl=True)

    async def exchange(
        self, method: str, target: str, headers: bytes, body: bytes | None, context: ssl.SSLContext | None
    ) -> Answer:
        """Send one request and read its answer. A request that cannot do harm twice is sent again when the
        connection broke, which is how a server that ends an idle connection looks from here.

        Args:
            target: path and query, percent-encoded.
            headers: further lines, each ended by CR LF.
            context: the TLS settings; connections made with another one are not used.

        Raises:
            ConnectionFailed: no answer, or none that is HTTP.
        """
        if body is not None:
            tail = b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
        else:
            tail = b"\r\n" if method == "GET" else b"Content-Length: 0\r\n\r\n"
        head = f"{method} {self._prefix}{target} HTTP/1.1\r\n".encode("ascii")
        request = b"".join((head, self._common, headers, tail))
        key = self._key
        if key is None or context is not self._context:
            key = self._make_key(context)
        again = method in _IDEMPOTENT
        try:
            while True:
                connection = await self._connector.connect(key, [], self._connect_timeout)
                if self._plain_proxy:
                    request = self._authenticated(key, request)
                try:
                    return await self._answer(connection, request)
                except self._broken:
                    if not again:
                        raise
                    again = False
        except self._foreign as error:
            words = str(error) or type(error).__name__
            raise ConnectionFailed(f"{method} {self._base}{target}: {words}") from error

    async def _answer(self, connection: aiohttp.connector.Connection, request: bytes) -> Answer:
        protocol = connection.protocol
        transport = protocol.transport if protocol is not None else None
        if protocol is None or transport is None:
            connection.close()
            raise self._broken[0]()
        deadline = _Deadline(transport)
        timer = self._loop.call_later(self._timeout, deadline)
        try:
            protocol.set_response_params(read_until_eof=True)
            transport.write(request)
            message, payload = await protocol.read()
            while 100 <= message.code < 200:
                message, payload = await protocol.read()
            body: Body
            if payload.is_eof():
                body = payload.read_nowait()
            else:  # grown, not joined: a list of many objects is then in memory once
                body = bytearray()
                while chunk := await payload.readany():
                    body += chunk
        except BaseException as error:
            # Nobody knows what is still under way on this connection. An abort, because a polite end takes time.
            protocol.abort()
            connection.close()
            if deadline.hit and isinstance(error, Exception):
                raise TimeoutError(f"no answer within {self._timeout:g} s") from error
            raise
        finally:
            timer.cancel()
        connection.release()
        if deadline.hit:  # an answer that ends with its connection looks complete then
            raise TimeoutError(f"no answer within {self._timeout:g} s")
        return message.code, message.headers, body

    def _make_key(self, context: ssl.SSLContext | None) -> aiohttp.ClientRequest:
        """What the connector wants to see of a request: it is never sent, so all requests share it."""
        import aiohttp

        self._context = context
        self._key = aiohttp.ClientRequest(
            "GET",
            self._url,
            loop=self._loop,
            ssl=context if context is not None else True,
            server_hostname=self._server_hostname,
            proxy=self._proxy,
        )
        return self._key

    @staticmethod
    def _authenticated(key: aiohttp.ClientRequest, request: bytes) -> bytes:
        """The request with the proxy's password, which the connector leaves at the key."""
        value = key.headers.get("Proxy-Authorization")
        if value is None or b"\r\nProxy-Authorization: " in request:
            return request
        head, _, rest = request.partition(b"\r\n")
        return b"%s\r\nProxy-Authorization: %s\r\n%s" % (head, value.encode("ascii"), rest)
