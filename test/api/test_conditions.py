"""Conditions change by metav1's rule on a Workspace and by knative's on a Machine."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from api.conditions import (
    MACHINE_CONDITIONS,
    MACHINE_INITIALIZED,
    MACHINE_LAUNCHED,
    MACHINE_REGISTERED,
    READY,
    Condition,
    conditions_of,
    find,
    is_false,
    is_true,
    set_condition,
)

T0 = datetime(2026, 1, 1, tzinfo=UTC)
T1 = T0 + timedelta(minutes=1)
T2 = T0 + timedelta(minutes=2)

# ------------------------------------------------------------------ metav1


def test_time_moves_only_with_the_status() -> None:
    """A new reason or message keeps the transition time; a new status takes the present one."""
    first = set_condition((), Condition("A", "False", "X"), T0)

    second = set_condition(first, Condition("A", "False", "Y", "why"), T1)
    third = set_condition(second, Condition("A", "True", "Z"), T2)

    assert [c.last_transition_time for c in (*first, *second, *third)] == [T0, T0, T2]
    assert second[0].reason == "Y"


def test_order_is_kept_and_new_ones_go_last() -> None:
    """An existing condition keeps its place."""
    conditions = set_condition(set_condition((), Condition("B", "True"), T0), Condition("A", "True"), T0)

    assert [c.type for c in set_condition(conditions, Condition("B", "False"), T1)] == ["B", "A"]


def test_setting_the_same_changes_nothing() -> None:
    """What is already so compares equal, so that the write can be skipped."""
    conditions = set_condition((), Condition("A", "True", "R", "m", observed_generation=3), T0)

    assert set_condition(conditions, Condition("A", "True", "R", "m", observed_generation=3), T1) == conditions


def test_truth_can_be_asked_at_a_generation() -> None:
    """True that was observed at an older generation is not True now."""
    conditions = (Condition("A", "True", observed_generation=1), Condition("B", "False"))

    assert is_true(conditions, "A")
    assert is_true(conditions, "A", generation=1)
    assert not is_true(conditions, "A", generation=2)
    assert not is_true(conditions, "C")
    assert is_false(conditions, "B")
    assert not is_false(conditions, "C")


def test_json_round_trip() -> None:
    """A condition survives being written and read; times have whole seconds in UTC."""
    condition = Condition("A", "False", "R", "m", T1, 4)

    obj = condition.to_obj()

    assert obj["lastTransitionTime"] == "2026-01-01T00:01:00Z"
    assert conditions_of({"status": {"conditions": [obj]}}) == (condition,)
    assert conditions_of({}) == ()


# ------------------------------------------------------------------ knative


def mark(
    conditions: tuple[Condition, ...], type_: str, status: str, now: datetime, reason: str = "", message: str = ""
):
    return MACHINE_CONDITIONS.mark(conditions, type_, status, now, reason=reason, message=message)


def ready(conditions: tuple[Condition, ...]) -> Condition:
    found = find(conditions, READY)
    assert found is not None
    return found


def test_a_any_change_moves_the_time() -> None:
    """A new reason alone restarts the clock, which restarts the registration deadline."""
    first = mark((), MACHINE_REGISTERED, "False", T0, "MachineNotLaunched")

    second = mark(first, MACHINE_REGISTERED, "False", T1, "NodeNotFound")
    third = mark(second, MACHINE_REGISTERED, "False", T2, "NodeNotFound")

    assert find(second, MACHINE_REGISTERED).last_transition_time == T1  # type: ignore[union-attr]
    assert third == second


def test_b_sorted_by_type() -> None:
    """Conditions are stored in the order of their types."""
    conditions = mark(mark((), MACHINE_REGISTERED, "True", T0), MACHINE_INITIALIZED, "True", T0)

    assert [c.type for c in conditions] == ["MachineInitialized", "MachineRegistered", "Ready"]


def test_c_severity() -> None:
    """Dependents and Ready have no severity, anything else is Info."""
    conditions = mark(mark((), MACHINE_LAUNCHED, "True", T0), "MachineDrifted", "False", T0)

    assert {c.type: c.severity for c in conditions} == {
        "MachineLaunched": "",
        "MachineDrifted": "Info",
        "Ready": "",
    }


def test_d_ready_needs_every_dependent() -> None:
    """Ready is Unknown while a dependent is missing and True with the last of them."""
    conditions = mark(mark((), MACHINE_LAUNCHED, "True", T0), MACHINE_REGISTERED, "True", T0)
    assert ready(conditions).status == "Unknown"

    conditions = mark(conditions, MACHINE_INITIALIZED, "True", T1)

    assert ready(conditions).status == "True"


def test_d_the_most_recent_false_wins() -> None:
    """Marking one dependent True shows the newest of those that are still False."""
    conditions = mark((), MACHINE_LAUNCHED, "False", T0, "Old")
    conditions = mark(conditions, MACHINE_REGISTERED, "False", T1, "New", "text")

    conditions = mark(conditions, MACHINE_INITIALIZED, "True", T2)

    assert (ready(conditions).status, ready(conditions).reason, ready(conditions).message) == (
        "False",
        "New",
        "text",
    )


def test_e_false_dependent_makes_ready_false() -> None:
    """Ready takes over the reason and the message."""
    conditions = mark((), MACHINE_LAUNCHED, "False", T0, "LaunchFailed", "no quota")

    assert (ready(conditions).status, ready(conditions).reason, ready(conditions).message) == (
        "False",
        "LaunchFailed",
        "no quota",
    )


def test_f_false_ready_leaves_the_dependents() -> None:
    """A heartbeat may mark Ready itself; nothing else changes."""
    conditions: tuple[Condition, ...] = ()
    for type_ in (MACHINE_LAUNCHED, MACHINE_REGISTERED, MACHINE_INITIALIZED):
        conditions = mark(conditions, type_, "True", T0)

    after = mark(conditions, READY, "False", T1, "NodeNotReady")

    assert ready(after).reason == "NodeNotReady"
    assert [c for c in after if c.type != READY] == [c for c in conditions if c.type != READY]


def test_g_dependents_cannot_be_cleared() -> None:
    """A living set is never without its dependents; other conditions may go."""
    conditions = mark(MACHINE_CONDITIONS.initialize((), T0), "MachineDrifted", "True", T0)

    with pytest.raises(ValueError, match="cannot be cleared"):
        MACHINE_CONDITIONS.clear(conditions, MACHINE_LAUNCHED)

    assert find(MACHINE_CONDITIONS.clear(conditions, "MachineDrifted"), "MachineDrifted") is None


def test_initialized_set_is_unknown() -> None:
    """Every dependent and Ready begin as Unknown."""
    assert {c.type: c.status for c in MACHINE_CONDITIONS.initialize((), T0)} == {
        "MachineInitialized": "Unknown",
        "MachineLaunched": "Unknown",
        "MachineRegistered": "Unknown",
        "Ready": "Unknown",
    }
