"""Where the pods of a Workspace may run: added to a pod's own wishes, never in their place.

In: a pod's spec and the labels of its nodes. Out: the spec with affinity and tolerations. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence

from api import keys
from manager.types import Obj

_REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
_PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"
_HEAVIEST = 100

TOLERATIONS: tuple[Obj, ...] = (
    {"key": keys.GPU_RESOURCE, "operator": "Exists", "effect": "NoSchedule"},
    {
        "key": keys.GPU_TAINT_KEY,
        "operator": "Equal",
        "value": keys.GPU_TAINT_VALUE,
        "effect": keys.GPU_TAINT_EFFECT,
    },
)


def placed(spec: Obj, namespace: str, name: str, labels: dict[str, str], tolerations: Sequence[Obj] = ()) -> Obj:
    """The spec of a pod that runs on the Workspace's nodes only, and on these in spite of their taints.

    Rather on those that were made for it: where another Workspace has the same labels, two pods that swap nodes
    would each lose theirs when the other Workspace goes.
    """
    affinity = dict(spec.get("affinity") or {})
    nodes = _node_affinity(affinity.get("nodeAffinity") or {}, labels)
    mine = {keys.WORKSPACE_LABEL: name, keys.WORKSPACE_NAMESPACE_LABEL: namespace}
    preference = {"weight": _HEAVIEST, "preference": {"matchExpressions": _equal(mine)}}
    affinity["nodeAffinity"] = {**nodes, _PREFERRED: [*(nodes.get(_PREFERRED) or []), preference]}
    own = list(spec.get("tolerations") or [])
    more = [item for item in (*TOLERATIONS, *tolerations) if not any(_as_wide(have, item) for have in own)]
    return {**spec, "affinity": affinity, "tolerations": [*own, *more]}


def _node_affinity(own: Obj, labels: dict[str, str]) -> Obj:
    """The nodes' labels in every alternative: the scheduler takes a node that fulfils any one of them."""
    wanted = _equal(labels)
    terms = (own.get(_REQUIRED) or {}).get("nodeSelectorTerms") or [{}]
    merged = []
    for term in terms:
        have = list(term.get("matchExpressions") or [])
        merged.append({**term, "matchExpressions": [*have, *(item for item in wanted if item not in have)]})
    return {**own, _REQUIRED: {**(own.get(_REQUIRED) or {}), "nodeSelectorTerms": merged}}


def _equal(labels: dict[str, str]) -> list[Obj]:
    return [{"key": key, "operator": "In", "values": [value]} for key, value in sorted(labels.items())]


def _as_wide(have: Obj, wanted: Obj) -> bool:
    """Whether a toleration of the user's already tolerates what ours does."""
    if have.get("effect") and have.get("effect") != wanted["effect"]:
        return False
    if (have.get("operator") or "Equal") == "Exists":
        return not have.get("key") or have.get("key") == wanted["key"]
    return bool(have.get("key") == wanted["key"] and (have.get("value") or "") == wanted.get("value", ""))
