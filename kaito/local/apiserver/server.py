"""The API server as one object: files, database, tasks, HTTPS listener.

In: a data folder, an address, optionally a token file. Out: a server that clients can talk to until it is
stopped, and the credentials to do so. The folder belongs to one server at a time (an advisory lock that the
kernel releases with the process, so that no crash leaves a stale one). Stopping ends watches at once and
waits for requests under way for at most a second.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import errno
import fcntl
import logging
import os
import ssl
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

import yaml
from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http_parser import RawRequestMessage
from aiohttp.streams import StreamReader
from aiohttp.web_protocol import RequestHandler

from kaito.local.apiserver.addresses import ServiceAddresses
from kaito.local.apiserver.admission import Admission
from kaito.local.apiserver.api import Api
from kaito.local.apiserver.auth import Authenticator, ServiceAccountTokens, first_token, load_tokens
from kaito.local.apiserver.bootstrap import bootstrap
from kaito.local.apiserver.crds import CrdKeeper
from kaito.local.apiserver.errors import ApiServerError
from kaito.local.apiserver.handlers import BOOKMARK_SECONDS, Handlers
from kaito.local.apiserver.hooks.calling import Caller
from kaito.local.apiserver.hooks.converting import Converter
from kaito.local.apiserver.hooks.gate import Gate
from kaito.local.apiserver.kubelet import KubeletProxy
from kaito.local.apiserver.registry import Registry, ResourceType
from kaito.local.apiserver.storage import Storage, WriteFailed
from kaito.local.apiserver.subresources import Subresources
from kaito.local.apiserver.writes import Writer
from kaito.local.pki import Authority, PkiError, write_private
from manager.config import RestConfig

__all__ = ["SERVICE_NETWORK", "ApiServer", "StartError"]

_log = logging.getLogger("kaito.local.apiserver.server")
SERVICE_NETWORK = "127.96.0.0/16"
_MAX_BODY = 3 * 1024 * 1024
_CHECKPOINT_SECONDS = 5.0
_EVENT_TTL = dt.timedelta(hours=1)
_SWEEP_SECONDS = 60.0
_RESTORE_SECONDS = 10.0
_STOP_SECONDS = 1.0


class StartError(ApiServerError):
    """The server cannot start; the message is one line that ends in what to do next."""


def _utc_now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


class ApiServer:
    """An embedded Kubernetes API server. ``async with`` starts and stops it."""

    def __init__(
        self,
        data_dir: Path,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        token_file: Path | None = None,
        kubelet_token_file: Path | None = None,
        service_network: str = SERVICE_NETWORK,
        bookmark_seconds: float = BOOKMARK_SECONDS,
        clock: Callable[[], dt.datetime] = _utc_now,
    ) -> None:
        """Nothing is touched before the start.

        Args:
            data_dir: everything the server writes; made when absent.
            port: 0 takes a free one, the same as last time where that is still free.
            token_file: ``token,user,uid,"groups"`` lines; default ``tokens.csv`` in the data folder.
            kubelet_token_file: holds the bearer token that node agents expect; default ``kubelet-token``.
            service_network: IPv4 range of cluster addresses.
        """
        self.data_dir = Path(data_dir)
        self.host = host
        self.port = port
        self._token_file = token_file or self.data_dir / "tokens.csv"
        self._kubelet_token_file = kubelet_token_file or self.data_dir / "kubelet-token"
        self._service_network = service_network
        self._bookmark_seconds = bookmark_seconds
        self._clock = clock
        self._stack = contextlib.AsyncExitStack()
        self._ca = b""

    @property
    def url(self) -> str:
        """The base URL."""
        return f"https://{self.host}:{self.port}"

    @property
    def ca_pem(self) -> bytes:
        """The authority that signed the server's certificate."""
        return self._ca

    @property
    def token(self) -> str:
        """The administrator's bearer token."""
        return first_token(self._token_file)

    def rest_config(self) -> RestConfig:
        """How to reach the server as its administrator."""
        return RestConfig(server=self.url, ca_data=self._ca, token=self.token)

    def kubeconfig(self, path: Path | None = None, *, context: str = "kaito-local") -> Path:
        """Write a kubeconfig with everything in it and return its path (default: in the data folder)."""
        target = path or self.data_dir / "kubeconfig"
        write_private(target, kubeconfig_text(self.url, self._ca, self.token, context).encode())
        return target

    # ------------------------------------------------------------------ start and stop

    async def __aenter__(self) -> Self:
        """Start.

        Raises:
            StartError: the folder is in use, the port is taken, or a file cannot be used.
        """
        try:
            await self._start()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def _start(self) -> None:
        self._prepare_folder()
        self._lock()
        try:
            authority = Authority(self.data_dir / "pki")
            accounts = ServiceAccountTokens(self.data_dir / "pki" / "sa.key", self._clock)
            tokens = load_tokens(self._token_file)
        except (PkiError, OSError) as error:
            raise StartError(str(error)) from error
        self._ca = authority.ca_pem
        if not self._kubelet_token_file.exists():
            write_private(self._kubelet_token_file, os.urandom(24).hex().encode() + b"\n")

        storage = Storage(self.data_dir / "state.db")
        self._stack.callback(storage.close)
        registry = Registry()
        services = _required(registry, "", "services")
        addresses = ServiceAddresses(
            self._service_network, lambda: (r.obj for r in storage.all(services.storage_key))
        )
        keeper = CrdKeeper(storage, registry, self._clock)
        writer = Writer(storage, Admission(storage, registry, addresses), keeper, clock=self._clock)
        caller = Caller(storage)
        self._stack.push_async_callback(caller.close)
        converter = Converter(caller)
        gate = Gate(storage, registry, caller, converter)
        handlers = Handlers(
            storage, writer, keeper, self._clock, gate, converter, bookmark_seconds=self._bookmark_seconds
        )

        def account_uid(namespace: str, name: str) -> str | None:
            record = storage.get("serviceaccounts", namespace, name)
            return str(record.obj["metadata"]["uid"]) if record else None

        authenticator = Authenticator(tokens, accounts, account_uid)
        kubelet = KubeletProxy(
            storage,
            _required(registry, "", "pods"),
            _required(registry, "", "nodes"),
            token_file=self._kubelet_token_file,
            certificate=authority.client(
                "apiserver-kubelet-client", "kube-apiserver-kubelet-client", ["system:masters"]
            ),
        )
        self._stack.push_async_callback(kubelet.close)
        subresources = Subresources(
            handlers, kubelet, accounts, self._clock, _required(registry, "policy", "poddisruptionbudgets")
        )
        api = Api(registry, handlers, subresources, authenticator, self._clock)
        keeper.changed = api.types_changed

        group = await self._stack.enter_async_context(_Tasks())
        group.start(keeper.run(), "crd-keeper")
        group.start(_checkpoints(storage), "checkpoints")
        group.start(_expire_events(storage, self._clock), "event-expiry")

        await self._listen(api, authority, addresses.first, handlers)
        api.address = f"{self.host}:{self.port}"

        def restore() -> None:
            bootstrap(storage, host=self.host, port=self.port, service_address=addresses.first, clock=self._clock)

        restore()
        group.start(_restore(restore), "bootstrap")
        _log.info("serving url=%s revision=%d", self.url, storage.revision)

    def _prepare_folder(self) -> None:
        try:
            self.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise StartError(
                f"cannot make the data folder {self.data_dir}: {error.strerror}; choose another with --data-dir"
            ) from error

    def _lock(self) -> None:
        path = self.data_dir / "lock"
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise StartError(
                f"cannot write to {self.data_dir}: {error.strerror}; choose another --data-dir"
            ) from error
        self._stack.callback(os.close, descriptor)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
            raise StartError(
                f"the data folder {self.data_dir} is in use by process {holder}; "
                "stop it, or choose another --data-dir"
            ) from error
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)

    async def _listen(self, api: Api, authority: Authority, service_address: str, handlers: Handlers) -> None:
        names = ["localhost", "127.0.0.1", self.host, service_address, "kubernetes", "kubernetes.default"]
        names += ["kubernetes.default.svc", "kubernetes.default.svc.cluster.local"]
        pair = authority.server("apiserver", names)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pair.certificate, pair.key)
        context.load_verify_locations(authority.certificate)
        context.verify_mode = ssl.CERT_OPTIONAL
        server = web.Server(
            api.handle,
            request_factory=_request,
            handler_cancellation=True,  # a client that hangs up ends its watch
            access_log=None,
            max_line_size=64 * 1024,
            max_field_size=64 * 1024,
        )
        runner = web.ServerRunner(server, shutdown_timeout=_STOP_SECONDS)
        await runner.setup()
        self._stack.push_async_callback(runner.cleanup)
        self._stack.callback(handlers.stop)  # before the runner waits for the watches
        memory = self.data_dir / "port"
        remembered = _read_port(memory) if self.port == 0 else 0
        for port in dict.fromkeys((self.port or remembered, self.port)):
            site = web.TCPSite(runner, self.host, port, ssl_context=context, backlog=512)
            try:
                await site.start()
                break
            except OSError as error:
                if error.errno == errno.EADDRINUSE and port != self.port:
                    continue  # the remembered port; any other will do
                raise StartError(_cannot_listen(self.host, port, error)) from error
        listener = runner.addresses[0]
        self.port = int(listener[1])
        memory.write_text(f"{self.port}\n")


