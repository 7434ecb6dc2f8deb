"""DaemonSet: observe its pods and all nodes, decide, and carry it out."""

from __future__ import annotations

from collections.abc import Iterable

from manager.builder import ControllerBuilder
from manager.errors import ApiError
from manager.manager import Manager
from manager.ownwrites import OwnWrites
from manager.resources import DAEMONSETS, NODES, PODS
from manager.selectors import selector_from
from manager.types import Obj, Request, Result

from .. import pods as p
from .. import revisions
from ..acting import Children, Owners, is_namespace_ending
from ..ownership import sort_out
from ..templates import REVISION_LABEL
from ..times import Clock
from ..world import World, request_for
from .decide import decide

_HASH = "controller.kubernetes.io/hash"


class DaemonSetReconciler:
    """Keeps one pod of each DaemonSet on every node that will have it."""

    def __init__(self, manager: Manager, world: World, clock: Clock) -> None:
        self._client = manager.live
        self._world = world
        self._clock = clock
        self._events = manager.events("daemonset-controller")
        self._owners = Owners(manager.live, DAEMONSETS, world.daemonsets)
        self._own = OwnWrites(lambda: world.pods.resource_version)
        self._children = Children(self._client, PODS, self._own, self._events)

    async def reconcile(self, request: Request) -> Result:
        """Create, remove and roll pods towards one per node."""
        group = str(request)
        daemonset = self._owners.get(request)
        if daemonset is None:
            self._own.forget(group)
            return Result()
        selector = selector_from(p.spec_of(daemonset).get("selector"))
        seen = self._own.view(group, self._world.candidates(self._world.pods, daemonset))
        pods = await self._children.claim(DAEMONSETS, daemonset, group, sort_out(daemonset, selector, seen))
        revision = await self._revision(daemonset, pods)
        nodes = sorted(self._world.nodes.list(), key=p.name_of)
        plan = decide(daemonset, pods, nodes, revision, self._clock())
        for pod in plan.failed:
            note = f"Found failed daemon pod {p.namespace_of(pod)}/{p.name_of(pod)} on node {p.node_of(pod)}"
            self._events.event(daemonset, "Warning", "FailedDaemonPod", f"{note}, will try to kill it")
        try:
            await self._children.create(daemonset, group, plan.create)
            await self._children.delete(daemonset, group, plan.delete)
        except ApiError as error:
            if not is_namespace_ending(error):
                raise
        finally:
            await self._owners.report(daemonset, plan.status)
        return Result(requeue_after=plan.look_again)

    async def _revision(self, daemonset: Obj, pods: list[Obj]) -> str:
        present = self._world.owned(self._world.revisions, p.uid_of(daemonset))
        hashes = {p.labels_of(pod).get(REVISION_LABEL) for pod in pods}
        in_use = {p.name_of(r) for r in present if p.labels_of(r).get(_HASH) in hashes}
        update = await revisions.sync(self._client, self._owners, daemonset, present, in_use)
        return p.labels_of(update).get(_HASH) or p.name_of(update)

    def everyone(self, _: Obj) -> Iterable[Request]:
        """Every DaemonSet: a node has come, gone or changed."""
        return [request_for(ds) for ds in self._world.daemonsets.list()]


def add(manager: Manager, world: World, clock: Clock) -> None:
    """Register the controller."""
    reconciler = DaemonSetReconciler(manager, world, clock)
    builder = ControllerBuilder(manager, "daemonset").for_(DAEMONSETS).owns(PODS)
    builder.watches(NODES, reconciler.everyone).build(reconciler)
