"""Where a pod should run, or the sentence that says why it cannot.

In: a pod without a node, the nodes with what is taken on them, and what is known of its claims. Out: a
:class:`Placement` or an :class:`Unschedulable` whose message has the wording of kube-scheduler, because people
and tools search for it. Pure; equal scores fall to the first name, so the same world gives the same answer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction

from manager.types import Obj

from .. import pods as p
from . import nodeaffinity, podaffinity, taints
from .nodes import NodeInfo, host_ports, ports_clash, requests
from .podaffinity import Namespaces


@dataclass(frozen=True, slots=True)
class Placement:
    """The node to bind the pod to."""

    node: str


@dataclass(frozen=True, slots=True)
class Unschedulable:
    """No node will do."""

    message: str


def decide(
    pod: Obj,
    nodes: Sequence[NodeInfo],
    namespaces: Namespaces,
    claim: Callable[[str], Obj | None] = lambda name: {"status": {"phase": "Bound"}},
) -> Placement | Unschedulable:
    """Filter, score, choose. ``claim`` looks up a PersistentVolumeClaim of the pod's namespace."""
    if not nodes:
        return Unschedulable("no nodes available to schedule pods")
    if blocked := _claims(pod, claim):
        return Unschedulable(f"0/{len(nodes)} nodes are available: {blocked}.")
    wanted = requests(pod)
    refusals: Counter[str] = Counter()
    fitting = []
    for info in nodes:
        reasons = filter_node(pod, info, wanted) or podaffinity.reasons(pod, info, nodes, namespaces)
        if reasons:
            refusals.update(reasons)
        else:
            fitting.append(info)
    if not fitting:
        listed = ", ".join(sorted(f"{count} {reason}" for reason, count in refusals.items()))
        return Unschedulable(f"0/{len(nodes)} nodes are available: {listed}.")
    scores = _scores(pod, fitting, nodes, wanted, namespaces)
    best = max(range(len(fitting)), key=lambda i: (scores[i], -i))
    return Placement(fitting[best].name)


def filter_node(pod: Obj, info: NodeInfo, wanted: dict[str, Fraction]) -> list[str]:
    """Why the node itself will not do, the first kind of reason only; empty when it will."""
    spec, node = p.spec_of(pod), info.node
    tolerations = spec.get("tolerations") or ()
    cordon = {"key": taints.UNSCHEDULABLE, "effect": "NoSchedule"}
    if p.spec_of(node).get("unschedulable") and not taints.tolerates(tolerations, cordon):
        return ["node(s) were unschedulable"]
    taint = taints.first_of(info.taints, tolerations)
    if taint is not None:
        return [f"node(s) had untolerated taint {{{taint.get('key')}: {taint.get('value') or ''}}}"]
    if not nodeaffinity.matches(pod, node):
        return ["node(s) didn't match Pod's node affinity/selector"]
    if ports_clash(host_ports(pod), info.host_ports):
        return ["node(s) didn't have free ports for the requested pod ports"]
    short = []
    for name, amount in sorted(wanted.items()):
        free = info.allocatable.get(name, Fraction(0)) - info.requested.get(name, Fraction(0))
        if amount and amount > free:
            short.append("Too many pods" if name == "pods" else f"Insufficient {name}")
    return short


def _claims(pod: Obj, claim: Callable[[str], Obj | None]) -> str:
    for volume in p.spec_of(pod).get("volumes") or ():
        name = (volume.get("persistentVolumeClaim") or {}).get("claimName")
        if not name:
            continue
        found = claim(str(name))
        if found is None:
            return f'persistentvolumeclaim "{name}" not found'
        if p.is_terminating(found):
            return f'persistentvolumeclaim "{name}" is being deleted'
        if p.status_of(found).get("phase") != "Bound":
            return "pod has unbound immediate PersistentVolumeClaims"
    return ""


def _scores(
    pod: Obj,
    fitting: Sequence[NodeInfo],
    everything: Sequence[NodeInfo],
    wanted: dict[str, Fraction],
    namespaces: Namespaces,
) -> list[float]:
    tolerations = p.spec_of(pod).get("tolerations") or ()
    preferred = _scaled([nodeaffinity.preference(pod, i.node) for i in fitting])
    avoided = _scaled([-taints.preferred_against(i.node, tolerations) for i in fitting])
    near = _scaled([podaffinity.preference(pod, i, everything, namespaces) for i in fitting])
    spread = _scaled([-sum(_same_group(pod, other) for other in i.pods) for i in fitting])
    free = [_free_share(i, wanted) for i in fitting]
    # The weights of kube-scheduler's default profile.
    return [
        2 * a + 3 * b + 2 * c + 2 * d + e
        for a, b, c, d, e in zip(preferred, avoided, near, spread, free, strict=True)
    ]


def _scaled(values: list[int]) -> list[float]:
    low, high = min(values), max(values)
    return [100.0 * (v - low) / (high - low) if high > low else 0.0 for v in values]


def _same_group(pod: Obj, other: Obj) -> bool:
    owners = {r.get("uid") for r in p.meta_of(pod).get("ownerReferences") or ()}
    return any(r.get("uid") in owners for r in p.meta_of(other).get("ownerReferences") or ())


def _free_share(info: NodeInfo, wanted: dict[str, Fraction]) -> float:
    """0..100: how much would be left on the node, averaged over cores, memory and what the pod asks for."""
    shares = []
    for name in {"cpu", "memory", *wanted} - {"pods"}:
        total = info.allocatable.get(name, Fraction(0))
        if total > 0:
            left = total - info.requested.get(name, Fraction(0)) - wanted.get(name, Fraction(0))
            shares.append(float(max(Fraction(0), left) / total))
    return 100.0 * sum(shares) / len(shares) if shares else 0.0
