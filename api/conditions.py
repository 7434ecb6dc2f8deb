"""Conditions as values, and the two rules by which they change.

In: the conditions of an object and a new one, with the time as an argument. Out: the new tuple; nothing is
mutated and no clock is read. Two semantics live side by side because the two kinds promise different things:

* metav1 (Workspace, NodeClaim): ``lastTransitionTime`` moves only when ``status`` changes; order is kept.
* knative "living set" (Machine): any change of status, reason, message or severity moves it; sorted by type;
  ``Ready`` is computed from the dependents and is never set by hand (see ``LivingSet``).

Setting what is already so returns an equal tuple, so that a caller can compare and skip the write.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final, Self

from api.reasons import Cause

READY: Final = "Ready"

# Machine
MACHINE_LAUNCHED: Final = "MachineLaunched"
MACHINE_REGISTERED: Final = "MachineRegistered"
MACHINE_INITIALIZED: Final = "MachineInitialized"

# NodeClaim
NODECLAIM_LAUNCHED: Final = "Launched"
NODECLAIM_REGISTERED: Final = "Registered"
NODECLAIM_INITIALIZED: Final = "Initialized"
DRAINED: Final = "Drained"
VOLUMES_DETACHED: Final = "VolumesDetached"
INSTANCE_TERMINATING: Final = "InstanceTerminating"

# Workspace
MACHINE_READY: Final = "MachineReady"
NODECLAIM_READY: Final = "NodeClaimReady"  # instead of it, where NodeClaims are made
RESOURCE_READY: Final = "ResourceReady"
INFERENCE_READY: Final = "InferenceReady"
JOB_STARTED: Final = "JobStarted"
ADAPTERS_READY: Final = "AdaptersReady"
WORKSPACE_READY: Final = "WorkspaceReady"
WORKSPACE_SUCCEEDED: Final = "WorkspaceSucceeded"
WORKSPACE_DELETING: Final = "WorkspaceDeleting"


class Status(StrEnum):
    """A condition's status."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition of an object. ``severity`` is knative's and empty elsewhere. Times are aware, in UTC."""

    type: str
    status: str
    reason: str = ""
    message: str = ""
    last_transition_time: datetime | None = None
    observed_generation: int | None = None
    severity: str = ""

    @classmethod
    def of(cls, type_: str, status: str, cause: Cause, *, observed_generation: int | None = None) -> Self:
        """The condition that says this cause."""
        return cls(type_, status, str(cause.reason), cause.render(), None, observed_generation)

    @classmethod
    def from_obj(cls, obj: dict[str, Any]) -> Self:
        """Read one from JSON; what is absent becomes empty, an unreadable time becomes None."""
        generation = obj.get("observedGeneration")
        return cls(
            type=str(obj.get("type", "")),
            status=str(obj.get("status", Status.UNKNOWN)),
            reason=str(obj.get("reason") or ""),
            message=str(obj.get("message") or ""),
            last_transition_time=parse_time(obj.get("lastTransitionTime")),
            observed_generation=generation if isinstance(generation, int) else None,
            severity=str(obj.get("severity") or ""),
        )

    def to_obj(self) -> dict[str, Any]:
        """JSON, without the fields that are empty."""
        obj: dict[str, Any] = {"type": self.type, "status": str(self.status)}
        if self.severity:
            obj["severity"] = self.severity
        if self.observed_generation is not None:
            obj["observedGeneration"] = self.observed_generation
        if self.last_transition_time is not None:
            obj["lastTransitionTime"] = render_time(self.last_transition_time)
        obj["reason"] = self.reason
        obj["message"] = self.message
        return obj


def parse_time(value: object) -> datetime | None:
    """An RFC 3339 time as an aware datetime in UTC, or None when it is not one."""
    if not isinstance(value, str):
        return None
    try:
        parsed = datetime.fromisoformat(value)
    except ValueError:
        return None
    return (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).astimezone(UTC)


def render_time(value: datetime) -> str:
    """RFC 3339 in UTC with whole seconds, as metav1.Time is written."""
    return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def conditions_of(obj: dict[str, Any]) -> tuple[Condition, ...]:
    """The conditions in ``status.conditions`` of an object; none is an empty tuple."""
    status = obj.get("status") or {}
    return tuple(Condition.from_obj(item) for item in status.get("conditions") or ())


def find(conditions: Iterable[Condition], type_: str) -> Condition | None:
    """The condition of this type, or None."""
    return next((item for item in conditions if item.type == type_), None)


def is_true(conditions: Iterable[Condition], type_: str, *, generation: int | None = None) -> bool:
    """Whether this condition is True and, where ``generation`` is given, was observed at it or later."""
    found = find(conditions, type_)
    if found is None or found.status != Status.TRUE:
        return False
    return generation is None or found.observed_generation is None or found.observed_generation >= generation


def is_false(conditions: Iterable[Condition], type_: str) -> bool:
    """Whether this condition is there and False (absent and Unknown are neither)."""
    found = find(conditions, type_)
    return found is not None and found.status == Status.FALSE


def set_condition(conditions: Sequence[Condition], cond: Condition, now: datetime) -> tuple[Condition, ...]:
    """Put ``cond`` among ``conditions`` by metav1's rule.

    The stored time is kept unless the status changes, and then becomes ``cond``'s own time or ``now``. The
    position of an existing condition is kept; a new one goes last.
    """
    old = find(conditions, cond.type)
    since = cond.last_transition_time or now
    if old is None:
        return (*conditions, replace(cond, last_transition_time=since))
    if old.status == cond.status and old.last_transition_time is not None:
        since = old.last_transition_time
    new = replace(cond, last_transition_time=since)
    return tuple(new if item.type == cond.type else item for item in conditions)


def remove_condition(conditions: Sequence[Condition], type_: str) -> tuple[Condition, ...]:
    """``conditions`` without the one of this type."""
    return tuple(item for item in conditions if item.type != type_)


@dataclass(frozen=True, slots=True)
class LivingSet:
    """Knative's living condition set: dependents that together make ``happy``.

    Marking a dependent recomputes ``happy``; nothing else sets it, except ``mark`` on ``happy`` itself, which a
    heartbeat may use and which leaves the dependents alone. Source of the semantic: knative.dev/pkg/apis, as
    Karpenter v0.29 uses it.
    """

    dependents: tuple[str, ...]
    happy: str = READY

    def mark(
        self,
        conditions: Sequence[Condition],
        type_: str,
        status: str,
        now: datetime,
        *,
        reason: str = "",
        message: str = "",
    ) -> tuple[Condition, ...]:
        """Set one condition and derive ``happy``.

        True on a dependent recomputes ``happy`` from all; False makes it False with the same reason and
        message; Unknown makes it Unknown unless a dependent is False.
        """
        counted = type_ == self.happy or type_ in self.dependents
        severity = "" if counted else "Info"
        new = Condition(type_, status, reason, message, now, severity=severity)
        result = _put_living(conditions, new, now)
        if type_ not in self.dependents:
            return result
        return _put_living(result, self._derived(result, new), now)

    def initialize(self, conditions: Sequence[Condition], now: datetime) -> tuple[Condition, ...]:
        """Every dependent and ``happy`` present, as Unknown where they were not."""
        result = tuple(conditions)
        for type_ in (*self.dependents, self.happy):
            if find(result, type_) is None:
                result = _put_living(result, Condition(type_, Status.UNKNOWN), now)
        return result

    def clear(self, conditions: Sequence[Condition], type_: str) -> tuple[Condition, ...]:
        """Without this condition.

        Raises:
            ValueError: the type is a dependent or ``happy``; a living set is never without these.
        """
        if type_ == self.happy or type_ in self.dependents:
            raise ValueError(f"{type_} belongs to the living set and cannot be cleared")
        return remove_condition(conditions, type_)

    def _derived(self, conditions: Sequence[Condition], marked: Condition) -> Condition:
        if marked.status == Status.FALSE:
            return replace(marked, type=self.happy, severity="")
        present = [item for item in conditions if item.type in self.dependents]
        present.sort(key=lambda item: item.last_transition_time or _LONG_AGO, reverse=True)
        for status in (Status.FALSE, Status.UNKNOWN):
            # A dependent that is False explains more than one that is not known; the most recent one is the news.
            worst = next((item for item in present if item.status == status), None)
            if worst is not None:
                return Condition(self.happy, status, worst.reason, worst.message)
        if len(present) < len(self.dependents):
            return Condition(self.happy, Status.UNKNOWN)
        return Condition(self.happy, Status.TRUE)


_LONG_AGO = datetime.min.replace(tzinfo=UTC)

MACHINE_CONDITIONS: Final = LivingSet((MACHINE_LAUNCHED, MACHINE_REGISTERED, MACHINE_INITIALIZED))


def _put_living(conditions: Sequence[Condition], cond: Condition, now: datetime) -> tuple[Condition, ...]:
    """Store by knative's rule: no-op when only the time would differ, else a new time; sorted by type."""
    old = find(conditions, cond.type)
    if old is not None and replace(old, last_transition_time=None) == replace(cond, last_transition_time=None):
        return tuple(conditions)
    others = (item for item in conditions if item.type != cond.type)
    return tuple(sorted((*others, replace(cond, last_transition_time=now)), key=lambda item: item.type))
