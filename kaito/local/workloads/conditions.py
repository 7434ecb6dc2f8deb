"""Conditions of a status: read one, set one, and the rule for its transition time.

In: the list that stands in an object's status (shared and read-only). Out: a new list. The list keeps its
order, because kubectl prints it as it stands. A condition that says the same as before is returned unchanged,
so that a status built twice from the same facts compares equal and is not written again.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from manager.types import Obj

from .times import rfc3339


def condition(conditions: Sequence[Obj] | None, kind: str) -> Obj | None:
    """The condition of that type, or None."""
    return next((c for c in conditions or () if c.get("type") == kind), None)


def is_true(conditions: Sequence[Obj] | None, kind: str) -> bool:
    """Whether the condition of that type is there and True."""
    found = condition(conditions, kind)
    return found is not None and found.get("status") == "True"


def make(kind: str, status: str, reason: str, message: str, now: datetime, *, update_time: bool = False) -> Obj:
    """A new condition. ``update_time`` adds ``lastUpdateTime``, which only Deployments have."""
    made: Obj = {"type": kind, "status": status}
    if update_time:
        made["lastUpdateTime"] = rfc3339(now)
    made["lastTransitionTime"] = rfc3339(now)
    if reason:
        made["reason"] = reason
    if message:
        made["message"] = message
    return made


def set_condition(conditions: Sequence[Obj] | None, new: Obj) -> list[Obj]:
    """The list with ``new`` in it.

    The same status keeps the old transition time; the same status, reason and message keep the old condition
    as it stands.
    """
    current = list(conditions or ())
    for index, old in enumerate(current):
        if old.get("type") != new["type"]:
            continue
        same_status = old.get("status") == new["status"]
        if (
            same_status
            and old.get("reason", "") == new.get("reason", "")
            and old.get("message", "") == new.get("message", "")
        ):
            return current
        current[index] = (
            {**new, "lastTransitionTime": old.get("lastTransitionTime", new["lastTransitionTime"])}
            if same_status
            else new
        )
        return current
    return [*current, new]


def without(conditions: Sequence[Obj] | None, kind: str) -> list[Obj]:
    """The list less the condition of that type."""
    return [c for c in conditions or () if c.get("type") != kind]
