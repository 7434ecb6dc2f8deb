"""A cause renders to one text that says what is the case and what to do."""

from __future__ import annotations

import re
from string import Formatter

import pytest

from api import reasons
from api.conditions import Condition
from api.reasons import Cause, Reason


@pytest.mark.parametrize("reason", list(Reason))
def test_every_reason_has_a_sentence(reason: Reason) -> None:
    """A reason without facts still renders, and its name is a valid condition reason."""
    assert Cause(reason).render()
    assert reason in reasons._SENTENCES
    assert re.fullmatch(r"[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?", str(reason))


@pytest.mark.parametrize("reason", list(Reason))
def test_facts_appear(reason: Reason) -> None:
    """Whatever facts the sentence names are in the text."""
    names = [name for _, name, _, _ in Formatter().parse(reasons._SENTENCES[reason]) if name]

    text = Cause(reason, {name: f"<{name}>" for name in names}).render()

    assert all(f"<{name}>" in text for name in names)


def test_next_step_ends_the_text() -> None:
    """The cloud's words are kept verbatim and the next step closes the message."""
    cause = Cause(
        Reason.MACHINE_LAUNCH_FAILED,
        {"machine": "ws1", "instance_type": "Standard_NC6s_v3", "error": "QuotaExceeded: 0 of 6 vCPUs left"},
        "Ask for more quota",
    )

    assert cause.render() == (
        "Machine ws1 (Standard_NC6s_v3) was refused by the cloud: QuotaExceeded: 0 of 6 vCPUs left. "
        "Ask for more quota."
    )


def test_further_facts_are_added() -> None:
    """Facts that the sentence does not name are not lost."""
    cause = Cause(Reason.UNKNOWN_PRESET, {"preset": "phi", "asked": 2}, "Did you mean phi-2?")

    assert cause.render() == "There is no preset named 'phi' (asked=2). Did you mean phi-2?"


def test_condition_from_a_cause() -> None:
    """A condition carries the cause's reason and text."""
    condition = Condition.of("ResourceReady", "False", Cause(Reason.WORKLOAD_PENDING, {"ready": 0, "wanted": 1}))

    assert (condition.reason, condition.message) == ("WorkloadPending", "0 of 1 replicas are ready")
