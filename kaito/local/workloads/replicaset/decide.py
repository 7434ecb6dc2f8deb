"""What a ReplicaSet should do next, from its own object and the pods that it may own.

Pure: no I/O, no clock. The pods come with the controller's own writes laid over them, so that counting them
is enough; nothing has to be expected or waited for. Semantics are those of the built-in controller
(Kubernetes 1.26+ for texts).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from manager.types import Obj

from .. import pods as p
from ..conditions import condition, make, set_condition, without

BURST = 500  # most pods created or deleted in one reconcile


@dataclass(frozen=True, slots=True)
class Plan:
    """Pods to create and delete now, and when to look again without an event (seconds)."""

    create: int = 0
    delete: list[Obj] = field(default_factory=list)
    look_again: float | None = None


def decide(replicaset: Obj, pods: Sequence[Obj], now: datetime) -> Plan:
    """Create what is missing, delete what is too much, cheapest pod first."""
    if p.is_terminating(replicaset):
        return Plan()
    active = [pod for pod in pods if p.is_active(pod)]
    missing = wanted(replicaset) - len(active)
    return Plan(
        create=min(missing, BURST) if missing > 0 else 0,
        delete=_cheapest(active, min(-missing, BURST), now) if missing < 0 else [],
        look_again=_next_availability(replicaset, active, now),
    )


def wanted(workload: Obj) -> int:
    """``spec.replicas``, which defaults to 1."""
    replicas = p.spec_of(workload).get("replicas")
    return 1 if replicas is None else int(replicas)


def min_ready_seconds(workload: Obj) -> int:
    """``spec.minReadySeconds``, which defaults to 0."""
    return int(p.spec_of(workload).get("minReadySeconds") or 0)


def _cheapest(active: Sequence[Obj], count: int, now: datetime) -> list[Obj]:
    companions = Counter(p.node_of(pod) for pod in active)
    ranked = sorted(active, key=lambda pod: p.deletion_rank(pod, companions[p.node_of(pod)], now))
    return ranked[:count]


def _next_availability(replicaset: Obj, active: Sequence[Obj], now: datetime) -> float | None:
    seconds = min_ready_seconds(replicaset)
    waits = [wait for pod in active if (wait := p.available_in(pod, seconds, now))]
    return min(waits, default=None)


def status(replicaset: Obj, pods: Sequence[Obj], failure: tuple[str, str] | None, now: datetime) -> Obj:
    """The status that the facts justify.

    ``failure`` is (reason, message) of a create or delete that the server refused in this reconcile.
    """
    spec, old = p.spec_of(replicaset), p.status_of(replicaset)
    template_labels = (spec.get("template") or {}).get("metadata", {}).get("labels") or {}
    active = [pod for pod in pods if p.is_active(pod)]
    seconds = min_ready_seconds(replicaset)
    conditions = list(old.get("conditions") or ())
    if failure is None:
        conditions = without(conditions, "ReplicaFailure")
    elif condition(conditions, "ReplicaFailure") is None:
        conditions = set_condition(conditions, make("ReplicaFailure", "True", *failure, now))
    new: Obj = {
        "replicas": len(active),
        "fullyLabeledReplicas": sum(template_labels.items() <= p.labels_of(pod).items() for pod in active),
        "readyReplicas": sum(map(p.is_ready, active)),
        "availableReplicas": sum(p.is_available(pod, seconds, now) for pod in active),
        "observedGeneration": p.meta_of(replicaset).get("generation"),
    }
    # Zero is written as absent, save for replicas, which is how kubectl and the real objects have it.
    new = {k: v for k, v in new.items() if v or k == "replicas"}
    if conditions:
        new["conditions"] = conditions
    return new
