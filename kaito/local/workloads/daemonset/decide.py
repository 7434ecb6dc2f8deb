"""What a DaemonSet should do next.

In: the set, its pods (own writes laid over), all nodes, the hash of its present template. Out: nodes to give a
pod to, pods to delete, the status. Pods are tied to their node by node affinity, and the scheduler binds them.
Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from manager.types import Obj

from .. import pods as p
from ..intstr import resolve
from ..replicaset.decide import min_ready_seconds
from ..scheduler import nodeaffinity, taints
from ..templates import REVISION_LABEL, pod_from_template, with_label

_TOLERATED: tuple[tuple[str, str], ...] = (
    (taints.NOT_READY, "NoExecute"),
    (taints.UNREACHABLE, "NoExecute"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"),
    (taints.UNSCHEDULABLE, "NoSchedule"),
)


@dataclass(frozen=True, slots=True)
class Plan:
    """Pods to create, pods to delete, those of the latter that had failed, and the status."""

    create: list[Obj] = field(default_factory=list)
    delete: list[Obj] = field(default_factory=list)
    failed: list[Obj] = field(default_factory=list)
    status: Obj = field(default_factory=dict)
    look_again: float | None = None


def decide(daemonset: Obj, pods: Sequence[Obj], nodes: Iterable[Obj], revision: str, now: datetime) -> Plan:
    """The next step. ``revision`` is the hash label of the present template."""
    by_node: dict[str, list[Obj]] = {}
    for pod in pods:
        by_node.setdefault(target_node(pod), []).append(pod)
    create, delete, failed, wanted, strays = [], [], [], [], 0
    outdated_unready: list[Obj] = []
    outdated: list[Obj] = []
    missing = 0
    seconds = min_ready_seconds(daemonset)
    for node in nodes:
        sample = new_pod(daemonset, p.name_of(node), revision)
        here = by_node.pop(p.name_of(node), [])
        runs, stays = _verdict(sample, node)
        living = [pod for pod in here if not p.is_finished(pod)]
        if not runs:
            strays += bool(here)
            if not stays:
                delete += [pod for pod in here if not p.is_terminating(pod)]
            continue
        wanted.append(living)
        broken = [pod for pod in here if p.is_finished(pod) and not p.is_terminating(pod)]
        failed += broken
        oldest_first = sorted(living, key=lambda pod: str(p.meta_of(pod).get("creationTimestamp")))
        delete += [pod for pod in oldest_first[1:] if not p.is_terminating(pod)]
        if not here:
            create.append(sample)
        keeper = oldest_first[0] if oldest_first else None
        if keeper is None or not p.is_available(keeper, seconds, now) or p.is_terminating(keeper):
            missing += 1
        if keeper is not None and not p.is_terminating(keeper) and not _is_of(keeper, revision):
            (outdated if p.is_available(keeper, seconds, now) else outdated_unready).append(keeper)
    # What is left belongs to nodes that are gone; the pod garbage collector removes those.
    delete += _roll(daemonset, outdated, outdated_unready, missing, len(wanted))
    if p.is_terminating(daemonset):
        create, delete, failed = [], [], []
    status = _status(daemonset, wanted, strays, revision, now)
    waits = [w for group in wanted for pod in group if (w := p.available_in(pod, seconds, now))]
    return Plan(create, delete + failed, failed, status, min(waits, default=None))


def new_pod(daemonset: Obj, node: str, revision: str) -> Obj:
    """The set's pod for that node."""
    template = with_label(p.spec_of(daemonset).get("template") or {}, REVISION_LABEL, revision)
    pod = pod_from_template(template, daemonset)
    spec = pod["spec"]
    affinity = dict(spec.get("affinity") or {})
    node_affinity = dict(affinity.get("nodeAffinity") or {})
    rule = "requiredDuringSchedulingIgnoredDuringExecution"
    field_match = [{"key": "metadata.name", "operator": "In", "values": [node]}]
    terms = (node_affinity.get(rule) or {}).get("nodeSelectorTerms") or [{}]
    node_affinity[rule] = {"nodeSelectorTerms": [{**term, "matchFields": field_match} for term in terms]}
    spec["affinity"] = {**affinity, "nodeAffinity": node_affinity}
    tolerations: list[Obj] = list(spec.get("tolerations") or ())
    host = [("node.kubernetes.io/network-unavailable", "NoSchedule")] if spec.get("hostNetwork") else []
    for key, effect in [*_TOLERATED, *host]:
        if not any(t.get("key") == key and t.get("effect") == effect for t in tolerations):
            tolerations.append({"key": key, "operator": "Exists", "effect": effect})
    spec["tolerations"] = tolerations
    return pod


def target_node(pod: Obj) -> str:
    """The node that the pod is on, or is meant for."""
    if node := p.node_of(pod):
        return node
    affinity = (p.spec_of(pod).get("affinity") or {}).get("nodeAffinity") or {}
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution") or {}
    for term in required.get("nodeSelectorTerms") or ():
        for match in term.get("matchFields") or ():
            if match.get("key") == "metadata.name" and match.get("values"):
                return str(match["values"][0])
    return ""


def _verdict(sample: Obj, node: Obj) -> tuple[bool, bool]:
    """(should get a pod, may keep the one it has)."""
    if not nodeaffinity.matches(sample, node):
        return False, False
    tolerations = p.spec_of(sample)["tolerations"]
    return (
        taints.first_untolerated(node, tolerations) is None,
        taints.first_untolerated(node, tolerations, ("NoExecute",)) is None,
    )


def _is_of(pod: Obj, revision: str) -> bool:
    return p.labels_of(pod).get(REVISION_LABEL) == revision


def _roll(
    daemonset: Obj, outdated: Sequence[Obj], unready: Sequence[Obj], missing: int, desired: int
) -> list[Obj]:
    strategy = p.spec_of(daemonset).get("updateStrategy") or {}
    if strategy.get("type", "RollingUpdate") != "RollingUpdate":
        return []
    limit = (strategy.get("rollingUpdate") or {}).get("maxUnavailable", 1)
    budget = max(1, resolve(limit, desired, round_up=True, default=1)) - missing
    return [*unready, *outdated[: max(0, budget)]]


def _status(daemonset: Obj, wanted: Sequence[Sequence[Obj]], strays: int, revision: str, now: datetime) -> Obj:
    seconds = min_ready_seconds(daemonset)
    living = [group for group in wanted if group]
    available = sum(any(p.is_available(pod, seconds, now) for pod in group) for group in living)
    status: Obj = {
        "observedGeneration": p.meta_of(daemonset).get("generation"),
        "desiredNumberScheduled": len(wanted),
        "currentNumberScheduled": len(living),
        "numberMisscheduled": strays,
        "numberReady": sum(any(map(p.is_ready, group)) for group in living),
        "numberAvailable": available,
        "numberUnavailable": len(wanted) - available,
        "updatedNumberScheduled": sum(any(_is_of(pod, revision) for pod in group) for group in living),
    }
    required = ("desiredNumberScheduled", "currentNumberScheduled", "numberMisscheduled", "numberReady")
    status = {k: v for k, v in status.items() if v or k in required}
    if p.status_of(daemonset).get("collisionCount"):
        status["collisionCount"] = p.status_of(daemonset)["collisionCount"]
    return status
