"""Which changes of a Workspace's status are told as events.

In: the conditions before and after. Out: event type, reason and note, as values. One event for each change of
what blocks the Workspace, and one for each milestone; a message that merely counts on makes none.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

from api.conditions import (
    ADAPTERS_READY,
    INFERENCE_READY,
    JOB_STARTED,
    RESOURCE_READY,
    WORKSPACE_DELETING,
    WORKSPACE_READY,
    Condition,
    Status,
    find,
)
from api.reasons import Reason
from controllers.workspace.findings import passes

_MILESTONES = (RESOURCE_READY, INFERENCE_READY, JOB_STARTED, ADAPTERS_READY, WORKSPACE_READY, WORKSPACE_DELETING)


class Event(NamedTuple):
    """One event about a Workspace."""

    type: Literal["Normal", "Warning"]
    reason: str
    note: str


def transitions(before: Sequence[Condition], after: Sequence[Condition]) -> Iterator[Event]:
    """Events for the milestones that were reached or lost, and for what blocks now."""
    for item in after:
        old = find(before, item.type)
        if item.type not in _MILESTONES or (old and (old.status, old.reason) == (item.status, item.reason)):
            continue
        if item.status == Status.TRUE:
            yield Event("Normal", item.reason, item.message)
        elif item.type == ADAPTERS_READY and item.status == Status.FALSE:
            failed = item.reason == Reason.ADAPTER_FAILED
            yield Event("Warning" if failed else "Normal", item.reason, item.message)
        elif item.type == WORKSPACE_READY:
            # A fault of a node or pod that was fine before is a warning, whatever its name.
            lost = old is not None and old.status == Status.TRUE
            kind: Literal["Normal", "Warning"] = "Normal" if passes(item.reason) and not lost else "Warning"
            yield Event(kind, item.reason, item.message)
