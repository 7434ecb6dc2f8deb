"""Pods that want to be near, or away from, other pods: affinity, anti-affinity and topology spread. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from manager.selectors import selector_from
from manager.types import Obj

from .. import pods as p
from .nodes import NodeInfo

AFFINITY = "node(s) didn't match pod affinity rules"
ANTI_AFFINITY = "node(s) didn't match pod anti-affinity rules"
EXISTING_ANTI_AFFINITY = "node(s) didn't satisfy existing pods anti-affinity rules"
SPREAD = "node(s) didn't match pod topology spread constraints"
SPREAD_LABEL = "node(s) didn't match pod topology spread constraints (missing required label)"

Namespaces = Mapping[str, Mapping[str, str]]  # name → labels
_REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
_PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"


def reasons(pod: Obj, info: NodeInfo, everything: Sequence[NodeInfo], namespaces: Namespaces) -> list[str]:
    """Why the pod may not run on that node for the sake of its neighbours; empty when it may."""
    if not _fits_affinity(pod, info, everything, namespaces):
        return [AFFINITY]
    if any(_neighbours(term, pod, info, everything, namespaces) for term in _terms(pod, "podAntiAffinity")):
        return [ANTI_AFFINITY]
    if _refused_by_existing(pod, info, everything, namespaces):
        return [EXISTING_ANTI_AFFINITY]
    return _spread(pod, info, everything)


def preference(pod: Obj, info: NodeInfo, everything: Sequence[NodeInfo], namespaces: Namespaces) -> int:
    """The sum of the weights of the preferred terms: near adds, away subtracts, per matching neighbour."""
    total = 0
    for kind, sign in (("podAffinity", 1), ("podAntiAffinity", -1)):
        rules = (p.spec_of(pod).get("affinity") or {}).get(kind) or {}
        for preferred in rules.get(_PREFERRED) or ():
            term = preferred.get("podAffinityTerm") or {}
            found = _neighbours(term, pod, info, everything, namespaces)
            total += sign * int(preferred.get("weight") or 0) * found
    return total


def _terms(pod: Obj, kind: str) -> Sequence[Obj]:
    rules = (p.spec_of(pod).get("affinity") or {}).get(kind) or {}
    return list(rules.get(_REQUIRED) or ())


def _matches(term: Obj, owner: Obj, other: Obj, namespaces: Namespaces) -> bool:
    """Whether ``other`` is one of the pods that the term of ``owner`` speaks about."""
    named = term.get("namespaces") or []
    selector = term.get("namespaceSelector")
    where = p.namespace_of(other)
    in_scope = where in named if named or selector is not None else where == p.namespace_of(owner)
    if selector is not None and not in_scope:
        in_scope = selector_from(selector).matches(dict(namespaces.get(where, {})))
    labels = term.get("labelSelector")
    return in_scope and labels is not None and selector_from(labels).matches(p.labels_of(other))


def _neighbours(
    term: Obj, pod: Obj, info: NodeInfo, everything: Sequence[NodeInfo], namespaces: Namespaces
) -> int:
    key = str(term.get("topologyKey"))
    domain = p.labels_of(info.node).get(key)
    if domain is None:
        return 0
    return sum(
        _matches(term, pod, other, namespaces)
        for near in everything
        if p.labels_of(near.node).get(key) == domain
        for other in near.pods
        if not p.is_terminating(other)
    )


def _fits_affinity(pod: Obj, info: NodeInfo, everything: Sequence[NodeInfo], namespaces: Namespaces) -> bool:
    terms = _terms(pod, "podAffinity")
    if all(_neighbours(term, pod, info, everything, namespaces) for term in terms):
        return True
    # The first pod of a group that wants to be near itself may start anywhere in a labelled domain.
    anybody = any(
        _matches(term, pod, other, namespaces) for term in terms for near in everything for other in near.pods
    )
    return not anybody and all(
        _matches(term, pod, pod, namespaces) and str(term.get("topologyKey")) in p.labels_of(info.node)
        for term in terms
    )


def _refused_by_existing(pod: Obj, info: NodeInfo, everything: Sequence[NodeInfo], namespaces: Namespaces) -> bool:
    for near in everything:
        for other in near.pods:
            for term in _terms(other, "podAntiAffinity"):
                key = str(term.get("topologyKey"))
                domain = p.labels_of(info.node).get(key)
                same = domain is not None and p.labels_of(near.node).get(key) == domain
                if same and _matches(term, other, pod, namespaces):
                    return True
    return False


def _spread(pod: Obj, info: NodeInfo, everything: Sequence[NodeInfo]) -> list[str]:
    for rule in p.spec_of(pod).get("topologySpreadConstraints") or ():
        if rule.get("whenUnsatisfiable") != "DoNotSchedule":
            continue
        key = str(rule.get("topologyKey"))
        domain = p.labels_of(info.node).get(key)
        if domain is None:
            return [SPREAD_LABEL]
        selector = selector_from(rule.get("labelSelector") or {})
        counts: Counter[str] = Counter()
        for near in everything:
            where = p.labels_of(near.node).get(key)
            if where is not None:
                counts[where] += sum(
                    p.namespace_of(other) == p.namespace_of(pod)
                    and not p.is_terminating(other)
                    and selector.matches(p.labels_of(other))
                    for other in near.pods
                )
        own = 1 if selector.matches(p.labels_of(pod)) else 0
        if counts[domain] + own - min(counts.values()) > int(rule.get("maxSkew") or 1):
            return [SPREAD]
    return []