def _read_port(path: Path) -> int:
    try:
        port = int(path.read_text())
    except (OSError, ValueError):
        return 0
    return port if 0 < port < 65536 else 0


def _cannot_listen(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {port} on {host} is in use; stop the program that has it, or choose another with --port"
    if error.errno == errno.EACCES:
        return f"not allowed to listen on port {port}; choose one above 1023 with --port"
    return f"cannot listen on {host}:{port}: {error.strerror}; choose another with --host and --port"


def _required(registry: Registry, group: str, plural: str) -> ResourceType:
    found = registry.lookup(group, "v1", plural)
    assert found is not None  # noqa: S101 - built in
    return found


def _request(
    message: RawRequestMessage,
    payload: StreamReader,
    protocol: RequestHandler,
    writer: AbstractStreamWriter,
    task: asyncio.Task[None],
) -> web.BaseRequest:
    loop = asyncio.get_running_loop()
    return web.BaseRequest(message, payload, protocol, writer, task, loop, client_max_size=_MAX_BODY)


def kubeconfig_text(server: str, ca: bytes, token: str, context: str) -> str:
    """A kubeconfig with one cluster, user and context of the same name."""
    import base64

    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": context,
        "clusters": [
            {
                "name": context,
                "cluster": {"server": server, "certificate-authority-data": base64.b64encode(ca).decode()},
            }
        ],
        "users": [{"name": context, "user": {"token": token}}],
        "contexts": [{"name": context, "context": {"cluster": context, "user": context}}],
    }
    return yaml.safe_dump(document, sort_keys=False)


