"""The lease: what may be asked for, what a record says, and the object on API servers."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from manager.client import Client
from manager.errors import ConfigError, Conflict
from manager.lease import LeaderElection, LeaseLock, Record, may_take
from manager.resources import LEASES

if TYPE_CHECKING:
    from conftest import Server

THEN = datetime(2026, 1, 2, 3, 4, 5, 678, UTC)
NOW = datetime(2027, 1, 1, tzinfo=UTC)
HELD = Record("other", 15, THEN, THEN, 4)


@pytest.mark.acceptance("FW-F14")
@pytest.mark.parametrize(
    ("record", "seen_at", "now", "expected"),
    [
        (Record(), 0, 0, True),
        (replace(HELD, holder=""), 0, 0, True),
        (replace(HELD, holder="me"), 0, 99, True),
        (HELD, 100, 114.9, False),
        (HELD, 100, 115, True),
        (replace(HELD, duration=0), 100, 100, True),
        (replace(HELD, duration=60), 100, 159, False),
    ],
    ids=["no-record", "released", "mine", "held", "expired", "no-duration", "its-own-duration-counts"],
)
def test_the_lease_may_be_taken_when_free_mine_or_expired(
    record: Record, seen_at: float, now: float, expected: bool
) -> None:
    """Only the time since this process saw the record change counts, against the duration in the record."""
    assert may_take(record, "me", seen_at, now) is expected


@pytest.mark.acceptance("FW-F14")
def test_transitions_and_acquisition_change_with_the_holder_only() -> None:
    """Taking over counts a transition and a new time of acquisition; renewing keeps both."""
    election = LeaderElection("l", "n", "me")
    taken = HELD.held_by(election, THEN)
    kept = taken.held_by(election, NOW)

    assert (taken.holder, taken.transitions, taken.acquired) == ("me", 5, THEN)
    assert (kept.transitions, kept.acquired, kept.renewed) == (5, THEN, NOW)


def test_others_never_think_that_a_lease_ends_sooner_than_its_holder_does() -> None:
    """The record has whole seconds: they are rounded up."""
    election = LeaderElection("l", "n", "me", lease_duration=2.4, renew_deadline=1, retry_period=0.2)

    assert HELD.held_by(election, NOW).duration == 3


@pytest.mark.acceptance("FW-F15")
@pytest.mark.parametrize(
    "spec",
    [
        {
            "holderIdentity": "a",
            "leaseDurationSeconds": 15,
            "acquireTime": "2026-01-02T03:04:05.000678Z",
            "renewTime": "2026-01-02T03:04:06.000000Z",
            "leaseTransitions": 3,
        },
        {
            "holderIdentity": "",
            "leaseDurationSeconds": 1,
            "leaseTransitions": 0,
            "strategy": "OldestEmulationVersion",
            "preferredHolder": "b",
        },
    ],
    ids=["held", "with-fields-of-others"],
)
def test_a_record_survives_the_way_there_and_back(spec: dict[str, Any]) -> None:
    """Spec to record to spec loses nothing, fields that are not ours included."""
    assert Record.from_spec(spec).to_spec() == spec


@pytest.mark.acceptance("FW-F15")
def test_what_other_programs_write_is_read() -> None:
    """Absent and null fields, times without fractions, and times that are none."""
    spec = {"holderIdentity": None, "renewTime": "2026-01-01T00:00:00Z", "acquireTime": "yesterday"}

    assert Record.from_spec(spec) == Record(renewed=datetime(2026, 1, 1, tzinfo=UTC))


@pytest.mark.acceptance("FW-F18")
@pytest.mark.parametrize(
    ("times", "words"),
    [
        ((10, 10, 2), "lease_duration (10 s) > renew_deadline (10 s)"),
        ((10, 11, 2), "gives up before a rival takes over"),
        ((15, 10, 9), "renew_deadline (10 s) > retry_period x 1.2 (10.8 s)"),
        ((15, 10, 0), "greater than zero"),
        ((15, 0, 2), "greater than zero"),
        ((0, 10, 2), "greater than zero"),
        ((15, -1, 2), "greater than zero"),
    ],
)
def test_times_that_would_allow_two_leaders_are_refused(times: tuple[float, float, float], words: str) -> None:
    """lease > renew deadline > retry x 1.2, all above zero; the message names the values."""
    with pytest.raises(ConfigError, match=re.escape(words)):
        LeaderElection("l", "n", "me", *times)


@pytest.mark.acceptance("FW-F18")
@pytest.mark.parametrize(("name", "identity", "words"), [("", "me", "name of a lease"), ("l", "", "identity")])
def test_a_lease_without_a_name_or_a_signature_is_refused(name: str, identity: str, words: str) -> None:
    """Both are needed."""
    with pytest.raises(ConfigError, match=words):
        LeaderElection(name, "n", identity)


@pytest.mark.acceptance("FW-F09")
def test_the_namespace_is_the_pods_own_or_has_to_be_named(tmp_path: Path) -> None:
    """It comes from the service account's file; without one the error says what to do."""
    file = tmp_path / "namespace"
    with pytest.raises(ConfigError, match=r"needs a namespace for the lease l.*name one"):
        LeaderElection("l", namespace_file=file)
    file.write_text("kaito-system\n")

    assert LeaderElection("l", namespace_file=file).namespace == "kaito-system"
    assert LeaderElection("l", "mine", namespace_file=file).namespace == "mine"


def test_identities_are_unique_and_name_the_host() -> None:
    """<host>_<uuid>: two processes of one host never take each other's lease for their own."""
    first, second = LeaderElection("l", "n"), LeaderElection("l", "n")

    assert re.fullmatch(r".+_[0-9a-f-]{36}", first.identity)
    assert first.identity != second.identity


@pytest.mark.parametrize(("deadline", "expected"), [(10.0, 5.0), (1.5, 1.0)])
def test_a_request_may_take_half_the_renew_deadline(deadline: float, expected: float) -> None:
    """But a second at least."""
    election = LeaderElection("l", "n", "me", renew_deadline=deadline, retry_period=0.2)

    assert election.request_timeout == expected


@pytest.mark.acceptance("FW-F09")
async def test_labels_are_set_on_the_lease_and_those_of_others_stay(api_server: Server, namespace: str) -> None:
    """On create and on update; an update of an old version is a conflict."""
    async with Client(api_server.config) as client:
        plain = LeaseLock(client, LeaderElection("l", namespace, "a", labels={"app": "kaito"}))
        created = await plain.create(Record("a", 15, NOW, NOW))
        await client.patch(LEASES, "l", {"metadata": {"labels": {"team": "x"}}}, namespace=namespace)
        lock = LeaseLock(client, LeaderElection("l", namespace, "a", labels={"tier": "1"}))
        with pytest.raises(Conflict):
            await lock.update(created, Record("a", 15, NOW, NOW))
        stored = await lock.update(await lock.get(), Record("b", 16, NOW, THEN, 1))

    assert created["metadata"]["labels"] == {"app": "kaito"}
    assert stored["metadata"]["labels"] == {"app": "kaito", "team": "x", "tier": "1"}
    assert Record.from_spec(stored["spec"]) == Record("b", 16, NOW, THEN, 1)
