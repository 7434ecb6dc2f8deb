"""Conditions of a Machine, derived once for each reconcile, by knative's "living set" rules.

In: the conditions as stored and the marks of all phases. Out: the list to store, sorted by type. ``Ready`` is
derived from the three dependents after all marks are in; a mark of ``Ready`` itself overrides the derived value
and touches nothing else. A condition's time moves when anything of it changes, and never otherwise: marking
again what is so already leaves the status equal, and an equal status is not written.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from api.conditions import (
    MACHINE_INITIALIZED,
    MACHINE_LAUNCHED,
    MACHINE_REGISTERED,
    READY,
    Condition,
    Status,
)
from controllers.machine.model import Mark

DEPENDENTS = (MACHINE_LAUNCHED, MACHINE_REGISTERED, MACHINE_INITIALIZED)
_LONG_AGO = datetime.min.replace(tzinfo=UTC)


def merge(stored: Sequence[Condition], marks: Iterable[Mark], now: datetime) -> tuple[Condition, ...]:
    """The stored conditions after ``marks``, with ``Ready`` derived anew."""
    by_type = {item.type: item for item in stored}
    override: Mark | None = None
    for mark in marks:
        if mark.type == READY:
            override = mark
        else:
            _put(by_type, mark, now)
    _put(by_type, override or _derived_ready(by_type), now)
    return tuple(by_type[kind] for kind in sorted(by_type))


def _derived_ready(by_type: dict[str, Condition]) -> Mark:
    present = [by_type[kind] for kind in DEPENDENTS if kind in by_type]
    # sorted() is stable: of two that changed in the same second, the earlier phase explains the later.
    newest_first = sorted(present, key=lambda item: item.last_transition_time or _LONG_AGO, reverse=True)
    for status in (Status.FALSE, Status.UNKNOWN):
        for item in newest_first:
            if item.status == status:
                return Mark(READY, status, item.reason, item.message)
    return Mark(READY, Status.TRUE if len(present) == len(DEPENDENTS) else Status.UNKNOWN)


def _put(by_type: dict[str, Condition], mark: Mark, now: datetime) -> None:
    new = Condition(mark.type, str(mark.status), mark.reason, mark.message)
    old = by_type.get(mark.type)
    if old is None or replace(old, last_transition_time=None, severity="") != new:
        by_type[mark.type] = replace(new, last_transition_time=now.replace(microsecond=0))
