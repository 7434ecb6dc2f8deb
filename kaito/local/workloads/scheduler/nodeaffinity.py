"""Which nodes a pod asks for: nodeSelector and node affinity, required and preferred. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from manager.types import Obj

from .. import pods as p


def matches(pod: Obj, node: Obj) -> bool:
    """Whether the node satisfies nodeSelector and every required term (terms are alternatives)."""
    spec, labels = p.spec_of(pod), p.labels_of(node)
    selector = cast("Mapping[str, str]", spec.get("nodeSelector") or {})
    if any(labels.get(key) != value for key, value in selector.items()):
        return False
    affinity = (spec.get("affinity") or {}).get("nodeAffinity") or {}
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution")
    if required is None:
        return True
    return any(_term(term, node) for term in required.get("nodeSelectorTerms") or ())


def preference(pod: Obj, node: Obj) -> int:
    """The sum of the weights of the preferred terms that the node satisfies."""
    affinity = (p.spec_of(pod).get("affinity") or {}).get("nodeAffinity") or {}
    return sum(
        int(preferred.get("weight") or 0)
        for preferred in affinity.get("preferredDuringSchedulingIgnoredDuringExecution") or ()
        if _term(preferred.get("preference") or {}, node)
    )


def _term(term: Obj, node: Obj) -> bool:
    expressions, fields = term.get("matchExpressions") or (), term.get("matchFields") or ()
    if not expressions and not fields:
        return False  # an empty term matches nothing
    labels = p.labels_of(node)
    return all(_holds(e, labels) for e in expressions) and all(
        _holds(f, {"metadata.name": p.name_of(node)}) for f in fields
    )


def _holds(requirement: Obj, labels: Mapping[str, str]) -> bool:
    value = labels.get(str(requirement.get("key")))
    values = list(requirement.get("values") or [])
    match requirement.get("operator"):
        case "In":
            return value is not None and value in values
        case "NotIn":
            return value is None or value not in values
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
        case "Gt" | "Lt" as operator:
            try:
                mine, bound = int(value or ""), int(values[0])
            except (ValueError, IndexError):
                return False
            return mine > bound if operator == "Gt" else mine < bound
    return False
