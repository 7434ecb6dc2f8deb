"""Every request to an API server: typed in its verbs, untyped in its objects.

In: a ``RestConfig``. Out: plain dicts, or errors of ``manager.errors``; no exception of the HTTP library gets out.
Requests and watches use connection pools of their own, because every watch keeps a connection for minutes. A write
goes to the server at once; nothing is cached here. Answers that ask to wait (``Retry-After``) are obeyed up to ten
times. Semantics: Kubernetes API concepts, "verbs", "server-side apply", "efficient detection of changes".
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import orjson

from manager.config import RestConfig
from manager.errors import ApiError, ConfigError, ConnectionFailed, NotFound, StreamSilent, api_error
from manager.lines import LineSplitter
from manager.rest_metrics import RestObserver
from manager.types import Obj, Resource

if TYPE_CHECKING:
    import aiohttp

log = logging.getLogger("kaito.manager.client")

_REQUEST_SECONDS = 60.0
_CONNECT_SECONDS = 10.0
_MAX_RETRY_AFTER = 10  # tries, as client-go's transport
_MAX_WAIT = 60.0  # seconds that one Retry-After may cost
_PAGE = 500
_WATCH_SLACK = 30.0  # seconds after timeoutSeconds at which a watch is ended from this side
INACTIVITY_SECONDS = 70.0  # bookmarks come about once a minute; HTTP/1.1 has no ping to tell a dead peer


class PatchType(StrEnum):
    """The kinds of patch; the values are the content types."""

    JSON = "application/json-patch+json"
    MERGE = "application/merge-patch+json"
    STRATEGIC = "application/strategic-merge-patch+json"
    APPLY = "application/apply-patch+yaml"


@dataclass(frozen=True, slots=True)
class ObjectList:
    """A collection as it was at one resource version."""

    items: list[Obj]
    resource_version: str
    continue_token: str = ""


@dataclass(frozen=True, slots=True)
class WatchEvent:
    """ADDED, MODIFIED, DELETED or BOOKMARK, with the object. ERROR events are raised, not delivered."""

    type: str
    object: Obj


Query = Mapping[str, str | int | bool | None]
Body = Obj | list[Obj]


class Client:
    """A client of one API server. Use it as an async context manager, or call :meth:`close`.

    Args:
        config: where and as whom.
        user_agent: shown in the server's audit log.
        field_manager: owner of the fields that writes set, unless a call names another.
        observer: told of every finished request, for metrics.
    """

    def __init__(
        self,
        config: RestConfig,
        *,
        user_agent: str = "kaito",
        field_manager: str = "kaito",
        observer: RestObserver | None = None,
    ) -> None:
        self.config = config
        self.field_manager = field_manager
        self._user_agent = user_agent
        self._observer = observer
        self._base = config.server.rstrip("/")
        self._sessions: tuple[aiohttp.ClientSession, aiohttp.ClientSession] | None = None
        self._warned: set[str] = set()
        self._closed = False

    def __repr__(self) -> str:
        return f"<Client {self._base} as {self.field_manager}>"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections; running watches, and every later request, end with ``ConnectionFailed``."""
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

    # ------------------------------------------------------------------ verbs

    async def get(
        self, resource: Resource, name: str, namespace: str | None = None, *, resource_version: str | None = None
    ) -> Obj:
        """One object. Raises ``NotFound``."""
        return await self.request(
            "GET", resource.path(namespace, name), query={"resourceVersion": resource_version}
        )

    async def list(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        label_selector: str | None = None,
        field_selector: str | None = None,
        limit: int | None = None,
        resource_version: str | None = None,
    ) -> ObjectList:
        """The whole collection, fetched page by page; ``limit`` is the size of a page.

        If the token of a later page has expired, the whole list is asked for once more without pages.
        """
        query: dict[str, str | int | bool | None] = {
            "labelSelector": label_selector,
            "fieldSelector": field_selector,
            "limit": _PAGE if limit is None else limit or None,
            "resourceVersion": resource_version,
        }
        items: list[Obj] = []
        token = ""
        while True:
            try:
                page = await self.list_page(resource, namespace, query={**query, "continue": token or None})
            except ApiError as error:
                if not token or error.status != 410:
                    raise
                return await self.list_page(resource, namespace, query={**query, "limit": None})
            items += page.items
            token = page.continue_token
            if not token:
                return ObjectList(items, page.resource_version)
            query["resourceVersion"] = None  # a continuation carries its version in the token

    async def list_page(
        self, resource: Resource, namespace: str | None = None, *, query: Query | None = None
    ) -> ObjectList:
        """One page, exactly as asked for. Items carry apiVersion and kind."""
        reply = await self.request("GET", resource.path(namespace), query=query)
        if reply.get("kind") == "Table":
            raise ApiError(406, "NotAcceptable", "the server answered with a Table where objects were asked for")
        metadata = reply.get("metadata") or {}
        items = reply.get("items") or []
        for item in items:
            item.setdefault("apiVersion", resource.api_version)
            item.setdefault("kind", resource.kind)
        return ObjectList(items, str(metadata.get("resourceVersion", "")), str(metadata.get("continue", "")))

    async def create(
        self, resource: Resource, obj: Obj, *, namespace: str | None = None, dry_run: bool = False
    ) -> Obj:
        """Create an object; apiVersion and kind may be left out. Raises ``AlreadyExists``."""
        where = namespace or obj.get("metadata", {}).get("namespace")
        return await self.request(
            "POST", resource.path(where), query=self._write(dry_run), body=_typed(resource, obj)
        )

    async def replace(
        self, resource: Resource, obj: Obj, *, subresource: str | None = None, dry_run: bool = False
    ) -> Obj:
        """Replace a whole object; raises ``Conflict`` unless its resourceVersion is the current one."""
        meta = obj["metadata"]
        path = resource.path(meta.get("namespace"), meta["name"], subresource)
        return await self.request("PUT", path, query=self._write(dry_run), body=_typed(resource, obj))

    async def patch(
        self,
        resource: Resource,
        name: str,
        patch: Body,
        *,
        namespace: str | None = None,
        type: PatchType = PatchType.MERGE,
        subresource: str | None = None,
        dry_run: bool = False,
    ) -> Obj:
        """Change parts of an object. A ``metadata.resourceVersion`` in a merge patch makes it conditional."""
        return await self.request(
            "PATCH",
            resource.path(namespace, name, subresource),
            query=self._write(dry_run),
            body=patch,
            headers={"Content-Type": type.value},
        )

    async def apply(
        self,
        resource: Resource,
        obj: Obj,
        *,
        field_manager: str | None = None,
        force: bool = True,
        subresource: str | None = None,
        dry_run: bool = False,
    ) -> Obj:
        """Server-side apply: create the object or make the given fields so; fields left out are given up."""
        meta = obj["metadata"]
        return await self.request(
            "PATCH",
            resource.path(meta.get("namespace"), meta["name"], subresource),
            query={**self._write(dry_run, field_manager), "force": force},
            body=_typed(resource, obj),
            headers={"Content-Type": PatchType.APPLY.value},
        )

    async def delete(
        self,
        resource: Resource,
        name: str,
        namespace: str | None = None,
        *,
        propagation: str | None = None,
        grace_seconds: int | None = None,
        uid: str | None = None,
        resource_version: str | None = None,
    ) -> None:
        """Ask for deletion; finalizers may keep the object a while. Raises ``NotFound``, or ``Conflict`` when the
        object is not the one with this uid or resource version."""
        preconditions = {"uid": uid, "resourceVersion": resource_version}
        body: Obj = {"apiVersion": "v1", "kind": "DeleteOptions"}
        if propagation is not None:
            body["propagationPolicy"] = propagation
        if grace_seconds is not None:
            body["gracePeriodSeconds"] = grace_seconds
        if uid or resource_version:
            body["preconditions"] = {key: value for key, value in preconditions.items() if value}
        await self.request("DELETE", resource.path(namespace, name), body=body)

    async def watch(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        resource_version: str | None = None,
        label_selector: str | None = None,
        field_selector: str | None = None,
        timeout_seconds: int | None = None,
        allow_bookmarks: bool = True,
        send_initial_events: bool = False,
    ) -> AsyncGenerator[WatchEvent, None]:
        """Changes after a resource version, until the server ends the stream. Who leaves the loop early closes the
        generator (``contextlib.aclosing``), so that the connection ends there and then.

        Raises:
            ApiError: the watch could not be opened, or an ERROR event came (``Gone`` when the version is too old).
            ConnectionFailed: the connection broke, or was silent for 70 s although bookmarks were asked for.
        """
        query: dict[str, str | int | bool | None] = {
            "watch": True,
            "resourceVersion": resource_version,
            "labelSelector": label_selector,
            "fieldSelector": field_selector,
            "timeoutSeconds": timeout_seconds,
            "allowWatchBookmarks": allow_bookmarks or None,
        }
        if send_initial_events:
            query |= {"sendInitialEvents": True, "resourceVersionMatch": "NotOlderThan"}
        silence = INACTIVITY_SECONDS if allow_bookmarks else None
        total = timeout_seconds + _WATCH_SLACK if timeout_seconds else None
        async with aclosing(self._stream(resource.path(namespace), query, silence=silence, total=total)) as lines:
            async for line in lines:
                event = _decode(line)
                if event.get("type") == "ERROR":
                    status = event.get("object") or {}
                    raise api_error(int(status.get("code") or 500), status)
                yield WatchEvent(str(event.get("type")), event.get("object") or {})

    def stream_lines(self, path: str, *, query: Query | None = None) -> AsyncGenerator[bytes, None]:
        """The lines of an answer as they come, such as a pod's log; without limits on length or silence."""
        return self._stream(path, query, silence=None, total=None)

    async def discover(self, group: str, kind: str, *versions: str) -> Resource | None:
        """The resource of a kind in the first of these versions that the server serves, or None.

        Raises:
            ApiError: discovery itself failed (anything but 404).
        """
        for version in versions:
            path = f"/apis/{group}/{version}" if group else f"/api/{version}"
            try:
                listing = await self.request("GET", path)
            except NotFound:
                continue
            for entry in listing.get("resources", []):
                if entry.get("kind") == kind and "/" not in entry.get("name", ""):
                    return Resource(group, version, entry["name"], kind, bool(entry.get("namespaced")))
        return None

    # ------------------------------------------------------------------ requests

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Query | None = None,
        body: Body | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Obj:
        """One request with a JSON answer, which must be an object."""
        raw = await self._bytes(method, path, query, body, headers)
        return _decode(raw) if raw else {}

    async def text(self, path: str, *, query: Query | None = None) -> str:
        """GET with an answer that is text."""
        return (await self._bytes("GET", path, query, None, {"Accept": "*/*"})).decode("utf-8", "replace")

    async def _bytes(
        self,
        method: str,
        path: str,
        query: Query | None,
        body: Body | None,
        headers: Mapping[str, str] | None,
    ) -> bytes:
        data = orjson.dumps(body) if body is not None else None
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

    async def _stream(
        self, path: str, query: Query | None, *, silence: float | None, total: float | None
    ) -> AsyncGenerator[bytes, None]:
        splitter = LineSplitter()
        accept = {"Accept": "application/json, */*"}
        deadline = None if total is None else asyncio.get_running_loop().time() + total
        async with self._open("GET", path, query, None, accept, streaming=True) as response:
            self._warn(response)
            while chunk := await self._chunk(response, silence, deadline):
                for line in splitter.feed(chunk):
                    yield line
        if rest := splitter.rest():
            yield rest

    async def _chunk(
        self, response: aiohttp.ClientResponse, silence: float | None, deadline: float | None
    ) -> bytes:
        """The next bytes, empty at the end. The limits hold only here, never while the consumer works: a generator
        that is suspended inside a timeout would have its consumer cancelled instead of itself."""
        now = asyncio.get_running_loop().time()
        limits = [limit for limit in (silence, deadline and max(deadline - now, 0.0)) if limit is not None]
        try:
            async with asyncio.timeout(min(limits, default=None)):
                return bytes(await response.content.readany())
        except TimeoutError as error:
            raise StreamSilent(f"no data from {response.url.host} in time; the peer may be gone") from error

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
                self._base + path,
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
            raise ConnectionFailed(f"{method} {self._base}{path}: {error or type(error).__name__}") from error
        finally:
            if self._observer is not None:
                self._observer.finished(method, code, self._base)

    def _session(self, *, streaming: bool) -> aiohttp.ClientSession:
        import aiohttp

        if self._closed:
            raise ConnectionFailed(f"the client of {self._base} is closed")
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

    def _write(self, dry_run: bool, field_manager: str | None = None) -> dict[str, str | int | bool | None]:
        return {"fieldManager": field_manager or self.field_manager, "dryRun": "All" if dry_run else None}

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


def _typed(resource: Resource, obj: Obj) -> Obj:
    return {"apiVersion": resource.api_version, "kind": resource.kind, **obj}


def _decode(raw: bytes) -> dict[str, Any]:
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise ConnectionFailed(f"the server's answer is not JSON: {raw[:120]!r}") from error
    if not isinstance(value, dict):
        raise ConnectionFailed(f"the server's answer is not an object: {raw[:120]!r}")
    return value


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
