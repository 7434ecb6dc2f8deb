"""Bytes to and from one API server: connections, TLS, credentials, time limits; foreign exceptions end here.

In: method, target, headers and body as bytes. Out: bytes of an answer, or lines of a stream; errors are of
``manager.errors``. Requests and streams use connection pools of their own, because every watch keeps a connection
for minutes. Answers that ask to wait (``Retry-After``) are obeyed up to ten times. A 401 renews the credential and
tries once more. What each request costs is measured in ``hack/bench/client.py``.
"""

from __future__ import annotations

import asyncio
import logging
import re
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

import orjson

from manager.config import RestConfig
from manager.credentials import Credential, bearer
from manager.errors import ConnectionFailed, InvalidRequest, StreamSilent, api_error
from manager.lines import LineSplitter
from manager.rest_metrics import RestObserver
from manager.throttle import RateLimit, TokenBucket
from manager.tls import LiveTls
from manager.types import Obj
from manager.watchdog import Watchdog
from manager.wire import Answer, Body, Wire, server_url

if TYPE_CHECKING:
    import aiohttp
    from aiohttp.abc import AbstractResolver

log = logging.getLogger("kaito.manager.client")

REQUEST_SECONDS = 60.0
_CONNECT_SECONDS = 10.0
_MAX_RETRY_AFTER = 10  # tries, as client-go's transport
_MAX_WAIT = 60.0  # seconds that one Retry-After may cost
_MAX_REMEMBERED = 1000  # warnings

Query = Mapping[str, str | int | bool | None]

_PATH = re.compile(r"/[A-Za-z0-9/._~:@%!$&'()*+,;=-]*").fullmatch
_HEADER = re.compile(r"[^\x00-\x08\x0a-\x1f\x7f]*").fullmatch
_WARNING = re.compile(r'299 \S+ "((?:[^"\\]|\\.)*)"')


def target_of(path: str, query: Query | None = None) -> str:
    """A path and query as a request line carries them. The path may bring an encoded query of its own."""
    path, _, given = path.partition("?")
    if not _PATH(path):
        path = quote(path, safe="/:@%!$&'()*+,;=~")
    parameters = urlencode(
        [
            (key, str(value).lower() if isinstance(value, bool) else value)
            for key, value in (query or {}).items()
            if value is not None
        ]
    )
    both = "&".join(filter(None, (quote(given, safe="/:@%!$&'()*+,;=~?"), parameters)))
    return f"{path}?{both}" if both else path


def header_lines(headers: Mapping[str, str], *more: tuple[str, str]) -> bytes:
    """Headers as a request carries them; ``more`` may name one several times.

    Raises:
        InvalidRequest: one of them cannot be sent.
    """
    pairs = (*headers.items(), *more)
    for name, value in pairs:
        if not _HEADER(name) or not _HEADER(value):
            raise InvalidRequest(f"the header {name!r} has characters that cannot be sent")
    return "".join(f"{name}: {value}\r\n" for name, value in pairs).encode("utf-8")


