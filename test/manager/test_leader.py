"""Leader election: the pure decision, and two electors on a real API server."""

from __future__ import annotations

import asyncio
import threading
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from manager.client import Client
from manager.config import RestConfig
from manager.errors import ConfigError, ManagerError
from manager.leader import LeaderElection, LeaderElector, may_take, next_spec
from manager.resources import LEASES

if TYPE_CHECKING:
    from conftest import Server

HELD = {"holderIdentity": "other", "leaseDurationSeconds": 15, "leaseTransitions": 4, "acquireTime": "then"}


@pytest.mark.parametrize(
    ("spec", "seen_at", "now", "expected"),
    [
        ({}, 0, 0, True),
        ({**HELD, "holderIdentity": ""}, 0, 0, True),
        ({**HELD, "holderIdentity": "me"}, 0, 99, True),
        (HELD, 100, 114.9, False),
        (HELD, 100, 115, True),
        ({**HELD, "leaseDurationSeconds": None}, 100, 100, True),
    ],
    ids=["no-record", "released", "mine", "held", "expired", "no-duration"],
)
def test_fw_f14_the_lease_may_be_taken_when_free_mine_or_expired(
    spec: dict[str, object], seen_at: float, now: float, expected: bool
) -> None:
    """Only the time since this process saw the record change counts."""
    assert may_take(spec, "me", seen_at, now) is expected


def test_fw_f15_transitions_and_acquire_time_change_with_the_holder_only() -> None:
    """Taking over counts a transition and a new acquire time; renewing keeps both."""
    election = LeaderElection("l", "n", "me")
    moment = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    taken = next_spec(HELD, election, moment)
    kept = next_spec(taken, election, datetime(2027, 1, 1, tzinfo=UTC))

    assert (taken["leaseTransitions"], taken["acquireTime"]) == (5, "2026-01-02T03:04:05.000000Z")
    assert (kept["leaseTransitions"], kept["acquireTime"]) == (5, "2026-01-02T03:04:05.000000Z")
    assert kept["renewTime"] == "2027-01-01T00:00:00.000000Z"


@pytest.mark.parametrize("times", [(10, 10, 2), (15, 10, 9), (15, 10, 0)])
def test_fw_f18_times_that_would_allow_two_leaders_are_refused(times: tuple[float, float, float]) -> None:
    """lease > renew deadline > retry x 1.2 > 0."""
    with pytest.raises(ConfigError):
        LeaderElection("l", "n", "me", *times)


async def test_a_released_lease_passes_to_the_rival_at_once(api_server: Server, namespace: str) -> None:
    """The second elector waits while the first leads, and leads soon after the first stops."""

    def election(who: str) -> LeaderElection:
        return LeaderElection("l", namespace, who, lease_duration=15, renew_deadline=10, retry_period=0.2)

    second = LeaderElector(api_server.config, election("second"))
    async with LeaderElector(api_server.config, election("first")) as first:
        async with asyncio.timeout(10):
            await first.acquired()
        await second.__aenter__()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await second.acquired()
    try:
        async with asyncio.timeout(5):
            await second.acquired()
        async with Client(api_server.config) as client:
            spec = (await client.get(LEASES, "l", namespace))["spec"]
    finally:
        await second.__aexit__(None, None, None)

    assert (spec["holderIdentity"], spec["leaseTransitions"]) == ("second", 1)


async def test_a_leader_that_cannot_renew_gives_up_before_a_rival_may_take_over(
    api_server: Server, namespace: str
) -> None:
    """When somebody else's record stands in the lease, lost() comes within the renew deadline."""
    times = {"lease_duration": 3.0, "renew_deadline": 1.5, "retry_period": 0.2}
    fenced: list[bool] = []
    election = LeaderElection("l", namespace, "first", **times)  # type: ignore[arg-type]
    elector = LeaderElector(api_server.config, election, fence=lambda: fenced.append(True))
    async with elector, Client(api_server.config) as client:
        await elector.acquired()
        lease = await client.get(LEASES, "l", namespace)
        stolen = {**lease["spec"], "holderIdentity": "thief", "leaseDurationSeconds": 60}
        await client.patch(LEASES, "l", {"spec": stolen}, namespace=namespace)
        async with asyncio.timeout(3):
            await elector.lost()

    assert fenced == []


async def test_work_that_does_not_end_is_fenced(api_server: Server, namespace: str) -> None:
    """Having heard of the loss is not enough: until the leader's work has ended the fence stays armed, and falls
    when rivals may take over."""
    times = {"lease_duration": 1.6, "renew_deadline": 1.0, "retry_period": 0.2}
    fenced = threading.Event()
    elector = LeaderElector(
        api_server.config,
        LeaderElection("l", namespace, "first", **times),
        fence=fenced.set,  # type: ignore[arg-type]
    )
    async with elector, Client(api_server.config) as client:
        await elector.acquired()
        stolen = {"holderIdentity": "thief", "leaseDurationSeconds": 60}
        await client.patch(LEASES, "l", {"spec": stolen}, namespace=namespace)
        async with asyncio.timeout(1):  # a rival's name in the record ends it before the renew deadline
            await elector.lost()
        assert not fenced.is_set()
        assert await asyncio.to_thread(fenced.wait, 3)


async def test_an_elector_that_fails_says_so_to_who_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug in the elector's thread must not leave a standby that waits for ever."""
    elector = LeaderElector(RestConfig(server="http://127.0.0.1:1"), LeaderElection("l", "n", "me"))

    async def bug(client: Client) -> bool:
        raise ValueError("bug")

    monkeypatch.setattr(elector, "_take", bug)
    async with asyncio.timeout(5), elector:
        with pytest.raises(ManagerError, match="bug"):
            await elector.acquired()
