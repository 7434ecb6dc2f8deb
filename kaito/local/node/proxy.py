"""The service proxy: ClusterIPs of 127.96.0.0/16 that answer on this machine.

In: Services and EndpointSlices. Out: a listening socket per ClusterIP and TCP port for as long as a ready
endpoint exists (none: the kernel refuses, as it should), and relayed connections, round robin. `ports.py`
computes what is wanted, purely; this module makes it so and owns the sockets.

A port below 1024 needs a privilege that most users lack, and any port may be taken. Then the first free
port from 8000 + port on is opened at the same address, and the Service's annotation
`local.kaito.sh/address` says where, so that a command can print an URL that works.
"""

from __future__ import annotations

import asyncio
import errno
import itertools
import logging
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from kaito.local.node.host import Recorder
from kaito.local.node.ports import Frontend, frontends, slice_service
from kaito.local.node.relay import Address, relay
from manager import meta
from manager.cache import Cache
from manager.client import Client
from manager.errors import ManagerError, NotFound
from manager.informer import Event, Informer, Updated
from manager.resources import ENDPOINTSLICES, SERVICES
from manager.types import Obj, Resource

log = logging.getLogger("kaito.local.node.proxy")

ADDRESS_ANNOTATION = "local.kaito.sh/address"
_RETRY = 2.0
_BACKLOG = 128
_KUBERNETES = "default/kubernetes"
_MAPPED_BASE, _MAPPED_TRIES = 8000, 200

# (host, port) → listening socket; the seam at which tests refuse low ports
Bind = Callable[[str, int], socket.socket]


@dataclass(slots=True)
class _Listener:
    sock: socket.socket
    port: int
    backends: list[Address]
    turn: itertools.count[int] = field(default_factory=itertools.count)

    def next_backends(self) -> list[Address]:
        """All backends, the one whose turn it is first."""
        start = next(self.turn) % len(self.backends) if self.backends else 0
        return self.backends[start:] + self.backends[:start]


