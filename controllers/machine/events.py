"""Which changes of a Machine's status are told as events.

In: the conditions before and after. Out: event type, reason and note, as values. Progress that is merely
expected (no node yet) makes no event; what a person would look for does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

from api.conditions import (
    MACHINE_INITIALIZED,
    MACHINE_LAUNCHED,
    MACHINE_REGISTERED,
    READY,
    Condition,
    Status,
    find,
)


class Event(NamedTuple):
    """One event about a Machine."""

    type: Literal["Normal", "Warning"]
    reason: str
    note: str


_DONE = {
    MACHINE_LAUNCHED: Event("Normal", "Launched", "The cloud has started the instance"),
    MACHINE_REGISTERED: Event("Normal", "Registered", "The node has joined the cluster"),
    MACHINE_INITIALIZED: Event("Normal", "Initialized", "The node is ready for work"),
}


def transitions(before: Sequence[Condition], after: Sequence[Condition]) -> Iterator[Event]:
    """Events for the conditions whose status or reason changed."""
    for item in after:
        old = find(before, item.type)
        was = (old.status, old.reason) if old is not None else ("", "")
        if (item.status, item.reason) == was:
            continue
        if item.type in _DONE and item.status == Status.TRUE:
            yield _DONE[item.type]
        elif item.type == MACHINE_LAUNCHED and item.status == Status.FALSE:
            yield Event("Warning", item.reason or "LaunchFailed", item.message)
        elif item.type == READY and item.status == Status.FALSE and was[0] == Status.TRUE:
            yield Event("Warning", item.reason or "NotReady", item.message)
