"""What a StatefulSet should do next.

In: the set, its pods (own writes laid over), the names and templates of its current and its update revision.
Out: pods to create and delete, and the status. With the policy OrderedReady at most one pod is touched per
reconcile, and none while an earlier one is not available; with Parallel creation and removal go at once, and
updates still one by one from the highest number down. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from manager.types import Obj

from .. import pods as p
from ..replicaset.decide import min_ready_seconds, wanted
from ..templates import REVISION_LABEL
from .identity import first_ordinal, new_pod, ordinal_of


@dataclass(frozen=True, slots=True)
class Revisions:
    """The revision that the set comes from and the one that it goes to, each with its template."""

    current: str
    update: str
    templates: dict[str, Obj]


@dataclass(frozen=True, slots=True)
class Plan:
    """Pods by ordinal to create (with their claims), pods to delete, the status, when to look again."""

    create: dict[int, Obj] = field(default_factory=dict)
    delete: list[Obj] = field(default_factory=list)
    recreate: list[Obj] = field(default_factory=list)
    status: Obj = field(default_factory=dict)
    look_again: float | None = None


def decide(statefulset: Obj, pods: Sequence[Obj], revisions: Revisions, now: datetime) -> Plan:
    """The next step of the set towards its spec."""
    first = first_ordinal(statefulset)
    numbers = range(first, first + wanted(statefulset))
    by_ordinal = {n: pod for pod in pods if (n := ordinal_of(statefulset, pod)) is not None}
    members = {n: by_ordinal.get(n) for n in numbers}
    condemned = sorted((n for n in by_ordinal if n not in numbers), reverse=True)
    seconds = min_ready_seconds(statefulset)
    waits = [w for pod in by_ordinal.values() if (w := p.available_in(pod, seconds, now))]
    status = _status(statefulset, list(by_ordinal.values()), revisions, now)
    step = _Step(statefulset, members, revisions, now)
    if not p.is_terminating(statefulset) and step.fill():
        step.shrink({n: by_ordinal[n] for n in condemned})
    return Plan(step.create, step.delete, step.recreate, status, min(waits, default=None))


class _Step:
    """One pass over the members, which gathers what to do and stops where order asks to wait."""

    def __init__(
        self, statefulset: Obj, members: dict[int, Obj | None], revisions: Revisions, now: datetime
    ) -> None:
        self.create: dict[int, Obj] = {}
        self.delete: list[Obj] = []
        self.recreate: list[Obj] = []
        self._set = statefulset
        self._spec = p.spec_of(statefulset)
        self._members = members
        self._revisions = revisions
        self._now = now
        self._seconds = min_ready_seconds(statefulset)
        self._ordered = self._spec.get("podManagementPolicy") != "Parallel"

    def fill(self) -> bool:
        """Create the missing, replace the finished. False: wait, nothing after this may happen."""
        for ordinal, pod in self._members.items():
            if pod is None:
                revision = self._revision_for(ordinal)
                template = self._revisions.templates[revision]
                self.create[ordinal] = new_pod(self._set, ordinal, template, revision)
            elif p.is_finished(pod) and not p.is_terminating(pod):
                self.recreate.append(pod)
            elif not self._ordered or self._healthy(pod):
                continue
            if self._ordered:
                return False
        return True

    def shrink(self, condemned: dict[int, Obj]) -> None:
        """Remove what is beyond the size, highest number first, and then what is of an old revision."""
        sick = [n for n, pod in condemned.items() if not self._healthy(pod)]
        first_sick = min(sick, default=None)
        for ordinal, pod in condemned.items():
            if p.is_terminating(pod):
                if self._ordered:
                    return
                continue
            # A sick pod may be in the way of nobody but itself: only the first sick one goes out of turn.
            if self._ordered and sick and ordinal in sick and ordinal != first_sick:
                return
            self.delete.append(pod)
            if self._ordered:
                return
        if not self.create and not self.recreate and not self.delete:
            self._roll()

    def _roll(self) -> None:
        strategy = self._spec.get("updateStrategy") or {}
        if strategy.get("type", "RollingUpdate") != "RollingUpdate":
            return
        partition = int((strategy.get("rollingUpdate") or {}).get("partition") or 0)
        for ordinal in sorted(self._members, reverse=True):
            pod = self._members[ordinal]
            if ordinal < partition or pod is None:
                return
            if p.labels_of(pod).get(REVISION_LABEL) != self._revisions.update:
                if not p.is_terminating(pod):
                    self.delete.append(pod)
                return
            if not self._healthy(pod):
                return

    def _healthy(self, pod: Obj) -> bool:
        return not p.is_terminating(pod) and p.is_available(pod, self._seconds, self._now)

    def _revision_for(self, ordinal: int) -> str:
        strategy = self._spec.get("updateStrategy") or {}
        if strategy.get("type", "RollingUpdate") != "RollingUpdate":
            return self._revisions.update
        partition = (strategy.get("rollingUpdate") or {}).get("partition")
        index = ordinal - first_ordinal(self._set)
        # Below the partition, or not reached by the update yet: a lost pod comes back as it was.
        reached = int(p.status_of(self._set).get("currentReplicas") or 0)
        boundary = reached if partition is None else int(partition)
        return self._revisions.current if index < boundary else self._revisions.update


def _status(statefulset: Obj, pods: Sequence[Obj], revisions: Revisions, now: datetime) -> Obj:
    old = p.status_of(statefulset)
    seconds = min_ready_seconds(statefulset)

    def of(revision: str) -> int:
        return sum(p.labels_of(pod).get(REVISION_LABEL) == revision and not p.is_terminating(pod) for pod in pods)

    status: Obj = {
        "observedGeneration": p.meta_of(statefulset).get("generation"),
        "replicas": len(pods),
        "readyReplicas": sum(map(p.is_ready, pods)),
        "availableReplicas": sum(p.is_available(pod, seconds, now) for pod in pods),
        "currentReplicas": of(revisions.current),
        "updatedReplicas": of(revisions.update),
        "currentRevision": revisions.current,
        "updateRevision": revisions.update,
        "collisionCount": old.get("collisionCount", 0),
    }
    rolling = (p.spec_of(statefulset).get("updateStrategy") or {}).get("type", "RollingUpdate") == "RollingUpdate"
    done = status["updatedReplicas"] == status["replicas"] == status["readyReplicas"] == wanted(statefulset)
    if rolling and done:
        status["currentReplicas"] = status["updatedReplicas"]
        status["currentRevision"] = revisions.update
    if old.get("conditions"):
        status["conditions"] = old["conditions"]
    # availableReplicas is written even at zero: the schema requires it, and kubectl waits on it.
    keep = ("replicas", "collisionCount", "availableReplicas", "observedGeneration")
    return {k: v for k, v in status.items() if v or k in keep}
