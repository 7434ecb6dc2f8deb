"""A manager that works only while it leads, on API servers."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from manager.client import Client
from manager.errors import ManagerError
from manager.lease import LeaderElection
from manager.manager import LeaderLost, Manager
from manager.resources import EVENTS_V1, LEASES

if TYPE_CHECKING:
    from conftest import Server

METRIC = "leader_election_master_status"


async def forever() -> None:
    await asyncio.Event().wait()


def election(namespace: str, who: str = "me", **options: Any) -> LeaderElection:
    fast = {"lease_duration": 3.0, "renew_deadline": 2.0, "retry_period": 0.2, **options}
    return LeaderElection("l", namespace, who, **fast)


def make(server: Server, *args: Any, **options: Any) -> Manager:
    return Manager(server.config, leader_election=election(*args, **options), metrics_bind="0")


@asynccontextmanager
async def running(manager: Manager) -> AsyncIterator[asyncio.Task[None]]:
    """The manager leads at the start of the block and is stopped after it."""
    stop = asyncio.Event()
    task = asyncio.create_task(manager.run(stop))
    try:
        async with asyncio.timeout(20):
            await manager.elected.wait()
        yield task
    finally:
        stop.set()
        await asyncio.wait({task})


async def steal(client: Client, namespace: str) -> None:
    stolen = {"holderIdentity": "thief", "leaseDurationSeconds": 60}
    await client.patch(LEASES, "l", {"spec": stolen}, namespace=namespace)


@pytest.mark.acceptance("FW-F06", "FW-F09", "FW-F10")
async def test_the_lease_is_given_back_after_all_work_has_ended(api_server: Server, namespace: str) -> None:
    """While a runnable of any group cleans up the lease is held; after the run it is free, its labels on it."""
    before = set(threading.enumerate())
    manager = make(api_server, namespace, labels={"app": "kaito"})
    holders: list[str] = []

    async with Client(api_server.config) as client:

        async def holder() -> str:
            lease = await client.get(LEASES, "l", namespace)
            assert lease["metadata"]["labels"] == {"app": "kaito"}
            return str(lease["spec"].get("holderIdentity", ""))

        async def work() -> None:
            try:
                await forever()
            finally:
                await asyncio.sleep(0.1)
                holders.append(await holder())

        manager.add(work, name="work")
        manager.add(work, name="others", needs_leader=False)
        async with running(manager) as task:
            assert manager.metrics.get_sample_value(METRIC, {"name": "l"}) == 1
        await task
        holders.append(await holder())

    assert holders == ["me", "me", ""]
    async with asyncio.timeout(5):
        while any(t.name.startswith("leader-") for t in set(threading.enumerate()) - before):
            await asyncio.sleep(0.01)  # the fence's thread ends a moment after it was told to
    assert manager.metrics.get_sample_value(METRIC, {"name": "l"}) == 0
    assert not manager.elected.is_set()


@pytest.mark.acceptance("FW-F09")
async def test_a_lease_that_is_not_to_be_released_runs_out(api_server: Server, namespace: str) -> None:
    """Without release_on_cancel the next leader waits for it."""
    async with running(make(api_server, namespace, release_on_cancel=False)) as task:
        pass
    await task
    async with Client(api_server.config) as client:
        lease = await client.get(LEASES, "l", namespace)

    assert lease["spec"]["holderIdentity"] == "me"


@pytest.mark.acceptance("FW-F06")
async def test_work_that_does_not_end_keeps_the_lease(api_server: Server, namespace: str) -> None:
    """When the graceful timeout is over nobody else may lead before the lease has run out."""
    long = election(namespace, lease_duration=60.0)  # the fence of this process must not fall in this test
    manager = Manager(api_server.config, leader_election=long, metrics_bind="0", graceful_timeout=0.1)
    let_go = asyncio.Event()

    async def stubborn() -> None:
        while not let_go.is_set():
            try:
                await let_go.wait()
            except asyncio.CancelledError:
                continue

    manager.add(stubborn, name="stubborn")
    async with running(manager) as task:
        pass
    with pytest.raises(ManagerError, match="did not stop within"):
        await task
    async with Client(api_server.config) as client:
        lease = await client.get(LEASES, "l", namespace)
    let_go.set()

    assert lease["spec"]["holderIdentity"] == "me"


@pytest.mark.acceptance("FW-F07")
async def test_a_lost_lease_ends_the_manager_without_grace(api_server: Server, namespace: str) -> None:
    """The work is told to end as soon as another holder is seen, nobody waits for it, and the error says why."""
    manager = make(api_server, namespace)
    cancelled, let_go = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        try:
            await forever()
        finally:
            cancelled.set()
            await let_go.wait()

    manager.add(work, name="work")
    async with running(manager) as task, Client(api_server.config) as client:
        await steal(client, namespace)
        async with asyncio.timeout(1.5):
            await cancelled.wait()
        with pytest.raises(LeaderLost):
            await task
        lease = await client.get(LEASES, "l", namespace)
    let_go.set()

    assert lease["spec"]["holderIdentity"] == "thief"
    assert manager.metrics.get_sample_value(METRIC, {"name": "l"}) == 0
    assert not manager.elected.is_set()


@pytest.mark.acceptance("FW-F07")
async def test_a_lease_lost_while_stopping_ends_the_wait(api_server: Server, namespace: str) -> None:
    """The grace of a stop is not for a process that leads no more."""
    manager = make(api_server, namespace)
    let_go = asyncio.Event()

    async def stubborn() -> None:
        try:
            await forever()
        finally:
            await let_go.wait()

    manager.add(stubborn, name="stubborn", needs_leader=False)
    stop = asyncio.Event()
    task = asyncio.create_task(manager.run(stop))
    await manager.elected.wait()
    stop.set()
    async with Client(api_server.config) as client:
        await steal(client, namespace)
    async with asyncio.timeout(3):
        with pytest.raises(LeaderLost):
            await task
    let_go.set()


@pytest.mark.acceptance("FW-F08", "FW-F13")
async def test_a_standby_that_stops_never_leads(api_server: Server, namespace: str) -> None:
    """It warms up and serves, what needs leadership does not start, and the rival keeps its lease."""
    spec = {"holderIdentity": "rival", "leaseDurationSeconds": 60}
    started: list[str] = []

    async def note(what: str) -> None:
        started.append(what)
        if what == "work":
            raise AssertionError("a standby works")

    async with Client(api_server.config) as client:
        await client.create(LEASES, {"metadata": {"name": "l", "namespace": namespace}, "spec": spec})
        manager = make(api_server, namespace)
        warm = asyncio.Event()

        async def warmup() -> None:
            started.append("warm-up")
            warm.set()

        manager.add(lambda: note("work"), name="work", warmup=warmup)
        manager.add(lambda: note("other"), name="other", needs_leader=False)
        stop = asyncio.Event()
        task = asyncio.create_task(manager.run(stop))
        async with asyncio.timeout(5):
            await warm.wait()
        assert manager.probes.ready["cache"]() is None
        # The lease becomes free at the very moment of the stop.
        stop.set()
        free = {"holderIdentity": "", "leaseDurationSeconds": 1}
        await client.patch(LEASES, "l", {"spec": free}, namespace=namespace)
        await task
        lease = await client.get(LEASES, "l", namespace)

    assert started == ["other", "warm-up"]
    assert not manager.elected.is_set()
    assert lease["spec"].get("holderIdentity", "") == ""


async def test_leadership_is_told_in_events(api_server: Server, namespace: str) -> None:
    """About the Lease: who became leader, who stopped leading."""
    async with running(make(api_server, namespace)) as task:
        pass
    await task
    async with Client(api_server.config) as client:
        events = (await client.list(EVENTS_V1, namespace)).items

    told = sorted(event["metadata"]["name"] for event in events)
    notes = [next(e["note"] for e in events if e["metadata"]["name"] == name) for name in told]
    assert notes == ["me became leader", "me stopped leading"]
    assert {(e["reason"], e["regarding"]["kind"], e["regarding"]["name"]) for e in events} == {
        ("LeaderElection", "Lease", "l")
    }


async def test_an_elected_manager_is_followed_by_the_next_within_two_seconds(
    api_server: Server, namespace: str
) -> None:
    """With the default times: a standby hears of the release and does not wait for its next poll."""
    loop = asyncio.get_running_loop()
    times = {"lease_duration": 15.0, "renew_deadline": 10.0, "retry_period": 2.0}
    second = make(api_server, namespace, "second", **times)
    stop = asyncio.Event()
    async with running(make(api_server, namespace, "first", **times)) as first:
        task = asyncio.create_task(second.run(stop))
        while not second._elector._started.is_set():
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.3)
        assert not second.elected.is_set()
    await first
    stopped = loop.time()
    async with asyncio.timeout(5):
        await second.elected.wait()
    took = loop.time() - stopped
    stop.set()
    await task

    assert took < 2