def listening_socket(host: str, port: int) -> socket.socket:
    """A TCP socket that listens. Raises `OSError`."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setblocking(False)
        sock.bind((host, port))
        sock.listen(_BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock


class ServiceProxy:
    """Keeps the sockets as the Services want them."""

    def __init__(self, client: Client, cache: Cache, recorder: Recorder, bind: Bind = listening_socket) -> None:
        self._client, self._cache, self._recorder, self._bind = client, cache, recorder, bind
        self._listeners: dict[Frontend, _Listener] = {}
        self._connections: set[asyncio.Task[None]] = set()
        self._dirty: set[str] = set()
        self._by_service: dict[str, set[Frontend]] = {}
        self._wake = asyncio.Event()

    def __repr__(self) -> str:
        return f"<ServiceProxy {len(self._listeners)} listeners, {len(self._connections)} connections>"

    async def run(self) -> None:
        """Follow Services and EndpointSlices until cancelled."""
        services = self._cache.informer(SERVICES)
        slices = self._cache.informer(await self._slices())
        slices.store.add_index("service", lambda obj: [slice_service(obj)])

        def service_changed(event: Event) -> None:
            obj = event.new if isinstance(event, Updated) else event.obj
            self._mark(meta.key(obj))

        def slice_changed(event: Event) -> None:
            objects = [event.old, event.new] if isinstance(event, Updated) else [event.obj]
            for obj in objects:
                self._mark(slice_service(obj))

        await services.wait_synced()
        await slices.wait_synced()
        services.add_handler(service_changed)
        slices.add_handler(slice_changed)
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                while self._dirty:
                    await self._sync(self._dirty.pop(), services, slices)
        finally:
            await self._close_all()

    def _mark(self, service: str) -> None:
        self._dirty.add(service)
        self._wake.set()

    async def _slices(self) -> Resource:
        while True:
            try:
                found = await self._client.discover("discovery.k8s.io", "EndpointSlice", "v1", "v1beta1")
                return found or ENDPOINTSLICES
            except ManagerError as err:
                log.info("discovery failed, trying again error=%s", err)
                await asyncio.sleep(_RETRY)

    async def _sync(self, name: str, services: Informer, slices: Informer) -> None:
        service = services.store.get_by_key(name)
        wanted: dict[Frontend, list[Address]] = {}
        if service is not None:
            if name == _KUBERNETES:
                wanted = frontends(service, [], default=self._api_server())
            else:
                wanted = frontends(service, slices.store.by_index("service", name))
        for frontend in self._by_service.get(name, set()) - wanted.keys():
            self._close(frontend)
        for frontend, backends in wanted.items():
            if not backends:
                self._close(frontend)
            elif frontend in self._listeners:
                self._listeners[frontend].backends = backends
            else:
                self._open(frontend, backends)
        self._by_service[name] = set(wanted)
        if service is None:
            self._by_service.pop(name, None)
        elif name != _KUBERNETES:
            await self._tell(service, wanted)

    def _api_server(self) -> Address | None:
        parts = urlsplit(self._client.config.server)
        return (parts.hostname, parts.port or 443) if parts.hostname else None

    # sockets

    def _open(self, frontend: Frontend, backends: list[Address]) -> None:
        tries = itertools.chain([frontend.port], range(_MAPPED_BASE + frontend.port, 65536))
        for port in itertools.islice(tries, _MAPPED_TRIES):
            try:
                self._listen(frontend, port, backends)
            except OSError as err:
                # Not allowed (a low port), or taken (a server on all addresses, another cluster on this machine).
                if frontend.service == _KUBERNETES:
                    return  # reached by its own address; a mapped one would only confuse
                if err.errno not in (errno.EACCES, errno.EPERM, errno.EADDRINUSE):
                    log.warning("service address not opened address=%s error=%s", frontend, err)
                    return
            else:
                return
        log.warning("no free port for a service address=%s", frontend)

    def _listen(self, frontend: Frontend, port: int, backends: list[Address]) -> None:
        sock = self._bind(frontend.ip, port)
        listener = _Listener(sock, port, backends)
        self._listeners[frontend] = listener
        # Neither asyncio's Server nor sock_accept: closed at the wrong moment, they keep a connection that nobody
        # serves (seen with 3.11). Here a connection is accepted and handed on in one step.
        asyncio.get_running_loop().add_reader(sock, self._accept, listener)

    def _accept(self, listener: _Listener) -> None:
        try:
            connection, _peer = listener.sock.accept()
        except BlockingIOError:
            return  # the client has gone again
        except OSError as err:
            # No descriptors left: some will be given back, and until then the socket must not spin the loop.
            log.warning("connection not accepted port=%s error=%s", listener.port, err)
            loop = asyncio.get_running_loop()
            loop.remove_reader(listener.sock)
            loop.call_later(_RETRY, self._resume, listener)
            return
        connection.setblocking(False)
        task = asyncio.create_task(_serve(connection, listener), name="relay")
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    def _resume(self, listener: _Listener) -> None:
        if listener.sock.fileno() >= 0:
            asyncio.get_running_loop().add_reader(listener.sock, self._accept, listener)

    def _close(self, frontend: Frontend) -> None:
        listener = self._listeners.pop(frontend, None)
        if listener is not None:
            asyncio.get_running_loop().remove_reader(listener.sock)
            listener.sock.close()  # connections that are served go on, as with kube-proxy

    async def _close_all(self) -> None:
        for frontend in list(self._listeners):
            self._close(frontend)
        for task in list(self._connections):
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    # what users are told

    async def _tell(self, service: Obj, wanted: dict[Frontend, list[Address]]) -> None:
        """Keep the annotation true: the mapped address while there is one, nothing otherwise."""
        mapped = [
            f"{f.ip}:{listener.port}"
            for f in sorted(wanted)
            if (listener := self._listeners.get(f)) is not None and listener.port != f.port
        ]
        text = ",".join(mapped) or None
        if not wanted or ((service["metadata"].get("annotations") or {}).get(ADDRESS_ANNOTATION) == text):
            return
        if text is None and any(f not in self._listeners for f in wanted):
            return  # no endpoints at the moment: the address will be the same again
        patch = {"metadata": {"annotations": {ADDRESS_ANNOTATION: text}}}
        try:
            await self._client.patch(SERVICES, meta.name(service), patch, namespace=meta.namespace(service))
        except NotFound:
            return
        except ManagerError as err:
            log.info("service annotation not written service=%s error=%s", meta.key(service), err)
            return
        if text:
            ports = ", ".join(str(f.port) for f in sorted(wanted))
            log.warning("service is reachable at a mapped address service=%s address=%s", meta.key(service), text)
            note = f"port {ports} of the cluster IP cannot be opened by this user: the service answers at {text}"
            self._recorder.event(service, "Normal", "AddressMapped", note, action="Listen")


async def _serve(connection: socket.socket, listener: _Listener) -> None:
    try:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        reader, writer = await asyncio.open_connection(sock=connection)
    except OSError:
        connection.close()
        return
    try:
        await relay(reader, writer, listener.next_backends())
    finally:
        writer.close()
