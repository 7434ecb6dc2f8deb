"""What the state of a node means for its conditions, its taints and the pods on it.

In: the node, how long it has been silent, its pods, the time. Out: new conditions, new taints, pods to delete.
Silence is measured by the caller with its own clock since it last saw a change, so clock skew between machines
does no harm. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from manager.types import Obj

from .. import pods as p
from ..conditions import condition, make
from ..scheduler.taints import OWN_KEYS, by_state, tolerates
from ..times import parse, rfc3339

_WATCHED = ("Ready", "MemoryPressure", "DiskPressure", "PIDPressure")


@dataclass(frozen=True, slots=True)
class Timing:
    """Patience, in seconds.

    Attributes:
        grace: silence after which a node that has reported counts as unreachable (kube-controller-manager's
            node-monitor-grace-period of 40 s).
        startup_grace: the same for a node that never has.
        quarantine: how long a node must have been gone before its pods are removed.
    """

    grace: float = 40.0
    startup_grace: float = 60.0
    quarantine: float = 5.0

    def allowed(self, node: Obj) -> float:
        """The silence that this node is allowed."""
        return self.grace if condition(p.status_of(node).get("conditions"), "Ready") else self.startup_grace


def lost_conditions(node: Obj, now: datetime) -> list[Obj]:
    """The conditions to write for a node that has gone silent; empty when they already say so."""
    present = p.status_of(node).get("conditions")
    changed = []
    for kind in _WATCHED:
        old = condition(present, kind)
        if old is not None and old.get("status") == "Unknown":
            continue
        if old is None and kind != "Ready":
            continue
        new = (
            make(kind, "Unknown", "NodeStatusUnknown", "Kubelet stopped posting node status.", now)
            if old
            else make(kind, "Unknown", "NodeStatusNeverUpdated", "Kubelet never posted node status.", now)
        )
        changed.append(new)
    return changed


def wanted_taints(node: Obj, now: datetime) -> list[Obj] | None:
    """The node's whole list of taints as it should be, or None when it is right already.

    Only the keys that this controller owns are touched; NoExecute taints carry the time from which
    tolerations are counted.
    """
    present: list[Obj] = list(p.spec_of(node).get("taints") or ())
    wanted = by_state(node)
    kept = [t for t in present if t.get("key") not in OWN_KEYS or (t.get("key"), t.get("effect")) in wanted]
    have = {(t.get("key"), t.get("effect")) for t in kept}
    added: list[Obj] = [
        {"key": key, "effect": effect, "timeAdded": rfc3339(now)}
        for key, effect in wanted
        if (key, effect) not in have
    ]
    return [*kept, *added] if added or len(kept) != len(present) else None


@dataclass(frozen=True, slots=True)
class Evictions:
    """Pods to delete now, and seconds until the next one is due."""

    delete: list[Obj] = field(default_factory=list)
    look_again: float | None = None


def evictions(node: Obj, pods: Iterable[Obj], now: datetime) -> Evictions:
    """Which pods the node's NoExecute taints drive away."""
    taints = [t for t in p.spec_of(node).get("taints") or () if t.get("effect") == "NoExecute"]
    if not taints:
        return Evictions()
    due, waits = [], []
    for pod in pods:
        if p.is_terminating(pod) or p.is_finished(pod):
            continue
        left = _seconds_left(pod, taints, now)
        if left is None:
            continue
        if left <= 0:
            due.append(pod)
        else:
            waits.append(left)
    return Evictions(due, min(waits, default=None))


def _seconds_left(pod: Obj, taints: Sequence[Obj], now: datetime) -> float | None:
    """Seconds until the pod has to go; None when it may stay."""
    left: float | None = None
    for taint in taints:
        matching = [t for t in p.spec_of(pod).get("tolerations") or () if tolerates([t], taint)]
        if not matching:
            return 0.0
        seconds = [float(t["tolerationSeconds"]) for t in matching if t.get("tolerationSeconds") is not None]
        if not seconds:
            continue
        since = parse(taint.get("timeAdded"))
        wait = min(seconds) - ((now - since).total_seconds() if since else 0.0)
        left = wait if left is None else min(left, wait)
    return left
