"""PodDisruptionBudgets: how many pods may be evicted now.

In: a budget and the pods that it covers. Out: its status, from which the eviction subresource of the API server
decides. Percentages are of what the pods' controllers want, not of what happens to run.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from manager.builder import ControllerBuilder
from manager.manager import Manager
from manager.meta import controller_of
from manager.resources import PODS
from manager.selectors import selector_from
from manager.types import Obj, Request, Resource, Result

from . import pods as p
from .acting import Owners
from .conditions import make, set_condition
from .intstr import resolve
from .replicaset.decide import wanted
from .times import Clock
from .world import World, request_for


def status(budget: Obj, pods: list[Obj], expected: int, now: datetime) -> Obj:
    """The budget's status. ``expected`` is how many pods their controllers want."""
    spec = p.spec_of(budget)
    if spec.get("maxUnavailable") is not None:
        desired = max(0, expected - resolve(spec["maxUnavailable"], expected, round_up=True))
    else:
        desired = resolve(spec.get("minAvailable"), expected, round_up=True, default=1)
    healthy = sum(p.is_ready(pod) and not p.is_terminating(pod) for pod in pods)
    allowed = max(0, healthy - desired) if expected else 0
    reason = "SufficientPods" if allowed else "InsufficientPods"
    made = make("DisruptionAllowed", "True" if allowed else "False", reason, "", now)
    return {
        **{k: v for k, v in p.status_of(budget).items() if k == "disruptedPods"},
        "conditions": set_condition(p.status_of(budget).get("conditions"), made),
        "currentHealthy": healthy,
        "desiredHealthy": desired,
        "disruptionsAllowed": allowed,
        "expectedPods": expected,
        "observedGeneration": p.meta_of(budget).get("generation"),
    }


class DisruptionReconciler:
    """Keeps the status of each budget."""

    def __init__(self, manager: Manager, world: World, kind: Resource, clock: Clock) -> None:
        self._world = world
        self._clock = clock
        self._budgets = manager.cache.informer(kind).store
        self._owners = Owners(manager.live, kind, self._budgets)

    async def reconcile(self, request: Request) -> Result:
        """Count the pods of one budget."""
        budget = self._owners.get(request)
        if budget is None:
            return Result()
        selector = selector_from(p.spec_of(budget).get("selector"))
        pods = [pod for pod in self._world.pods.list(request.namespace, selector) if not p.is_finished(pod)]
        await self._owners.report(budget, status(budget, pods, self._expected(pods), self._clock()))
        return Result()

    def _expected(self, pods: list[Obj]) -> int:
        """What the controllers of these pods want in all; a pod without one wants itself."""
        scales: dict[str, int] = {}
        for pod in pods:
            reference = controller_of(pod)
            uid, size = p.uid_of(pod), 1
            if reference is not None:
                store = {
                    "ReplicaSet": self._world.replicasets,
                    "StatefulSet": self._world.statefulsets,
                }.get(str(reference.get("kind")))
                owner = store.get(str(reference["name"]), p.namespace_of(pod)) if store else None
                if owner is not None:
                    uid, size = p.uid_of(owner), wanted(owner)
            scales[uid] = size
        return sum(scales.values())

    def budgets_of(self, pod: Obj) -> Iterable[Request]:
        """The budgets that cover this pod."""
        return [
            request_for(budget)
            for budget in self._budgets.list(p.namespace_of(pod))
            if selector_from(p.spec_of(budget).get("selector")).matches(p.labels_of(pod))
        ]


def add(manager: Manager, world: World, kind: Resource, clock: Clock) -> None:
    """Register the controller; ``kind`` is the budget resource in the version that the server speaks."""
    reconciler = DisruptionReconciler(manager, world, kind, clock)
    builder = ControllerBuilder(manager, "disruption").for_(kind)
    builder.watches(PODS, reconciler.budgets_of).build(reconciler)
