"""The node agent: everything put together, started and stopped in order.

In: options and a way to reach an API server. Out: Nodes that are Ready, pods that run, a local cloud and a
kubelet API that answer. It owns the state folder (one agent at a time: `lock`) and the set of workers, one
per pod that is bound to one of its nodes.

Start: lock, servers, own node, instances, then the pods that the API server names; runs found on disk are
taken over, those whose pod is gone are ended. Stop: no new work, every container within its grace (or left
to the next agent with `keep`), then the servers. An agent that is killed leaves its containers to their
supervisors: the next agent adopts them, and if none comes within `orphan_seconds` they end by themselves.
Adopting was chosen over killing at the start because a model server takes long to load; the bound keeps a
torn-down cluster from leaving processes behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import shutil
import ssl
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from aiohttp import web

from kaito.local.node.addresses import Addresses
from kaito.local.node.certs import server_context
from kaito.local.node.cloud import Cloud
from kaito.local.node.cloud_api import cloud_app
from kaito.local.node.host import Host
from kaito.local.node.images import ImageTable, ImageTableError
from kaito.local.node.kubelet_api import kubelet_app
from kaito.local.node.nodes import NodeKeeper, NodeSpec, host_capacity, instance_node
from kaito.local.node.pods import PodWorker
from kaito.local.node.prober import Prober
from kaito.local.node.proxy import ServiceProxy
from kaito.local.node.runtime import Attempt
from manager.cache import Cache
from manager.client import Client
from manager.config import RestConfig
from manager.errors import ManagerError, NotFound
from manager.events import EventRecorder
from manager.informer import Added, Deleted, Event, Informer, Updated
from manager.resources import CONFIGMAPS, PODS, SECRETS
from manager.types import Obj

log = logging.getLogger("kaito.local.node.agent")

BASE_NODE = "kaito-local"
_LEAVE_GRACE = 2.0
_ORPHAN_GRACE = 5.0
_RETRY = 1.0


class AgentError(Exception):
    """The agent cannot start; one sentence for the terminal, and what to do."""

    def __init__(self, message: str, next_step: str = "") -> None:
        super().__init__(message)
        self.message, self.next_step = message, next_step


@dataclass(frozen=True, slots=True)
class Options:
    """How to run the agent. Port 0 means a free one. Times in seconds."""

    state: Path
    token: str
    kubelet_port: int = 10250
    instances_host: str = "127.0.0.1"
    instances_port: int = 0
    node_delay: float = 2.0
    weights: Mapping[str, Path] = field(default_factory=dict)
    images: Path | None = None
    client_ca: Path | None = None
    anonymous: bool = False
    shutdown_grace: float = 15.0
    orphan_seconds: float = 30.0
    keep: bool = False
    node_name: str = BASE_NODE


class Agent:
    """Made once per process; `run` it."""

    def __init__(self, config: RestConfig, options: Options) -> None:
        self.options = options
        self.kubelet_port = options.kubelet_port
        self.instances_port = options.instances_port
        self.ready = asyncio.Event()
        self._client = Client(config, user_agent="kaito-node", field_manager="kaito-node")
        self._cache = Cache(self._client)
        self._recorder = EventRecorder(self._client, "kubelet")
        self._workers: dict[str, PodWorker] = {}
        self._keepers: dict[str, tuple[NodeKeeper, asyncio.Task[None]]] = {}
        self._nodes: set[str] = set()
        self._left: set[str] = set()  # nodes that were ours: pods still bound to them are ended
        self._host: Host | None = None
        self._pods: Informer | None = None
        self._group: asyncio.TaskGroup | None = None
        self._capacity: dict[str, str] = {}
        self._stopping = False

    def __repr__(self) -> str:
        return f"<Agent nodes={sorted(self._keepers)} pods={len(self._workers)}>"

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop` is set.

        Raises:
            AgentError: the state folder is in use or broken, a port is taken, a table cannot be read.
        """
        async with contextlib.AsyncExitStack() as stack:
            self._make_folders()
            stack.enter_context(_lock(self.options.state))
            host, cloud = self._compose()
            stack.callback(host.addresses.close)
            stack.push_async_callback(self._client.close)
            stack.push_async_callback(host.prober.close)
            await self._serve(stack, cloud)
            self._host = host
            work = asyncio.create_task(self._work(host, cloud), name="agent")
            asked = asyncio.create_task(stop.wait(), name="stop")
            try:
                await asyncio.wait({work, asked}, return_when=asyncio.FIRST_COMPLETED)
                if not work.done():
                    log.info("node agent stops pods=%s", len(self._workers))
                    await self._stop_pods()
            finally:
                for task in (work, asked):
                    task.cancel()
                await asyncio.wait({work, asked})
            if not work.cancelled():
                await work  # it ended by an error, which is raised here

    # start

    def _make_folders(self) -> None:
        try:
            for name in ("pods", "claims"):
                (self.options.state / name).mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as err:
            raise AgentError(f"the state folder {self.options.state} cannot be used: {err}") from err

    def _compose(self) -> tuple[Host, Cloud]:
        state = self.options.state
        try:
            images = ImageTable.load(self.options.images, self.options.weights)
            cloud = Cloud(state / "instances.json", self.options.node_delay, time.time)
        except (ImageTableError, ValueError) as err:
            raise AgentError(str(err)) from err
        self._capacity = host_capacity(state)
        host = Host(
            client=self._client,
            recorder=self._recorder,
            images=images,
            prober=Prober(),
            addresses=Addresses(state / "addresses.json"),
            pods=state / "pods",
            claims=state / "claims",
            read_object=self._read_object,
            allocatable=self._allocatable,
            known=self._known,
            clock=time.time,
            orphan_seconds=self.options.orphan_seconds,
        )
        return host, cloud

    async def _serve(self, stack: contextlib.AsyncExitStack, cloud: Cloud) -> None:
        options = self.options
        try:
            context = server_context(options.state, BASE_NODE, options.client_ca)
        except OSError as err:
            raise AgentError(f"--client-ca {options.client_ca} cannot be used: {err}") from err
        kubelet = kubelet_app(
            self.find_pod, lambda: self.workers, token=options.token, anonymous=options.anonymous
        )
        instances = cloud_app(cloud, options.token, self.ready.is_set)
        where = options.instances_host
        self.kubelet_port = await _listen(
            stack, kubelet, "127.0.0.1", options.kubelet_port, context, "--kubelet-port"
        )
        self.instances_port = await _listen(
            stack, instances, where, options.instances_port, None, "--instances-listen"
        )

    async def _work(self, host: Host, cloud: Cloud) -> None:
        async with asyncio.TaskGroup() as group:
            self._group = group
            group.create_task(self._recorder.run(), name="events")
            await self._main(group, host, cloud)

    async def _main(self, group: asyncio.TaskGroup, host: Host, cloud: Cloud) -> None:
        spec = NodeSpec(self.options.node_name, self._capacity, self.kubelet_port, permanent=True)
        await self._join(spec)
        self.ready.set()
        log.info(
            "node is ready node=%s kubelet=%s instances=%s", spec.name, self.kubelet_port, self.instances_port
        )
        self._pods = self._cache.informer(PODS)
        configs = {"ConfigMap": self._cache.informer(CONFIGMAPS), "Secret": self._cache.informer(SECRETS)}
        for kind, informer in configs.items():
            informer.add_handler(partial(self._config_event, kind))
        group.create_task(self._cache.run(), name="cache")
        group.create_task(cloud.run(self._instance_joins, self._instance_leaves), name="cloud")
        group.create_task(ServiceProxy(self._client, self._cache, self._recorder).run(), name="proxy")
        await self._pods.wait_synced()
        await self._sweep(host)
        self._pods.add_handler(self._pod_event)

    async def _sweep(self, host: Host) -> None:
        """End what is left on disk of pods that are gone."""
        assert self._pods is not None  # noqa: S101 - set by _main
        alive = {str(pod["metadata"]["uid"]) for pod in self._pods.store.list()}
        for folder in host.pods.iterdir():
            if folder.name in alive:
                continue
            for run in folder.glob("containers/*/runs/*"):
                attempt = Attempt(run, int(run.name), lambda: None)
                await attempt.adopt()
                await attempt.stop(_ORPHAN_GRACE)
            shutil.rmtree(folder, ignore_errors=True)
        host.addresses.keep_only(alive)

    # pods

    @property
    def workers(self) -> list[PodWorker]:
        """One per pod that has something on this machine."""
        return list(self._workers.values())

    def find_pod(self, namespace: str, name: str) -> PodWorker | None:
        """The worker of the pod with this name."""
        key = f"{namespace}/{name}"
        return next((w for w in self._workers.values() if w.key == key and not w.vanished), None)

    def _pod_event(self, event: Event) -> None:
        if isinstance(event, Deleted):
            if worker := self._workers.get(str(event.obj["metadata"]["uid"])):
                worker.vanish()
            return
        if isinstance(event, Updated) and event.old["metadata"]["uid"] != event.new["metadata"]["uid"]:
            self._pod_event(Deleted(event.old, stale=True))
        self._take(event.obj if isinstance(event, Added) else event.new)

    def _take(self, pod: Obj) -> None:
        """Run a pod that is bound to one of our nodes, or tell its worker what is new."""
        if pod["spec"].get("nodeName") not in self._nodes or self._stopping:
            return
        assert self._group is not None and self._host is not None  # noqa: S101, PT018 - run() set them
        uid = str(pod["metadata"]["uid"])
        worker = self._workers.get(uid)
        if worker is None:
            worker = PodWorker(self._host, pod)
            if pod["spec"].get("subdomain"):  # a name that others may wait for
                for other in self._workers.values():
                    other.retry()
            self._workers[uid] = worker
            task = self._group.create_task(worker.run(), name=f"pod {worker.key}")
            task.add_done_callback(lambda _task: self._workers.pop(uid, None))
        else:
            worker.update(pod)
        if pod["spec"]["nodeName"] in self._left:
            worker.evict(_LEAVE_GRACE)

    def _config_event(self, kind: str, event: Event) -> None:
        obj = event.new if isinstance(event, Updated) else event.obj
        meta = obj["metadata"]
        for worker in self._workers.values():
            if worker.key.partition("/")[0] == meta.get("namespace"):
                worker.config_changed(kind, meta["name"])

    async def _read_object(self, kind: str, namespace: str, name: str) -> Obj | None:
        """The server's own copy: the cache may not know yet what was created a moment before the pod."""
        resource = CONFIGMAPS if kind == "ConfigMap" else SECRETS
        try:
            return await self._client.get(resource, name, namespace)
        except NotFound:
            return None

    def _allocatable(self, node: str) -> Mapping[str, str]:
        keeper = self._keepers.get(node)
        return keeper[0].spec.capacity if keeper else self._capacity

    def _known(self, namespace: str, subdomain: str, hostname: str) -> str | None:
        """The address of the pod of this name, once it is bound to a node of ours; one that leaves has none."""
        for worker in self._workers.values():
            meta, spec = worker.pod["metadata"], worker.pod["spec"]
            name = (meta["namespace"], spec.get("subdomain"), spec.get("hostname"))
            leaves = worker.vanished or meta.get("deletionTimestamp")
            if name == (namespace, subdomain, hostname) and not leaves:
                return worker.address
        return None

    async def _stop_pods(self) -> None:
        self._stopping = True
        workers = self.workers
        if self.options.keep:
            await asyncio.gather(*(w.release() for w in workers))
        else:
            await asyncio.gather(*(w.stop_containers(self.options.shutdown_grace) for w in workers))

    # nodes

    async def _join(self, spec: NodeSpec) -> None:
        keeper = NodeKeeper(self._client, spec, time.time, lambda: len(self._keepers))
        told = False
        while True:
            try:
                await keeper.register()
                break
            except ManagerError as err:
                if not told:
                    log.warning("node not registered yet, trying again node=%s error=%s", spec.name, err)
                    told = True
                await asyncio.sleep(_RETRY)
        assert self._group is not None  # noqa: S101 - run() set it
        self._keepers[spec.name] = keeper, self._group.create_task(keeper.run(), name=f"node {spec.name}")
        self._play(spec.name)

    def _play(self, node: str) -> None:
        """From now on this node's pods are ours, those included that were bound to it before."""
        self._nodes.add(node)
        if node in self._keepers:
            self._left.discard(node)
        if self._pods is not None and self._pods.has_synced:
            for pod in self._pods.store.list():
                if pod["spec"].get("nodeName") == node:
                    self._take(pod)

    async def _instance_joins(self, instance: Obj) -> None:
        await self._join(instance_node(instance, self._capacity, self.kubelet_port))
        log.info("simulated node is ready node=%s type=%s", instance["nodeName"], instance["instanceType"])

    async def _instance_leaves(self, instance: Obj) -> None:
        """The machine is taken away: its Node, its containers and its pods go with it.

        The Node goes first, so that nothing is scheduled to it; a pod that was bound at that very moment is ended
        when it shows up (`_take`).
        """
        name = instance["nodeName"]
        assert self._pods is not None  # noqa: S101 - set by _main
        await self._pods.wait_synced()
        entry = self._keepers.pop(name, None)
        if entry:
            entry[1].cancel()
        await NodeKeeper(self._client, instance_node(instance, {}, 0), time.time).remove()
        self._left.add(name)
        self._play(name)  # an agent that has just started may not have met its pods
        while any(w.pod["spec"].get("nodeName") == name for w in self._workers.values()):
            await asyncio.sleep(0.05)
        log.info("simulated node is gone node=%s", name)


async def _listen(
    stack: contextlib.AsyncExitStack,
    app: web.Application,
    host: str,
    port: int,
    context: ssl.SSLContext | None,
    flag: str,
) -> int:
    """Serve `app`; returns the port."""
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=1.0)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    try:
        site = web.TCPSite(runner, host, port, ssl_context=context)
        await site.start()
    except OSError as err:
        reason = err.strerror or str(err)
        raise AgentError(f"cannot listen on {host}:{port}: {reason}", f"choose another port with {flag}") from err
    return int(runner.addresses[0][1])


@contextlib.contextmanager
def _lock(state: Path) -> Iterator[None]:
    fd = os.open(state / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as err:
            pid = os.read(fd, 32).decode(errors="replace").strip() or "?"
            raise AgentError(
                f"another node agent (pid {pid}) uses {state}", "stop it, or choose another --state-dir"
            ) from err
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(fd)
