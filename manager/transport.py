"""Bytes to and from one API server: connections, TLS, credentials, time limits; foreign exceptions end here.

In: method, path, query, body. Out: bytes of an answer, or lines of a stream; errors are of ``manager.errors``.
Requests and streams use connection pools of their own, because every watch keeps a connection for minutes. Answers
that ask to wait (``Retry-After``) are obeyed up to ten times.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

import orjson

from manager.config import RestConfig
from manager.errors import ApiError, ConfigError, ConnectionFailed, StreamSilent, api_error
from manager.lines import LineSplitter
from manager.rest_metrics import RestObserver
from manager.types import Obj
from manager.watchdog import Watchdog

if TYPE_CHECKING:
    import aiohttp

log = logging.getLogger("kaito.manager.client")

_REQUEST_SECONDS = 60.0
_CONNECT_SECONDS = 10.0
_MAX_RETRY_AFTER = 10  # tries, as client-go's transport
_MAX_WAIT = 60.0  # seconds that one Retry-After may cost

Query = Mapping[str, str | int | bool | None]


class Transport:
    """See the module. Made by ``Client``, which is the public face.

    Args:
        config: where and as whom.
        user_agent: shown in the server's audit log.
        observer: told of every finished request, for metrics.
    """

    def __init__(self, config: RestConfig, *, user_agent: str, observer: RestObserver | None = None) -> None:
        self.config = config
        self.base = config.server.rstrip("/")
        self._user_agent = user_agent
        self._observer = observer
        self._sessions: tuple[aiohttp.ClientSession, aiohttp.ClientSession] | None = None
        self._warned: set[str] = set()
        self._closed = False

    async def close(self) -> None:
        """Close all connections; running streams, and every later request, end with ``ConnectionFailed``."""
        self._closed = True
        if self._sessions is not None:
            for session in self._sessions:
                if session.connector is not None:
                    # A polite TLS farewell would outlive the call, and often the event loop.
                    await session.connector.close(abort_ssl=True)
                await session.close()
            self._sessions = None
            await asyncio.sleep(0)  # aborted transports close their sockets in the loop's next turn
            await asyncio.sleep(0)

    async def request(
        self,
        method: str,
        path: str,
        query: Query | None = None,
        data: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> bytes:
        """The body of the answer; ``data`` is JSON unless ``headers`` say otherwise."""
        sent = {"Accept": "application/json"}
        if data is not None:
            sent["Content-Type"] = "application/json"
        sent |= headers or {}
        for attempt in range(_MAX_RETRY_AFTER + 1):
            try:
                async with self._open(method, path, query, data, sent, streaming=False) as response:
                    raw: bytes = await response.read()
                    self._warn(response)
                    return raw
            except ApiError as error:
                # Only an answer that names a time promises that the request had no effect.
                if error.retry_after is None or error.status not in (429, 503) or attempt == _MAX_RETRY_AFTER:
                    raise
                await asyncio.sleep(min(error.retry_after, _MAX_WAIT))
        raise AssertionError("unreachable")

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
        """
        splitter = LineSplitter()
        loop = asyncio.get_running_loop()
        limits = [limit for limit in (silence, total) if limit is not None]
        deadline = None if total is None else loop.time() + total
        async with AsyncExitStack() as stack:
            try:
                async with asyncio.timeout(min(limits, default=None)):
                    response = await stack.enter_async_context(
                        self._open("GET", path, query, None, {"Accept": accept}, streaming=True)
                    )
            except TimeoutError as error:
                raise StreamSilent(f"no answer from {self.base} in time; the peer may be gone") from error
            self._warn(response)
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
    async def _open(
        self,
        method: str,
        path: str,
        query: Query | None,
        data: bytes | None,
        headers: Mapping[str, str],
        *,
        streaming: bool,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """An answer with a good status, and every foreign exception translated."""
        import aiohttp

        session = self._session(streaming=streaming)
        code = "<error>"
        try:
            async with session.request(
                method,
                self.base + path,
                params=_params(query),
                data=data,
                headers={**headers, **await self._authorization()},
                server_hostname=self.config.tls_server_name,
                proxy=self.config.proxy,
                allow_redirects=False,
            ) as response:
                code = str(response.status)
                if response.status >= 300:
                    raise api_error(response.status, await _status(response), _retry_after(response))
                yield response
        except (aiohttp.ClientError, OSError, ssl.SSLError) as error:
            raise ConnectionFailed(f"{method} {self.base}{path}: {error or type(error).__name__}") from error
        finally:
            if self._observer is not None:
                self._observer.finished(method, code, self.base)

    def _session(self, *, streaming: bool) -> aiohttp.ClientSession:
        import aiohttp

        if self._closed:
            raise ConnectionFailed(f"the client of {self.base} is closed")
        if self._sessions is None:
            tls = _tls(self.config)

            def connector(limit: int) -> aiohttp.TCPConnector:
                return aiohttp.TCPConnector(limit=limit, ssl=tls)

            headers = {"User-Agent": self._user_agent}
            short = aiohttp.ClientTimeout(total=_REQUEST_SECONDS, connect=_CONNECT_SECONDS)
            long = aiohttp.ClientTimeout(total=None, connect=_CONNECT_SECONDS)
            self._sessions = (
                aiohttp.ClientSession(connector=connector(100), headers=headers, timeout=short),
                aiohttp.ClientSession(
                    connector=connector(0), headers=headers, timeout=long, read_bufsize=2**20, auto_decompress=True
                ),
            )
        return self._sessions[1 if streaming else 0]

    async def _authorization(self) -> dict[str, str]:
        if self.config.auth_header is not None:
            value = await self.config.auth_header()
            return {"Authorization": value} if value else {}
        return {"Authorization": f"Bearer {self.config.token}"} if self.config.token else {}

    def _warn(self, response: aiohttp.ClientResponse) -> None:
        """Log the server's warnings, each once per client (RFC 7234 ``299 - "text"``)."""
        for value in response.headers.getall("Warning", ()):
            if value not in self._warned and len(self._warned) < 1000:
                self._warned.add(value)
                log.warning("server warning text=%s", value.partition('"')[2].rstrip('"') or value)


def _params(query: Query | None) -> dict[str, str]:
    rendered: dict[str, str] = {}
    for key, value in (query or {}).items():
        if value is None:
            continue
        rendered[key] = str(value).lower() if isinstance(value, bool) else str(value)
    return rendered


async def _status(response: aiohttp.ClientResponse) -> Obj:
    raw = await response.read()
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError:
        value = None
    if isinstance(value, dict) and value.get("kind") == "Status":
        return value
    return {"message": raw[:500].decode("utf-8", "replace") or response.reason or ""}


def _retry_after(response: aiohttp.ClientResponse) -> float | None:
    value = response.headers.get("Retry-After", "")
    return float(value) if value.isdigit() else None


def _tls(config: RestConfig) -> ssl.SSLContext | bool:
    if not config.server.startswith("https"):
        return False
    try:
        context = ssl.create_default_context()
        if config.ca_data is not None:
            context = ssl.create_default_context(cadata=config.ca_data.decode())
        if not config.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if config.client_cert_file:
            context.load_cert_chain(config.client_cert_file, config.client_key_file)
    except (OSError, ssl.SSLError, ValueError) as error:
        raise ConfigError(f"the TLS files of {config.server} cannot be used: {error}") from error
    return context
