"""Which changes of a Machine's status are told as events.

In: the conditions before and after. Out: event type, reason and note, as values. Progress that is merely
expected (no node yet) makes no event; what a person would look for does. The note is the condition's message, word
for word. Names that Karpenter's users know are kept: InsufficientCapacityError, FailedDraining, Evicted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

from api.conditions import READY, Condition, Status, find
from controllers.machine.kinds import MACHINE, Kind
from controllers.machine.model import Observation
from manager.types import Obj
from provisioner.errors import CapacityUnavailable

_KARPENTERS = {CapacityUnavailable.reason: "InsufficientCapacityError"}


class Event(NamedTuple):
    """One event, about the Machine unless ``regarding`` is another object."""

    type: Literal["Normal", "Warning"]
    reason: str
    note: str
    regarding: Obj | None = None


def told(obs: Observation, after: Sequence[Condition]) -> Iterator[Event]:
    """All events of one change of status: about the Machine, and about a node that cannot be emptied."""
    yield from transitions(obs.conditions, after, obs.kind)
    ready = find(after, READY)
    if obs.blocked and ready is not None and ready.message != getattr(find(obs.conditions, READY), "message", ""):
        for node in obs.nodes:
            note = f"Failed to drain node, {ready.message}"
            yield Event("Warning", "FailedDraining", note, {"apiVersion": "v1", "kind": "Node", **node})
        for budget in sorted({item.budget for item in obs.blocked if item.budget}):
            note = f"can't drain node, PDB {budget} is blocking evictions"
            yield Event("Warning", "FailedConsistencyCheck", note)


def transitions(before: Sequence[Condition], after: Sequence[Condition], kind: Kind = MACHINE) -> Iterator[Event]:
    """Events for the conditions whose status or reason changed."""
    done = {
        kind.launched: Event("Normal", "Launched", "The cloud has started the instance"),
        kind.registered: Event("Normal", "Registered", "The node has joined the cluster"),
        kind.initialized: Event("Normal", "Initialized", "The node is ready for work"),
    }
    for item in after:
        old = find(before, item.type)
        was = (old.status, old.reason) if old is not None else ("", "")
        if (item.status, item.reason) == was:
            continue
        if item.type in done and item.status == Status.TRUE:
            yield done[item.type]
        elif item.type == kind.launched and item.status == Status.FALSE:
            reason = _KARPENTERS.get(item.reason, item.reason or "LaunchFailed")
            yield Event("Warning", reason, item.message)
        elif item.type == READY and item.status == Status.FALSE and was[0] == Status.TRUE:
            yield Event("Warning", item.reason or "NotReady", item.message)
