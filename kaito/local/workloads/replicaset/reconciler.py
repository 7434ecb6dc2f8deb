"""ReplicaSet: observe its pods, decide, and carry it out."""

from __future__ import annotations

from collections.abc import Iterable

from manager.builder import ControllerBuilder
from manager.errors import ApiError
from manager.manager import Manager
from manager.meta import controller_of
from manager.ownwrites import OwnWrites
from manager.resources import PODS, REPLICASETS
from manager.selectors import selector_from
from manager.types import Obj, Request, Result

from .. import pods as p
from ..acting import Children, Owners, is_namespace_ending
from ..ownership import sort_out
from ..templates import pod_from_template
from ..times import Clock
from ..world import World, request_for
from .decide import decide, status


class ReplicaSetReconciler:
    """Keeps the number of pods of each ReplicaSet."""

    def __init__(self, manager: Manager, world: World, clock: Clock) -> None:
        self._client = manager.live
        self._world = world
        self._clock = clock
        self._owners = Owners(manager.live, REPLICASETS, world.replicasets)
        self._own = OwnWrites(lambda: world.pods.resource_version)
        self._children = Children(self._client, PODS, self._own, manager.events("replicaset-controller"))

    async def reconcile(self, request: Request) -> Result:
        """Create or delete pods towards ``spec.replicas`` and report."""
        group = str(request)
        replicaset = self._owners.get(request)
        if replicaset is None:
            self._own.forget(group)
            return Result()
        selector = selector_from(p.spec_of(replicaset).get("selector"))
        seen = self._own.view(group, self._world.candidates(self._world.pods, replicaset))
        pods = await self._children.claim(REPLICASETS, replicaset, group, sort_out(replicaset, selector, seen))
        now = self._clock()
        plan = decide(replicaset, pods, now)
        refusal: ApiError | None = None
        try:
            template = p.spec_of(replicaset).get("template") or {}
            wanted = [pod_from_template(template, replicaset) for _ in range(plan.create)]
            pods += await self._children.create(replicaset, group, wanted)
            await self._children.delete(replicaset, group, plan.delete)
        except* ApiError as errors:
            refusal = _first(errors)
        failure = None
        if refusal is not None:
            failure = ("FailedCreate" if plan.create else "FailedDelete", refusal.message)
        deleted = {p.uid_of(pod) for pod in plan.delete}
        left = [pod for pod in pods if p.uid_of(pod) not in deleted]
        await self._owners.report(replicaset, status(replicaset, left, failure, now))
        if refusal is not None and not is_namespace_ending(refusal):
            raise refusal
        return Result(requeue_after=plan.look_again)

    def adopters(self, pod: Obj) -> Iterable[Request]:
        """The ReplicaSets that may want a pod that nobody controls."""
        if controller_of(pod) is not None:
            return []
        return [
            request_for(rs)
            for rs in self._world.replicasets.list(p.namespace_of(pod))
            if selector_from(p.spec_of(rs).get("selector")).matches(p.labels_of(pod))
        ]


def _first(errors: BaseExceptionGroup[ApiError]) -> ApiError:
    error = errors.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error


def add(manager: Manager, world: World, clock: Clock) -> None:
    """Register the controller."""
    reconciler = ReplicaSetReconciler(manager, world, clock)
    builder = ControllerBuilder(manager, "replicaset").for_(REPLICASETS).owns(PODS)
    builder.watches(PODS, reconciler.adopters).options(max_concurrent=5).build(reconciler)
