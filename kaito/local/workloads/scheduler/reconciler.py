"""The scheduler at work: binds waiting pods, one at a time, and tries again when there may be room.

In: pods without a node. Out: bindings, the PodScheduled condition, events. One worker decides, so no two pods
are promised the same room; what was bound a moment ago counts before the cache shows it. A pod that found no node
waits for an event that may help (a node that came or changed, a pod that left, a claim that was bound), and at
most a minute.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

from manager.builder import ControllerBuilder
from manager.client import Client, PatchType
from manager.errors import ApiError, Conflict, NotFound
from manager.events import EventRecorder
from manager.informer import Deleted, Event, Updated
from manager.manager import Manager
from manager.predicates import subject
from manager.resources import NODES, PERSISTENTVOLUMECLAIMS, PODS
from manager.types import Obj, Request, Result

from .. import pods as p
from ..conditions import condition, make
from ..times import Clock
from ..world import World, request_for
from . import taints
from .decide import Placement, Unschedulable, decide
from .nodes import Snapshots

log = logging.getLogger("kaito.local.workloads.scheduler")

NAME = "default-scheduler"
_FLUSH = 60.0  # seconds after which an unschedulable pod is tried again without a reason


class Scheduler:
    """Places pods."""

    def __init__(self, client: Client, world: World, events: EventRecorder, clock: Clock) -> None:
        self._client = client
        self._world = world
        self._clock = clock
        self._events = events
        self._assumed: dict[str, Obj] = {}
        self._snapshots = Snapshots()

    async def reconcile(self, request: Request) -> Result:
        """Bind the pod, or say why not."""
        pod = self._world.pods.get(request.name, request.namespace)
        if pod is None or not is_waiting(pod) or p.uid_of(pod) in self._assumed:
            return Result()
        namespaces = {p.name_of(ns): p.labels_of(ns) for ns in self._world.namespaces.list()}
        assumed = self._still_assumed()
        nodes = self._snapshots.take(
            self._world.nodes.list(), lambda name: [*self._world.pods_on(name), *assumed.get(name, ())]
        )
        found = decide(pod, nodes, namespaces, lambda name: self._world.claims.get(name, request.namespace))
        if isinstance(found, Placement):
            await self._bind(pod, found.node)
            return Result()
        await self._refuse(pod, found)
        return Result(requeue_after=_FLUSH)

    def _still_assumed(self) -> dict[str, list[Obj]]:
        """Own bindings that the cache does not show yet, by node."""
        for uid, pod in list(self._assumed.items()):
            cached = self._world.pods.get(p.name_of(pod), p.namespace_of(pod))
            if cached is None or p.uid_of(cached) != uid or p.node_of(cached):
                del self._assumed[uid]
        found: dict[str, list[Obj]] = {}
        for pod in self._assumed.values():
            found.setdefault(p.node_of(pod), []).append(pod)
        return found

    async def _bind(self, pod: Obj, node: str) -> None:
        name, namespace = p.name_of(pod), p.namespace_of(pod)
        binding: Obj = {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": name, "namespace": namespace, "uid": p.uid_of(pod)},
            "target": {"apiVersion": "v1", "kind": "Node", "name": node},
        }
        self._assumed[p.uid_of(pod)] = {**pod, "spec": {**p.spec_of(pod), "nodeName": node}}
        try:
            await self._client.request("POST", PODS.path(namespace, name, "binding"), body=binding)
        except BaseException as error:
            self._assumed.pop(p.uid_of(pod), None)
            if isinstance(error, NotFound | Conflict):
                return  # it has gone, or somebody else has bound it
            raise
        self._events.event(
            pod,
            "Normal",
            "Scheduled",
            f"Successfully assigned {namespace}/{name} to {node}",
            action="Binding",
        )

    async def _refuse(self, pod: Obj, why: Unschedulable) -> None:
        self._events.event(pod, "Warning", "FailedScheduling", why.message, action="Scheduling")
        old = condition(p.status_of(pod).get("conditions"), "PodScheduled")
        if old is not None and (old.get("status"), old.get("message")) == ("False", why.message):
            return
        made = make("PodScheduled", "False", "Unschedulable", why.message, self._clock())
        if old is not None and old.get("status") == "False":
            made["lastTransitionTime"] = old.get("lastTransitionTime")
        try:
            await self._client.patch(
                PODS,
                p.name_of(pod),
                {"metadata": {"uid": p.uid_of(pod)}, "status": {"conditions": [made]}},
                namespace=p.namespace_of(pod),
                type=PatchType.STRATEGIC,
                subresource="status",
            )
        except NotFound:
            return
        except ApiError as error:
            log.warning("the reason could not be written pod=%s error=%s", p.name_of(pod), error)

    def waiting(self, _: Obj) -> Iterable[Request]:
        """Every pod that waits: there may be room now."""
        return [request_for(pod) for pod in self._world.pods_on("") if is_waiting(pod)]

    def users(self, claim: Obj) -> Iterable[Request]:
        """The pods that wait and name this claim."""
        return [
            request_for(pod)
            for pod in self._world.pods_on("")
            if p.namespace_of(pod) == p.namespace_of(claim)
            and is_waiting(pod)
            and any(
                (v.get("persistentVolumeClaim") or {}).get("claimName") == p.name_of(claim)
                for v in p.spec_of(pod).get("volumes") or ()
            )
        ]


def is_waiting(pod: Obj) -> bool:
    """Whether the pod wants a node from this scheduler."""
    spec = p.spec_of(pod)
    return (
        not p.node_of(pod)
        and p.is_active(pod)
        and (spec.get("schedulerName") or NAME) == NAME
        and not spec.get("schedulingGates")
    )


def _waits(event: Event) -> bool:
    return not isinstance(event, Deleted) and is_waiting(subject(event))


def _node_may_help(event: Event) -> bool:
    """Not for heartbeats: only what a filter looks at can change an answer."""
    if isinstance(event, Updated):
        return _facts(event.old) != _facts(event.new)
    return not isinstance(event, Deleted)


def _facts(node: Obj) -> object:
    return (
        p.labels_of(node),
        taints.effective(node),
        p.spec_of(node).get("unschedulable"),
        p.status_of(node).get("allocatable"),
    )


def _frees_room(event: Event) -> bool:
    """A pod that leaves its node."""
    if isinstance(event, Deleted):
        return bool(p.node_of(event.obj))
    return isinstance(event, Updated) and p.is_finished(event.new) and not p.is_finished(event.old)


def add(manager: Manager, world: World, clock: Clock) -> None:
    """Register the scheduler."""
    scheduler = Scheduler(manager.live, world, manager.events(NAME), clock)
    builder = ControllerBuilder(manager, "scheduler").for_(PODS, _waits)
    builder.watches(PODS, scheduler.waiting, _frees_room)
    builder.watches(NODES, scheduler.waiting, _node_may_help)
    builder.watches(PERSISTENTVOLUMECLAIMS, scheduler.users).build(scheduler)