class Transport:
    """See the module. Made by ``Client``, which is the public face.

    Args:
        config: where and as whom.
        user_agent: shown in the server's audit log.
        observer: told of every finished request, for metrics.
        rate_limit: of requests; None: the server's own is enough.
        timeout: seconds that one request may take.
        on_warning: called with each different warning of the server, once; default logs it.

    Raises:
        ConfigError: the token cannot be sent.
    """

    def __init__(
        self,
        config: RestConfig,
        *,
        user_agent: str,
        observer: RestObserver | None = None,
        rate_limit: RateLimit | None = None,
        timeout: float = REQUEST_SECONDS,
        on_warning: Callable[[str], None] | None = None,
    ) -> None:
        self.config = config
        self.base = config.server.rstrip("/")
        self.on_warning = on_warning or _log_warning
        self._host = self.base.partition("://")[2].partition("/")[0]
        self._user_agent = user_agent
        self._observer = observer
        self._detailed = observer is not None and observer.detailed
        self._bucket = TokenBucket(rate_limit) if rate_limit else None
        self._timeout = timeout
        self._credential = config.credential
        self._authorization = bearer(config.token) if config.token else ""
        self._lines = ("", b"")  # the last Authorization, and its header line
        self._wire: Wire | None = None
        self._tls: LiveTls | None = None
        self._streams: aiohttp.ClientSession | None = None
        self._warned: set[str] = set()
        self._closed = False

    async def close(self) -> None:
        """Close all connections; running streams, and every later request, end with ``ConnectionFailed``."""
        self._closed = True
        wire, streams = self._wire, self._streams
        self._wire = self._streams = None
        if wire is not None:
            await wire.close()
        if streams is not None:
            if streams.connector is not None:
                # A polite TLS farewell would outlive the call, and often the event loop.
                await streams.connector.close(abort_ssl=True)
            await streams.close()
        if wire is not None or streams is not None:
            await asyncio.sleep(0)  # aborted transports close their sockets in the loop's next turn
            await asyncio.sleep(0)

    async def request(self, method: str, target: str, body: bytes | None = None, headers: bytes = b"") -> Body:
        """The body of a good answer; ``target`` and ``headers`` as :func:`target_of` and :func:`header_lines` make
        them.

        Raises:
            ApiError: another answer.
            ConnectionFailed: no answer.
            ConfigError: there are no credentials.
        """
        renewed = False
        waits = 0
        while True:
            if self._bucket is not None:
                await self._throttle(self._bucket, method)
            authorization = self._authorization
            if self._credential is not None:
                authorization = await self._current_authorization(self._credential)
            status, found, raw = await self._exchange(method, target, body, headers, authorization)
            if "Warning" in found:
                self._warn_of(found)
            if 200 <= status < 300:
                return raw
            if status == 401 and not renewed:
                renewed = True
                if await self._renew(authorization):
                    continue
            wait = _retry_after(found)
            # Only an answer that names a time promises that the request had no effect.
            if wait is None or (status != 429 and status < 500) or waits == _MAX_RETRY_AFTER:
                raise api_error(status, _status(raw), wait)
            waits += 1
            if self._observer is not None:
                self._observer.retried(method, status, self._host)
            await asyncio.sleep(min(wait, _MAX_WAIT))

    async def _exchange(
        self, method: str, target: str, body: bytes | None, headers: bytes, authorization: str
    ) -> Answer:
        wire = self._wire or self._open_wire()
        context = self._context()
        if authorization:
            if authorization is not self._lines[0]:
                self._lines = (authorization, header_lines({"Authorization": authorization}))
            headers = self._lines[1] + headers
        observer = self._observer
        if observer is None:
            return await wire.exchange(method, target, headers, body, context)
        status = 0
        began = asyncio.get_running_loop().time() if self._detailed else 0.0
        try:
            answer = await wire.exchange(method, target, headers, body, context)
            status = answer[0]
        finally:
            observer.finished(method, status, self._host)
        if self._detailed:
            seconds = asyncio.get_running_loop().time() - began
            observer.measured(method, self._host, seconds, len(body or b""), len(answer[2]))
        return answer

    # ------------------------------------------------------------------ streams

    async def stream(
        self,
        path: str,
        query: Query | None,
        *,
        silence: float | None,
        total: float | None,
        accept: str = "application/json, */*",
    ) -> AsyncGenerator[list[bytes], None]:
        """The lines of an answer as they come, all that arrived together at once.

        Args:
            silence: seconds without a byte after which ``StreamSilent`` is raised, also before the answer has
                begun; None: never.
            total: seconds after which it is raised in any case; None: never.
            accept: the media type to ask for.
        """
        splitter = LineSplitter()
        loop = asyncio.get_running_loop()
        limits = [limit for limit in (silence, total) if limit is not None]
        deadline = None if total is None else loop.time() + total
        async with AsyncExitStack() as stack:
            try:
                async with asyncio.timeout(min(limits, default=None)):
                    response = await stack.enter_async_context(self._open(target_of(path, query), accept))
            except TimeoutError as error:
                raise StreamSilent(f"no answer from {self.base} in time; the peer may be gone") from error
            read, feed = response.content.readany, splitter.feed
            watchdog = Watchdog(loop, response.content.set_exception, self.base, silence, deadline)
            try:
                while True:
                    watchdog.waiting_since = loop.time()
                    chunk = await read()
                    watchdog.waiting_since = None
                    if not chunk:
                        break
                    if lines := feed(chunk):
                        yield lines
            finally:
                watchdog.stop()
        if rest := splitter.rest():
            yield [rest]

    @asynccontextmanager
    async def _open(self, target: str, accept: str) -> AsyncIterator[aiohttp.ClientResponse]:
        """An answer with a good status, and every foreign exception translated."""
        import aiohttp
        from yarl import URL

        session = self._streams or self._open_streams()
        url = URL(self.base + target, encoded=True)
        renewed = False
        try:
            while True:
                if self._bucket is not None:
                    await self._throttle(self._bucket, "GET")
                authorization = self._authorization
                if self._credential is not None:
                    authorization = await self._current_authorization(self._credential)
                headers = {"Accept": accept, **({"Authorization": authorization} if authorization else {})}
                status = 0
                try:
                    response = await session.get(
                        url,
                        headers=headers,
                        ssl=self._context() or True,
                        server_hostname=self.config.tls_server_name,
                        proxy=self.config.proxy,
                        allow_redirects=False,
                    )
                    status = response.status
                finally:
                    if self._observer is not None:
                        self._observer.finished("GET", status, self._host)
                async with response:
                    self._warn_of(response.headers)
                    if 200 <= status < 300:
                        yield response
                        return
                    raw = await response.read()
                if status == 401 and not renewed:
                    renewed = True
                    if await self._renew(authorization):
                        continue
                raise api_error(status, _status(raw), _retry_after(response.headers))
        except (aiohttp.ClientError, OSError, ssl.SSLError) as error:
            words = str(error) or type(error).__name__
            raise ConnectionFailed(f"GET {self.base}{target}: {words}") from error

    # ------------------------------------------------------------------ connections

    def _open_wire(self) -> Wire:
        if self._closed:
            raise ConnectionFailed(f"the client of {self.base} is closed")
        self._wire = Wire(
            self.base,
            headers=header_lines(
                {"User-Agent": self._user_agent, "Accept-Encoding": "gzip"}, *self.config.impersonate
            ),
            timeout=self._timeout,
            server_hostname=self.config.tls_server_name,
            proxy=self.config.proxy,
            resolver=self._resolver(),
        )
        return self._wire

    def _open_streams(self) -> aiohttp.ClientSession:
        import aiohttp

        if self._closed:
            raise ConnectionFailed(f"the client of {self.base} is closed")
        server_url(self.base)
        self._streams = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, resolver=self._resolver()),
            headers=[("User-Agent", self._user_agent), *self.config.impersonate],
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, connect=_CONNECT_SECONDS),
            read_bufsize=2**16,
        )
        return self._streams

    def _resolver(self) -> AbstractResolver | None:
        if self._observer is None or not self._observer.dns:
            return None
        from manager.resolving import TimedResolver

        return TimedResolver(self._observer.resolved)

    def _context(self) -> ssl.SSLContext | None:
        """The TLS settings of new connections; looks for changed files now and then."""
        tls = self._tls
        if tls is None:
            if not self.base.startswith("https:"):
                return None
            tls = self._tls = LiveTls(self.config)
        now = asyncio.get_running_loop().time()
        if tls.due(now):
            tls.refresh(now)
        return tls.context

    # ------------------------------------------------------------------ credentials

    async def _current_authorization(self, credential: Credential) -> str:
        header = credential.current(asyncio.get_running_loop().time())
        if header is None:
            header = await credential.renew()
            if self._tls is not None and credential.certificate:
                self._tls.refresh(asyncio.get_running_loop().time())
        return header

    async def _renew(self, refused: str) -> bool:
        """After a 401: whether there are other credentials now, so that it is worth trying again."""
        header = refused
        if self._credential is not None:
            header = await self._credential.renew(refused)
        changed = self._tls is not None and self._tls.refresh(asyncio.get_running_loop().time())
        return header != refused or changed

    # ------------------------------------------------------------------ the rest

    async def _throttle(self, bucket: TokenBucket, method: str) -> None:
        waited = await bucket.wait()
        if self._observer is not None:
            self._observer.throttled(method, self._host, waited)

    def _warn_of(self, headers: Mapping[str, str]) -> None:
        """Tell the server's warnings (RFC 7234 ``299 - "text"``), each once."""
        found: Any = headers  # a multidict
        for value in found.getall("Warning", ()):
            for quoted in _WARNING.findall(value):
                text = re.sub(r"\\(.)", r"\1", quoted)
                if text and text not in self._warned:
                    if len(self._warned) >= _MAX_REMEMBERED:
                        self._warned.clear()
                    self._warned.add(text)
                    self.on_warning(text)


def _log_warning(text: str) -> None:
    log.warning("server warning text=%s", text)


def _status(raw: Body) -> Obj:
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError:
        value = None
    if isinstance(value, dict) and value.get("kind") == "Status":
        return value
    return {"message": raw[:500].decode("utf-8", "replace")}


def _retry_after(headers: Mapping[str, str]) -> float | None:
    value = headers.get("Retry-After", "")
    return float(value) if value.isdecimal() else None
