"""The garbage collector at work: watches every kind, keeps the graph, carries out the decisions.

In: informers over all resources that discovery lists as deletable; those of CRDs come and go with them. Out:
deletions and changes of ownerReferences and finalizers. Before any of these the object is read afresh from the
server, and an owner that the graph does not know is asked for there too: nothing is ever deleted on the word of
a cache alone.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict

from manager.cache import Cache
from manager.client import Client
from manager.errors import Conflict, ManagerError, NotFound
from manager.events import EventRecorder
from manager.informer import Deleted, Event, Informer
from manager.manager import Manager
from manager.meta import group_of
from manager.predicates import subject
from manager.queue import PriorityQueue
from manager.resources import CRDS
from manager.types import Obj, Resource

from .. import pods as p
from ..conditions import is_true
from ..discovery import discover
from .acting import Editor
from .decide import Action, Delete, DeleteDependents, Finish, LetGo, Nothing, OwnerState, Release, decide
from .graph import Graph, Node, Owner

log = logging.getLogger("kaito.local.workloads.garbage")

_WORKERS = 8
_REDISCOVER = 60.0  # seconds; changes of CRDs are seen at once, aggregated APIs only thus
_INCOMPLETE = 1.0  # seconds until discovery that failed, or lacks an established CRD, is tried again
_LOOK_AGAIN = 30.0  # seconds until an owner that the graph cannot see is asked for again
_REMEMBER_ABSENT = 5000


class Collector:
    """One per process. Run :meth:`run` as a task."""

    def __init__(self, client: Client, cache: Cache, events: EventRecorder) -> None:
        self._client = client
        self._cache = cache
        self._events = events
        self._editor = Editor(client)
        self._queue: PriorityQueue[str] = PriorityQueue()
        self._graph = Graph()
        self._absent: OrderedDict[str, None] = OrderedDict()
        self._kinds: dict[tuple[str, str], Resource] = {}
        self._watched: dict[Resource, asyncio.Task[None] | None] = {}
        self._rediscover = asyncio.Event()
        self._crds = cache.informer(CRDS)

    def __repr__(self) -> str:
        return f"Collector({self._graph!r}, watched={len(self._watched)}, queue={self._queue!r})"

    async def run(self) -> None:
        """Collect garbage until cancelled."""
        self._crds.add_handler(lambda _: self._rediscover.set())
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._keep_discovering(tasks), name="garbage-discovery")
            for number in range(_WORKERS):
                tasks.create_task(self._work(), name=f"garbage-{number}")

    # ------------------------------------------------------------------ what to watch

    async def _keep_discovering(self, tasks: asyncio.TaskGroup) -> None:
        while True:
            self._rediscover.clear()
            complete = await self._discover(tasks)
            try:
                async with asyncio.timeout(_REDISCOVER if complete else _INCOMPLETE):
                    await self._rediscover.wait()
            except TimeoutError:
                continue  # time to look anyway

    async def _discover(self, tasks: asyncio.TaskGroup) -> bool:
        """Bring the watches in line with what is served; whether everything that should be served is."""
        try:
            catalogue = await discover(self._client)
        except ManagerError as error:
            log.warning("discovery failed error=%s", error)
            return False
        self._kinds = {(s.resource.group, s.resource.kind): s.resource for s in catalogue.served}
        wanted = set(catalogue.collectable())
        for resource in wanted - self._watched.keys():
            self._watch(resource, tasks)
        for resource in self._watched.keys() - wanted:
            # A group that did not answer is not gone.
            if resource.api_version not in catalogue.missing:
                self._unwatch(resource)
        return not catalogue.missing and all(_kind_of(crd) in self._kinds for crd in self._established())

    def _established(self) -> list[Obj]:
        return [
            crd
            for crd in self._crds.store.list()
            if is_true(p.status_of(crd).get("conditions"), "Established") and not p.is_terminating(crd)
        ]

    def _watch(self, resource: Resource, tasks: asyncio.TaskGroup) -> None:
        if any(_kind_of(crd) == (resource.group, resource.kind) for crd in self._crds.store.list()):
            # Its CRD may go, and the informer with it: the shared cache keeps informers for ever.
            informer = Informer(self._client, resource)
            self._watched[resource] = tasks.create_task(informer.run(), name=f"garbage-{resource.plural}")
        else:
            informer = self._cache.informer(resource)
            self._watched[resource] = None
        informer.add_handler(lambda event: self._saw(resource, event))
        tasks.create_task(self._when_synced(informer), name=f"garbage-sync-{resource.plural}")

    async def _when_synced(self, informer: Informer) -> None:
        await informer.wait_synced()
        # An owner of this kind may have gone before anybody watched it.
        for uid in self._graph.with_unseen_owners():
            self._queue.add(uid)

    def _unwatch(self, resource: Resource) -> None:
        task = self._watched.pop(resource)
        if task is not None:
            task.cancel()
        for uid in self._graph.drop_resource(resource):
            self._queue.add(uid)

    def _saw(self, resource: Resource, event: Event) -> None:
        if isinstance(event, Deleted):
            uid = p.uid_of(event.obj)
            self._remember_absent(uid)
            look = self._graph.drop(uid)
        else:
            look = self._graph.put(Node.parse(resource, subject(event)))
        for uid in look:
            self._queue.add(uid)

    def _remember_absent(self, uid: str) -> None:
        self._absent[uid] = None
        if len(self._absent) > _REMEMBER_ABSENT:
            self._absent.popitem(last=False)

    # ------------------------------------------------------------------ one object

    async def _work(self) -> None:
        while True:
            uid, _ = await self._queue.get()
            try:
                await self._look_at(uid)
            except ManagerError as error:
                log.debug("garbage collection will be tried again uid=%s error=%s", uid, error)
                self._queue.add(uid, rate_limited=True)
            else:
                self._queue.forget(uid)
            finally:
                self._queue.done(uid)

    async def _look_at(self, uid: str) -> None:
        node = self._graph.nodes.get(uid)
        if node is None or isinstance(await self._decide(node), Nothing):
            return
        live = await self._editor.read(node)
        if live is None:
            self._remember_absent(uid)
            for other in self._graph.drop(uid):
                self._queue.add(other)
            return
        node = Node.parse(node.resource, live)
        await self._act(node, live, await self._decide(node))

    async def _decide(self, node: Node) -> Action:
        owners = {owner.uid: await self._state(node, owner) for owner in node.owners}
        return decide(node, owners, self._graph.dependents(node.uid))

    async def _state(self, node: Node, owner: Owner) -> OwnerState:
        known = self._graph.nodes.get(owner.uid)
        if known is not None:
            if known.namespace and known.namespace != node.namespace:
                return OwnerState.UNKNOWN
            return OwnerState.WAITING if known.waits_for_dependents else OwnerState.SOLID
        if owner.uid in self._absent:
            return OwnerState.ABSENT
        resource = self._kinds.get((group_of(owner.api_version), owner.kind))
        if resource is None:
            self._queue.add(node.uid, after=_LOOK_AGAIN)
            return OwnerState.UNKNOWN
        if resource.namespaced and not node.namespace:
            self._complain(node, owner)
            return OwnerState.UNKNOWN
        return await self._ask(node, owner, resource)

    async def _ask(self, node: Node, owner: Owner, resource: Resource) -> OwnerState:
        try:
            live = await self._client.get(resource, owner.name, node.namespace if resource.namespaced else None)
        except NotFound:
            live = {}
        if p.uid_of(live) != owner.uid:
            self._remember_absent(owner.uid)
            return OwnerState.ABSENT
        # It exists, and nobody watches its kind yet: its end would go unnoticed.
        self._queue.add(node.uid, after=_LOOK_AGAIN)
        found = Node.parse(resource, live)
        return OwnerState.WAITING if found.waits_for_dependents else OwnerState.SOLID

    def _complain(self, node: Node, owner: Owner) -> None:
        regarding: Obj = {
            "apiVersion": node.resource.api_version,
            "kind": node.resource.kind,
            "metadata": {"name": node.name, "uid": node.uid},
        }
        note = (
            f"ownerRef [{owner.api_version}/{owner.kind}, name: {owner.name}, uid: {owner.uid}] "
            "of a cluster-scoped object names a namespaced owner"
        )
        self._events.event(regarding, "Warning", "OwnerRefInvalidNamespace", note)

    async def _act(self, node: Node, live: Obj, action: Action) -> None:
        match action:
            case Release(owners):
                await self._editor.drop_owners(node, live, owners)
            case Delete(propagation, unblock):
                for dependent in unblock:
                    await self._editor.unblock(dependent, node.uid)
                await self._delete(node, live, propagation)
            case Finish(finalizer):
                await self._editor.drop_finalizer(node, live, finalizer)
            case LetGo(dependents):
                for dependent in dependents:
                    await self._editor.orphan(dependent, node.uid)
                await self._editor.drop_finalizer(node, live, "orphan")
            case DeleteDependents(dependents):
                for dependent in dependents:
                    self._queue.add(dependent.uid)

    async def _delete(self, node: Node, live: Obj, propagation: str) -> None:
        log.info(
            "deleting what has lost its owners kind=%s namespace=%s name=%s propagation=%s",
            node.resource.kind,
            node.namespace,
            node.name,
            propagation,
        )
        try:
            await self._client.delete(
                node.resource,
                node.name,
                node.namespace or None,
                uid=node.uid,
                resource_version=str(p.meta_of(live).get("resourceVersion") or "") or None,
                propagation=propagation,
            )
        except NotFound:
            return
        except Conflict:
            # It changed since it was read: look again with fresh eyes.
            self._queue.add(node.uid, rate_limited=True)


def _kind_of(crd: Obj) -> tuple[str, str]:
    spec = p.spec_of(crd)
    return str(spec.get("group")), str((spec.get("names") or {}).get("kind"))


def add(manager: Manager) -> None:
    """Register the collector."""
    collector = Collector(manager.live, manager.cache, manager.events("garbage-collector"))
    manager.add(collector.run, name="garbage-collector")
