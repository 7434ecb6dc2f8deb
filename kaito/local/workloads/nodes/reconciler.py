"""Nodes at work: heartbeats in, conditions, taints, evictions and clean-up out.

Silence is counted on this process's own clock from the last change it saw of a node's lease or heartbeat, so a
restart of this controller gives every node a fresh grace, and clocks of machines are never compared. Pods of a
node that no longer exists are removed after a short quarantine and a look at the server.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable

from manager.builder import ControllerBuilder
from manager.client import Client, PatchType
from manager.errors import Conflict, NotFound
from manager.events import EventRecorder
from manager.informer import Added, Deleted, Event, Updated
from manager.manager import Manager
from manager.resources import LEASES, NODES, PODS
from manager.types import Obj, Request, Result

from .. import pods as p
from ..conditions import condition, make
from ..scheduler.taints import ready_state
from ..times import Clock
from ..world import World
from .decide import Timing, evictions, lost_conditions, wanted_taints

log = logging.getLogger("kaito.local.workloads.nodes")

_LEASES = "kube-node-lease"


class NodeReconciler:
    """Watches over nodes and the pods on them."""

    def __init__(
        self, manager: Manager, world: World, clock: Clock, events: EventRecorder, timing: Timing
    ) -> None:
        self._client: Client = manager.live
        self._world = world
        self._clock = clock
        self._events = events
        self._timing = timing
        self._leases = manager.cache.informer(LEASES, namespace=_LEASES).store
        self._heartbeats: dict[str, tuple[object, float]] = {}
        self._gone_since: dict[str, float] = {}

    async def reconcile(self, request: Request) -> Result:
        """Look after one node, or after what a vanished one has left."""
        node = self._world.nodes.get(request.name)
        if node is None:
            self._heartbeats.pop(request.name, None)
            return await self._clean_up(request.name)
        self._gone_since.pop(request.name, None)
        silent, allowed = self._silence(node), self._timing.allowed(node)
        if silent >= allowed:
            node = await self._mark_lost(node)
        taints = wanted_taints(node, self._clock())
        if taints is not None:
            node = await self._taint(node, taints)
        pods = self._world.pods_on(request.name)
        if ready_state(node) == "Unknown":
            await self._mark_pods(pods)
        plan = evictions(node, pods, self._clock())
        for pod in plan.delete:
            await self._evict(pod)
        waits = [plan.look_again, allowed - silent if silent < allowed else None]
        return Result(requeue_after=min((w for w in waits if w is not None), default=None))

    def renewed(self, lease: Obj) -> Iterable[Request]:
        """Note the sign of life; only of a node that was thought lost, or is not known yet, does more follow."""
        node = self._world.nodes.get(p.name_of(lease))
        if node is not None and ready_state(node) != "Unknown":
            self._silence(node)
            return []
        return [Request("", p.name_of(lease))]

    def _silence(self, node: Obj) -> float:
        name, now = p.name_of(node), asyncio.get_running_loop().time()
        lease = self._leases.get(name, _LEASES)
        ready = condition(p.status_of(node).get("conditions"), "Ready")
        # Our own mark of a lost node keeps the condition's heartbeat time, so it is no sign of life.
        heartbeat = (
            p.uid_of(node),
            p.spec_of(lease).get("renewTime") if lease else None,
            ready.get("lastHeartbeatTime") if ready else None,
        )
        seen = self._heartbeats.get(name)
        if seen is None or seen[0] != heartbeat:
            self._heartbeats[name] = (heartbeat, now)
            return 0.0
        return now - seen[1]

    async def _mark_lost(self, node: Obj) -> Obj:
        changed = lost_conditions(node, self._clock())
        if not changed:
            return node
        log.warning("node stopped reporting node=%s", p.name_of(node))
        self._events.event(node, "Normal", "NodeNotReady", f"Node {p.name_of(node)} status is now: NodeNotReady")
        return await self._client.patch(
            NODES,
            p.name_of(node),
            {"status": {"conditions": changed}},
            type=PatchType.STRATEGIC,
            subresource="status",
        )

    async def _taint(self, node: Obj, taints: list[Obj]) -> Obj:
        version = p.meta_of(node).get("resourceVersion")
        patch: Obj = {"metadata": {"resourceVersion": version}, "spec": {"taints": taints or None}}
        return await self._client.patch(NODES, p.name_of(node), patch)

    async def _mark_pods(self, pods: Iterable[Obj]) -> None:
        """Pods of a silent node stop receiving traffic: nobody can vouch for them."""
        for pod in pods:
            if not p.is_ready(pod):
                continue
            made = make("Ready", "False", "", "", self._clock())
            try:
                await self._client.patch(
                    PODS,
                    p.name_of(pod),
                    {"status": {"conditions": [made]}},
                    namespace=p.namespace_of(pod),
                    type=PatchType.STRATEGIC,
                    subresource="status",
                )
            except NotFound:
                continue
            self._events.event(pod, "Warning", "NodeNotReady", "Node is not ready")

    async def _evict(self, pod: Obj) -> None:
        note = f"Marking for deletion Pod {p.namespace_of(pod)}/{p.name_of(pod)}"
        self._events.event(pod, "Normal", "TaintManagerEviction", note)
        try:
            await self._client.delete(PODS, p.name_of(pod), p.namespace_of(pod), uid=p.uid_of(pod))
        except (NotFound, Conflict):
            return

    async def _clean_up(self, name: str) -> Result:
        pods = self._world.pods_on(name) if name else []
        if not pods:
            self._gone_since.pop(name, None)
            return Result()
        now = asyncio.get_running_loop().time()
        left = self._gone_since.setdefault(name, now) + self._timing.quarantine - now
        if left > 0:
            return Result(requeue_after=left)
        try:
            await self._client.get(NODES, name)
            return Result()  # the cache is behind; the node's own event brings us back
        except NotFound:
            log.info("removing the pods of a node that is gone node=%s pods=%d", name, len(pods))
        for pod in pods:
            try:
                await self._client.delete(
                    PODS, p.name_of(pod), p.namespace_of(pod), uid=p.uid_of(pod), grace_seconds=0
                )
            except (NotFound, Conflict):
                continue
        return Result()


def _node_of_pod(pod: Obj) -> Iterable[Request]:
    return [Request("", p.node_of(pod))] if p.node_of(pod) else []


def _lands_or_leaves(event: Event) -> bool:
    if isinstance(event, Updated):
        return p.node_of(event.old) != p.node_of(event.new)
    return isinstance(event, Added | Deleted)


def add(manager: Manager, world: World, clock: Clock, timing: Timing) -> None:
    """Register the controller."""
    reconciler = NodeReconciler(manager, world, clock, manager.events("node-controller"), timing)
    builder = ControllerBuilder(manager, "node").for_(NODES)
    builder.watches(PODS, _node_of_pod, _lands_or_leaves)
    builder.watches(LEASES, reconciler.renewed).options(max_concurrent=2).build(reconciler)
