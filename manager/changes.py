"""What can happen to an object, as sources tell it: an informer's events, and hints that no watch shows."""

from __future__ import annotations

from dataclasses import dataclass

from manager.informer import Added, Deleted, Updated
from manager.meta import resource_version
from manager.types import Obj


@dataclass(frozen=True, slots=True)
class Generic:
    """Something about an object may need a look, for a reason outside the API server: a poll, a webhook's call."""

    obj: Obj


Change = Added | Updated | Deleted | Generic


def is_old_news(change: Change) -> bool:
    """Whether it says nothing new: part of an initial list, or an update to the same resource version."""
    if isinstance(change, Updated):
        known = bool(change.old and change.new)
        return known and resource_version(change.old) == resource_version(change.new)
    return isinstance(change, Added) and change.initial
