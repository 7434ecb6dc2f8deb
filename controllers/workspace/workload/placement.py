"""Where the pods of a Workspace may run: added to a pod's own wishes, never in their place.

In: a pod's spec and the labels of its nodes. Out: the spec with affinity and tolerations. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence

from api import keys
from manager.types import Obj

_REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"

TOLERATIONS: tuple[Obj, ...] = (
    {"key": keys.GPU_RESOURCE, "operator": "Exists", "effect": "NoSchedule"},
    {
        "key": keys.GPU_TAINT_KEY,
        "operator": "Equal",
        "value": keys.GPU_TAINT_VALUE,
        "effect": keys.GPU_TAINT_EFFECT,
    },
)


def placed(spec: Obj, labels: dict[str, str], tolerations: Sequence[Obj] = ()) -> Obj:
    """The spec of a pod that runs on the Workspace's nodes only, and on these in spite of their taints."""
    affinity = dict(spec.get("affinity") or {})
    affinity["nodeAffinity"] = _node_affinity(affinity.get("nodeAffinity") or {}, labels)
    own = list(spec.get("tolerations") or [])
    more = [item for item in (*TOLERATIONS, *tolerations) if not any(_as_wide(have, item) for have in own)]
    return {**spec, "affinity": affinity, "tolerations": [*own, *more]}


def _node_affinity(own: Obj, labels: dict[str, str]) -> Obj:
    """The nodes' labels in every alternative: the scheduler takes a node that fulfils any one of them."""
    wanted = [{"key": key, "operator": "In", "values": [value]} for key, value in sorted(labels.items())]
    terms = (own.get(_REQUIRED) or {}).get("nodeSelectorTerms") or [{}]
    merged = []
    for term in terms:
        have = list(term.get("matchExpressions") or [])
        merged.append({**term, "matchExpressions": [*have, *(item for item in wanted if item not in have)]})
    return {**own, _REQUIRED: {**(own.get(_REQUIRED) or {}), "nodeSelectorTerms": merged}}


def _as_wide(have: Obj, wanted: Obj) -> bool:
    """Whether a toleration of the user's already tolerates what ours does."""
    if have.get("effect") and have.get("effect") != wanted["effect"]:
        return False
    if (have.get("operator") or "Equal") == "Exists":
        return not have.get("key") or have.get("key") == wanted["key"]
    return bool(have.get("key") == wanted["key"] and (have.get("value") or "") == wanted.get("value", ""))
