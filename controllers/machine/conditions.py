"""Conditions of a Machine or NodeClaim, derived once for each reconcile, each kind by its own rules.

In: the conditions as stored and the marks of all phases. Out: the list to store. ``Ready`` is derived from the
three dependents after all marks are in; a mark of ``Ready`` itself overrides the derived value and touches nothing
else. Marking again what is so already leaves the status equal, and an equal status is not written.

A Machine follows knative's "living set": a condition's time moves when anything of it changes; sorted by type. A
NodeClaim follows metav1: the time moves with the status alone; what is missing is Unknown since the object was
made; sorted by time, Ready last.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from api.conditions import READY, Condition, Status, find, set_condition
from controllers.machine.kinds import MACHINE, Kind
from controllers.machine.model import Mark

_LONG_AGO = datetime.min.replace(tzinfo=UTC)


def merge(
    stored: Sequence[Condition],
    marks: Iterable[Mark],
    now: datetime,
    *,
    kind: Kind = MACHINE,
    generation: int | None = None,
    created: datetime | None = None,
) -> tuple[Condition, ...]:
    """The stored conditions after ``marks``, with ``Ready`` derived anew."""
    last = {mark.type: mark for mark in marks}  # a later phase knows more about the same condition
    override = last.pop(READY, None)
    others = list(last.values())
    now = now.replace(microsecond=0)
    if kind.knative:
        return _living(stored, others, override, now, kind)
    return _metav1(stored, others, override, now, kind, generation, created or now)


# ------------------------------------------------------------------ knative


def _living(
    stored: Sequence[Condition], marks: Iterable[Mark], override: Mark | None, now: datetime, kind: Kind
) -> tuple[Condition, ...]:
    by_type = {item.type: item for item in stored}
    for mark in marks:
        _put(by_type, mark, now)
    _put(by_type, override or _derived(by_type, kind), now)
    return tuple(by_type[type_] for type_ in sorted(by_type))


def _derived(by_type: dict[str, Condition], kind: Kind) -> Mark:
    present = [by_type[type_] for type_ in kind.dependents if type_ in by_type]
    # sorted() is stable: of two that changed in the same second, the earlier phase explains the later.
    newest_first = sorted(present, key=lambda item: item.last_transition_time or _LONG_AGO, reverse=True)
    for status in (Status.FALSE, Status.UNKNOWN):
        for item in newest_first:
            if item.status == status:
                return Mark(READY, status, item.reason, item.message)
    return Mark(READY, Status.TRUE if len(present) == len(kind.dependents) else Status.UNKNOWN)


def _put(by_type: dict[str, Condition], mark: Mark, now: datetime) -> None:
    new = Condition(mark.type, str(mark.status), mark.reason, mark.message)
    old = by_type.get(mark.type)
    if old is None or replace(old, last_transition_time=None, severity="") != new:
        by_type[mark.type] = replace(new, last_transition_time=now)


# ------------------------------------------------------------------ metav1


def _metav1(
    stored: Sequence[Condition],
    marks: Iterable[Mark],
    override: Mark | None,
    now: datetime,
    kind: Kind,
    generation: int | None,
    created: datetime,
) -> tuple[Condition, ...]:
    result = tuple(stored)
    for type_ in kind.dependents:
        if find(result, type_) is None:
            waiting = Condition(type_, Status.UNKNOWN, "AwaitingReconciliation", "not looked at yet", created)
            result = (*result, replace(waiting, observed_generation=generation))
    for mark in marks:
        result = set_condition(result, _seen(mark, generation), now)
    result = set_condition(result, _seen(override or _root(result, kind), generation), now)
    # A stable sort: conditions of one second stay in the order of events.
    ordered = sorted(result, key=lambda item: item.last_transition_time or _LONG_AGO)
    return tuple(sorted(ordered, key=lambda item: item.type == READY))


def _seen(mark: Mark, generation: int | None) -> Condition:
    reason = mark.reason or (mark.type if mark.status == Status.TRUE else "")
    return Condition(mark.type, str(mark.status), reason, mark.message, None, generation)


def _root(present: Sequence[Condition], kind: Kind) -> Mark:
    dependents = [item for type_ in kind.dependents if (item := find(present, type_)) is not None]
    if all(item.status == Status.TRUE for item in dependents):
        return Mark(READY, Status.TRUE)
    told = ", ".join(f"{item.type}={item.status}" for item in dependents if item.status != Status.TRUE)
    if any(item.status == Status.FALSE for item in dependents):
        return Mark(READY, Status.FALSE, "UnhealthyDependents", told)
    return Mark(READY, Status.UNKNOWN, "ReconcilingDependents", told)