# ---------------------------------------------------------------------- background work


class _Tasks:
    """A task group that is cancelled, not waited for, on the way out."""

    def __init__(self) -> None:
        self._tasks: list[asyncio.Task[None]] = []

    def start(self, work: object, name: str) -> None:
        self._tasks.append(asyncio.create_task(work, name=name))  # type: ignore[arg-type]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        for result in await asyncio.gather(*self._tasks, return_exceptions=True):
            if isinstance(result, Exception):
                _log.error("background task failed error=%r", result)


async def _checkpoints(storage: Storage) -> None:
    revision = -1
    while True:
        await asyncio.sleep(_CHECKPOINT_SECONDS)
        if storage.revision != revision:
            revision = storage.revision
            await asyncio.to_thread(storage.checkpoint)


async def _restore(restore: Callable[[], None]) -> None:
    """Bring back what somebody deleted (`kubectl delete all --all` takes the API's Service along)."""
    while True:
        await asyncio.sleep(_RESTORE_SECONDS)
        try:
            restore()
        except WriteFailed as error:
            _log.error("cannot restore the first objects error=%s", error)


async def _expire_events(storage: Storage, clock: Callable[[], dt.datetime]) -> None:
    """Events live for an hour after they were last written, as on a real server."""
    while True:
        await asyncio.sleep(_SWEEP_SECONDS)
        oldest = (clock() - _EVENT_TTL).timestamp()
        for record in storage.all("events"):
            if _last_seen(record.obj) < oldest:
                try:
                    storage.delete("events", record.namespace, record.name, expected=record.revision)
                except WriteFailed as error:
                    _log.error("cannot expire events error=%s", error)
                    break


def _last_seen(event: dict[str, object]) -> float:
    meta = event["metadata"]
    series = event.get("series")
    candidates = [event.get("lastTimestamp"), event.get("eventTime")]
    if isinstance(series, dict):
        candidates.insert(0, series.get("lastObservedTime"))
    if isinstance(meta, dict):
        candidates.append(meta.get("creationTimestamp"))
    for text in candidates:
        if isinstance(text, str) and text:
            try:
                return dt.datetime.fromisoformat(text).timestamp()
            except ValueError:
                continue
    return 0.0
