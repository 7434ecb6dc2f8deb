"""ControllerRevisions: the history that StatefulSets and DaemonSets keep of their template.

Each revision holds the template as the patch that `kubectl rollout undo` sends back. Pure: :func:`plan`
compares the owner's template with its history and says which revision is the update, which must be made or
renumbered, and which are too old to keep.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import cast

from manager.meta import owner_reference
from manager.types import Obj

from . import pods as p
from .templates import same_template, template_hash


@dataclass(frozen=True, slots=True)
class Plan:
    """``update`` is the revision of the present template; ``create`` or ``renumber``: it must be written."""

    update: Obj
    create: bool = False
    renumber: bool = False
    delete: list[Obj] = field(default_factory=list)


def template_of(revision: Obj) -> Obj:
    """The pod template that the revision holds."""
    template = ((revision.get("data") or {}).get("spec") or {}).get("template") or {}
    return {k: v for k, v in template.items() if k != "$patch"}


def number_of(revision: Obj) -> int:
    """Its place in the history, from 1."""
    return int(revision.get("revision") or 0)


def plan(owner: Obj, history: Sequence[Obj], in_use: Collection[str]) -> Plan:
    """What the history needs. ``in_use`` are names of revisions that pods or the status still refer to."""
    template = p.spec_of(owner).get("template") or {}
    ordered = sorted(history, key=lambda r: (number_of(r), p.name_of(r)))
    next_number = number_of(ordered[-1]) + 1 if ordered else 1
    equal = [r for r in ordered if same_template(template_of(r), template)]
    if not equal:
        made = _revision(owner, next_number)
        return Plan(made, create=True, delete=_surplus(owner, ordered, in_use))
    update = equal[-1]
    keep = {*in_use, p.name_of(update)}
    if number_of(update) == next_number - 1:
        return Plan(update, delete=_surplus(owner, ordered, keep))
    return Plan({**update, "revision": next_number}, renumber=True, delete=_surplus(owner, ordered, keep))


def _revision(owner: Obj, number: int) -> Obj:
    spec = p.spec_of(owner)
    template = cast(Obj, spec.get("template") or {})
    code = template_hash(template, int(p.status_of(owner).get("collisionCount") or 0))
    return {
        "apiVersion": "apps/v1",
        "kind": "ControllerRevision",
        "metadata": {
            "name": f"{p.name_of(owner)}-{code}",
            "namespace": p.namespace_of(owner),
            "labels": {
                **((template.get("metadata") or {}).get("labels") or {}),
                "controller.kubernetes.io/hash": code,
            },
            "ownerReferences": [owner_reference(owner, controller=True)],
        },
        "data": {"spec": {"template": {**template, "$patch": "replace"}}},
        "revision": number,
    }


def _surplus(owner: Obj, ordered: Sequence[Obj], in_use: Collection[str]) -> list[Obj]:
    limit = p.spec_of(owner).get("revisionHistoryLimit")
    idle = [r for r in ordered if p.name_of(r) not in in_use]
    return idle[: max(0, len(idle) - (10 if limit is None else int(limit)))]
