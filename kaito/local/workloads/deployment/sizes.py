"""How many replicas each ReplicaSet of a Deployment should have next.

In: the Deployment, its new ReplicaSet (None while there is none) and the old ones. Out: a map from ReplicaSet
name to size, holding only the sizes that change. Pure arithmetic: two ways of moving (rolling, and scaling in the
middle of a rollout), each of which keeps within maxSurge and maxUnavailable.
"""

from __future__ import annotations

from collections.abc import Sequence

from manager.types import Obj

from .. import pods as p
from ..replicaset.decide import wanted
from .revisions import DESIRED, MAXIMUM, by_creation, limits, max_unavailable, revision_of

Sizes = dict[str, int]


def available(replicaset: Obj) -> int:
    """``status.availableReplicas``."""
    return int(p.status_of(replicaset).get("availableReplicas") or 0)


def new_size(deployment: Obj, new: Obj | None, everything: Sequence[Obj]) -> int:
    """The size that the new ReplicaSet may have now."""
    desired, present = wanted(deployment), wanted(new) if new else 0
    if (p.spec_of(deployment).get("strategy") or {}).get("type") == "Recreate" or present >= desired:
        return desired
    room = desired + limits(deployment)[0] - sum(map(wanted, everything))
    return present + max(0, min(room, desired - present))


def rolling(deployment: Obj, new: Obj, old: Sequence[Obj]) -> Sizes:
    """One step of a rolling update: grow the new one, or else shrink the old ones as far as is safe."""
    grown = new_size(deployment, new, [new, *old])
    if grown != wanted(new):
        return {p.name_of(new): grown}
    return _shrink_old(deployment, new, [rs for rs in by_creation(old) if wanted(rs) > 0])


def _shrink_old(deployment: Obj, new: Obj, old: Sequence[Obj]) -> Sizes:
    minimum = wanted(deployment) - max_unavailable(deployment)
    sizes = {p.name_of(rs): wanted(rs) for rs in old}
    new_missing = wanted(new) - available(new)
    budget = sum(sizes.values()) + wanted(new) - minimum - new_missing
    if budget <= 0:
        return {}
    # First those that serve nobody: they cost no availability.
    for rs in old:
        sick = min(budget, wanted(rs) - available(rs))
        if sick > 0:
            sizes[p.name_of(rs)] -= sick
            budget -= sick
    spare = sum(map(available, [new, *old])) - minimum
    for rs in old:
        cut = min(sizes[p.name_of(rs)], spare)
        if cut > 0:
            sizes[p.name_of(rs)] -= cut
            spare -= cut
    return {p.name_of(rs): sizes[p.name_of(rs)] for rs in old if sizes[p.name_of(rs)] != wanted(rs)}


def is_scaling(deployment: Obj, replicasets: Sequence[Obj]) -> bool:
    """Whether the Deployment's size has changed since its ReplicaSets were last scaled."""
    desired = str(wanted(deployment))
    return any(wanted(rs) and p.annotations_of(rs).get(DESIRED, desired) != desired for rs in replicasets)


def scaled(deployment: Obj, new: Obj | None, old: Sequence[Obj]) -> Sizes:
    """Spread a changed size over the ReplicaSets that there are, in proportion to what they have."""
    desired = wanted(deployment)
    active = [rs for rs in [*old, *([new] if new else [])] if wanted(rs) > 0]
    if len(active) <= 1:
        target = active[0] if active else (new or _latest(old))
        return {p.name_of(target): desired} if target is not None and wanted(target) != desired else {}
    if new is not None and _is_saturated(deployment, new):
        return {p.name_of(rs): 0 for rs in old if wanted(rs) > 0}
    if (p.spec_of(deployment).get("strategy") or {}).get("type", "RollingUpdate") != "RollingUpdate":
        return {}
    return _in_proportion(deployment, active)


def _latest(old: Sequence[Obj]) -> Obj | None:
    return max(old, key=lambda rs: (revision_of(rs), p.name_of(rs)), default=None)


def _is_saturated(deployment: Obj, new: Obj) -> bool:
    desired = wanted(deployment)
    return (
        wanted(new) == desired and available(new) == desired and p.annotations_of(new).get(DESIRED) == str(desired)
    )


def _in_proportion(deployment: Obj, active: Sequence[Obj]) -> Sizes:
    desired = wanted(deployment)
    ceiling = desired + limits(deployment)[0] if desired else 0
    to_add = ceiling - sum(map(wanted, active))
    # Growth goes to the newest of the largest first, shrinkage to the oldest of the largest.
    ranked = sorted(by_creation(active), key=lambda rs: wanted(rs))[::-1]
    if to_add < 0:
        ranked = sorted(by_creation(active), key=lambda rs: -wanted(rs))
    sizes: Sizes = {}
    left = to_add
    for rs in ranked:
        share = _share(deployment, rs, ceiling)
        share = max(0, min(share, left)) if to_add > 0 else min(0, max(share, left))
        sizes[p.name_of(rs)] = wanted(rs) + share
        left -= share
    largest = p.name_of(ranked[0])
    sizes[largest] = max(0, sizes[largest] + left)
    return sizes


def _share(deployment: Obj, replicaset: Obj, ceiling: int) -> int:
    if wanted(deployment) == 0:
        return -wanted(replicaset)
    text = p.annotations_of(replicaset).get(MAXIMUM, "")
    before = int(text) if text.isdecimal() and int(text) else int(p.status_of(deployment).get("replicas") or 1)
    return int(wanted(replicaset) * ceiling / before + 0.5) - wanted(replicaset)
