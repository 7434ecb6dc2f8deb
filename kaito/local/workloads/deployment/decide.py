"""What a Deployment should do next: at most one layer of changes, then look again.

In: the Deployment, its ReplicaSets (own writes laid over), and for Recreate whether old pods still run.
Out: a :class:`Plan` of writes with the event text that belongs to each. Pure; each write triggers the next
reconcile, so a plan never spans two steps that depend on each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from manager.types import Obj

from .. import pods as p
from ..replicaset.decide import wanted
from . import progress, sizes
from .revisions import (
    REVISION,
    find_new,
    new_replicaset,
    revision_of,
    size_annotations,
    superseded,
    wanted_annotations,
)


@dataclass(frozen=True, slots=True)
class Change:
    """A merge patch for one ReplicaSet, and the note of the event that tells of it ("" for none)."""

    replicaset: Obj
    patch: Obj
    note: str = ""


@dataclass(frozen=True, slots=True)
class Plan:
    """Writes, in this order: create, change, delete, annotate the Deployment, write its status."""

    create: Obj | None = None
    changes: list[Change] = field(default_factory=list)
    delete: list[Obj] = field(default_factory=list)
    annotations: dict[str, str] = field(default_factory=dict)
    status: Obj = field(default_factory=dict)
    look_again: float | None = None


def decide(deployment: Obj, replicasets: Sequence[Obj], now: datetime, *, old_pods_running: bool = False) -> Plan:
    """The next step. ``old_pods_running`` matters to Recreate only."""
    new = find_new(deployment, replicasets)
    old = [rs for rs in replicasets if new is None or p.uid_of(rs) != p.uid_of(new)]
    everything = [*old, *([new] if new else [])]

    def plan(
        changes: Sequence[Change] = (), create: Obj | None = None, delete: Sequence[Obj] = (), revision: int = 0
    ) -> Plan:
        created = p.name_of(create) if create else None
        status = progress.new_status(deployment, new, everything, now, created=created)
        number = str(revision) if revision else ""
        stale = number and p.annotations_of(deployment).get(REVISION) != number
        return Plan(
            create=create,
            changes=list(changes),
            delete=list(delete),
            annotations={REVISION: number} if stale else {},
            status=status,
            look_again=progress.deadline_in(deployment, status, now),
        )

    if p.is_terminating(deployment):
        return plan()
    spec = p.spec_of(deployment)
    revision = max(map(revision_of, old), default=0) + 1
    if new is not None:
        revision = max(revision, revision_of(new))
    marks = [_marked(deployment, new, revision)] if new else []
    changes = [m for m in marks if m is not None]
    number = revision if new is not None else 0

    if spec.get("paused") or sizes.is_scaling(deployment, replicasets):
        moves = _moves(deployment, everything, sizes.scaled(deployment, new, old))
        refreshed = _resized_annotations(deployment, everything, moves)
        gone = superseded(deployment, old) if spec.get("paused") else []
        return plan([*changes, *moves, *refreshed], delete=gone, revision=number)

    if (spec.get("strategy") or {}).get("type") == "Recreate":
        running = {p.name_of(rs): 0 for rs in old if wanted(rs) > 0}
        if running:
            return plan([*changes, *_moves(deployment, everything, running)], revision=number)
        if old_pods_running:
            return plan(changes, revision=number)

    if new is None:
        made = new_replicaset(deployment, sizes.new_size(deployment, None, everything), revision)
        return plan(create=made, revision=revision)

    steps = (
        {p.name_of(new): wanted(deployment)}
        if (spec.get("strategy") or {}).get("type") == "Recreate"
        else sizes.rolling(deployment, new, old)
    )
    moves = _moves(deployment, everything, steps)
    done = not moves and progress.is_complete(deployment, progress.counts(deployment, new, everything))
    return plan([*changes, *moves], delete=superseded(deployment, old) if done else [], revision=number)


def _marked(deployment: Obj, new: Obj, revision: int) -> Change | None:
    """Bring the new ReplicaSet's annotations and minReadySeconds in line with the Deployment's."""
    want = wanted_annotations(deployment, new, revision)
    present = p.annotations_of(new)
    patch: Obj = {}
    if differing := {k: v for k, v in want.items() if present.get(k) != v}:
        patch["metadata"] = {"annotations": differing}
    seconds = p.spec_of(deployment).get("minReadySeconds") or 0
    if (p.spec_of(new).get("minReadySeconds") or 0) != seconds:
        patch["spec"] = {"minReadySeconds": seconds}
    return Change(new, patch) if patch else None


def _moves(deployment: Obj, everything: Sequence[Obj], targets: sizes.Sizes) -> list[Change]:
    changes = []
    for rs in everything:
        size = targets.get(p.name_of(rs), wanted(rs))
        if size == wanted(rs):
            continue
        direction = "up" if size > wanted(rs) else "down"
        changes.append(
            Change(
                rs,
                {"metadata": {"annotations": size_annotations(deployment)}, "spec": {"replicas": size}},
                f"Scaled {direction} replica set {p.name_of(rs)} from {wanted(rs)} to {size}",
            )
        )
    return changes


def _resized_annotations(deployment: Obj, everything: Sequence[Obj], moves: Sequence[Change]) -> list[Change]:
    # Without this a ReplicaSet that keeps its size would look as if the scaling were still to be done.
    moved = {p.uid_of(change.replicaset) for change in moves}
    want = size_annotations(deployment)
    return [
        Change(rs, {"metadata": {"annotations": want}})
        for rs in everything
        if wanted(rs) > 0 and p.uid_of(rs) not in moved and not want.items() <= p.annotations_of(rs).items()
    ]
