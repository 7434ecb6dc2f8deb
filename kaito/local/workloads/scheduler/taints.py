"""Taints and tolerations. Pure.

A node whose condition says trouble counts as tainted even before the node lifecycle controller has written the
taint down, so that no pod slips onto a node in the moment of its registration.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from manager.types import Obj

from .. import pods as p
from ..conditions import condition

NOT_READY = "node.kubernetes.io/not-ready"
UNREACHABLE = "node.kubernetes.io/unreachable"
UNSCHEDULABLE = "node.kubernetes.io/unschedulable"
_BY_CONDITION = {
    "MemoryPressure": "node.kubernetes.io/memory-pressure",
    "DiskPressure": "node.kubernetes.io/disk-pressure",
    "PIDPressure": "node.kubernetes.io/pid-pressure",
    "NetworkUnavailable": "node.kubernetes.io/network-unavailable",
}
OWN_KEYS = frozenset({NOT_READY, UNREACHABLE, UNSCHEDULABLE, *_BY_CONDITION.values()})


def tolerates(tolerations: Iterable[Obj], taint: Obj) -> bool:
    """Whether any of the tolerations covers the taint."""
    return any(_covers(toleration, taint) for toleration in tolerations)


def _covers(toleration: Obj, taint: Obj) -> bool:
    if toleration.get("effect") and toleration["effect"] != taint.get("effect"):
        return False
    key, operator = toleration.get("key"), toleration.get("operator") or "Equal"
    if key and key != taint.get("key"):
        return False
    if operator == "Exists":
        return True
    return bool(key) and (toleration.get("value") or "") == (taint.get("value") or "")


def ready_state(node: Obj) -> str:
    """The status of the Ready condition: True, False or Unknown; a node that never reported is False."""
    ready = condition(p.status_of(node).get("conditions"), "Ready")
    return str(ready.get("status")) if ready else "False"


def by_state(node: Obj) -> list[tuple[str, str]]:
    """(key, effect) of the taints that the node's own state calls for."""
    wanted = []
    state = ready_state(node)
    if state != "True":
        key = UNREACHABLE if state == "Unknown" else NOT_READY
        wanted += [(key, "NoSchedule"), (key, "NoExecute")]
    for kind, key in _BY_CONDITION.items():
        found = condition(p.status_of(node).get("conditions"), kind)
        if found is not None and found.get("status") == "True":
            wanted.append((key, "NoSchedule"))
    if p.spec_of(node).get("unschedulable"):
        wanted.append((UNSCHEDULABLE, "NoSchedule"))
    return wanted


def effective(node: Obj) -> list[Obj]:
    """The taints that stand in the node, and those that its state calls for and nobody has written yet."""
    taints: list[Obj] = list(p.spec_of(node).get("taints") or ())
    present = {(t.get("key"), t.get("effect")) for t in taints}
    missing = [pair for pair in by_state(node) if pair not in present]
    return [*taints, *({"key": key, "effect": effect} for key, effect in missing)]


def first_untolerated(
    node: Obj, tolerations: Sequence[Obj], effects: Sequence[str] = ("NoSchedule", "NoExecute")
) -> Obj | None:
    """The first taint of one of these effects that the tolerations do not cover."""
    return first_of(effective(node), tolerations, effects)


def first_of(
    taints: Iterable[Obj], tolerations: Sequence[Obj], effects: Sequence[str] = ("NoSchedule", "NoExecute")
) -> Obj | None:
    """The same of taints that were looked up before."""
    for taint in taints:
        if taint.get("effect") in effects and not tolerates(tolerations, taint):
            return taint
    return None


def preferred_against(node: Obj, tolerations: Sequence[Obj]) -> int:
    """How many PreferNoSchedule taints of the node the tolerations do not cover."""
    return sum(t.get("effect") == "PreferNoSchedule" and not tolerates(tolerations, t) for t in effective(node))
