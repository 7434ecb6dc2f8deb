"""What to do about one object: nothing, let go of dead owners, unblock, orphan its dependents, or delete it.

In: the object's node, the state of each owner, and its dependents. Out: an action. Pure. Deletions carry the
uid, so that an object of the same name that was made since is never hit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto

from .graph import FOREGROUND, ORPHAN, Node


class OwnerState(Enum):
    """What is known about an owner."""

    SOLID = auto()  # exists and stays, or is deleted without waiting for dependents
    WAITING = auto()  # is being deleted in the foreground
    ABSENT = auto()  # does not exist
    UNKNOWN = auto()  # cannot be told: its kind is not served, or the reference points out of its namespace


@dataclass(frozen=True, slots=True)
class Nothing:
    """Leave it."""


@dataclass(frozen=True, slots=True)
class Release:
    """Take these owners off the object; others still hold it."""

    owners: frozenset[str]


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete it with this propagation policy; first stop ``unblock`` from blocking it (a cycle)."""

    propagation: str
    unblock: tuple[Node, ...] = ()


@dataclass(frozen=True, slots=True)
class Finish:
    """Take this finalizer off: the object has waited, or orphaned, enough."""

    finalizer: str


@dataclass(frozen=True, slots=True)
class LetGo:
    """Take the object off its dependents, and then its orphan finalizer."""

    dependents: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class DeleteDependents:
    """Look at these dependents, which hold up a foreground deletion."""

    dependents: tuple[Node, ...]


Action = Nothing | Release | Delete | Finish | LetGo | DeleteDependents


def decide(node: Node, owners: Mapping[str, OwnerState], dependents: Sequence[Node]) -> Action:
    """The next step for ``node``. ``owners`` maps the uid of each of its owners to its state."""
    if node.orphans_dependents:
        return LetGo(tuple(dependents)) if dependents else Finish(ORPHAN)
    if node.waits_for_dependents:
        blocking = tuple(d for d in dependents if _blocks(d, node.uid))
        return DeleteDependents(blocking) if blocking else Finish(FOREGROUND)
    if node.deleting or not node.owners:
        return Nothing()
    states = {o.uid: owners.get(o.uid, OwnerState.UNKNOWN) for o in node.owners}
    gone = frozenset(u for u, s in states.items() if s in (OwnerState.ABSENT, OwnerState.WAITING))
    if not gone:
        return Nothing()
    if len(gone) < len(states):
        return Release(gone)
    if OwnerState.WAITING in states.values() and dependents:
        # An owner waits for this object, which has dependents of its own: they go first. Dependents that
        # are being deleted themselves, in a circle, would wait for it for ever.
        return Delete("Foreground", tuple(d for d in dependents if d.waits_for_dependents))
    if ORPHAN in node.finalizers:
        return Delete("Orphan")
    return Delete("Foreground" if FOREGROUND in node.finalizers else "Background")


def _blocks(dependent: Node, owner: str) -> bool:
    return any(o.uid == owner and o.blocks for o in dependent.owners)
