"""The life of a manager: order of start and stop, failures, additions, servers (behaviours F)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from manager.client import Client
from manager.config import RestConfig
from manager.errors import ConnectionFailed, ManagerError, NotFound
from manager.leader import LeaderElection
from manager.manager import LeaderLost, Manager
from manager.resources import CONFIGMAPS, LEASES
from manager.testing.scripted import Script, listing

if TYPE_CHECKING:
    from conftest import Server

NOWHERE = RestConfig(server="http://127.0.0.1:1")


async def forever() -> None:
    await asyncio.Event().wait()


@asynccontextmanager
async def running(manager: Manager) -> AsyncIterator[asyncio.Task[None]]:
    """The manager runs during the block and is stopped after it; the test awaits the task for its outcome."""
    stop = asyncio.Event()
    task = asyncio.create_task(manager.run(stop))
    try:
        async with asyncio.timeout(10):
            while not (manager.elected.is_set() or task.done()):
                await asyncio.sleep(0.01)
        yield task
    finally:
        stop.set()
        await asyncio.wait({task})


async def test_fw_f01_caches_are_filled_before_runnables_start(script: Script) -> None:
    """What runs finds the whole list in the store."""
    script.lists = [listing("a", "b")]
    manager = Manager(RestConfig(server=script.url), metrics_bind="0")
    store = manager.cache.informer(CONFIGMAPS).store
    found: list[int] = []

    async def look() -> None:
        found.append(len(store))

    manager.add(look, name="follower", needs_leader=False)
    manager.add(look, name="leader")
    async with running(manager) as task:
        pass
    await task

    assert found == [2, 2]


@pytest.mark.looptime
async def test_fw_f02_the_first_failure_stops_everything_and_is_raised_when_all_have_ended() -> None:
    """The others get to clean up before the error comes out."""
    ended: list[str] = []

    async def tidy() -> None:
        try:
            await forever()
        finally:
            await asyncio.sleep(1)
            ended.append("tidy")

    async def fail() -> None:
        await asyncio.sleep(5)
        raise KeyError("boom")

    manager = Manager(NOWHERE, metrics_bind="0")
    manager.add(tidy, name="tidy")
    manager.add(fail, name="fail")
    with pytest.raises(KeyError, match="boom"):
        await manager.run(asyncio.Event())

    assert ended == ["tidy"]


@pytest.mark.looptime
@pytest.mark.parametrize(("timeout", "error"), [(3.0, True), (0.0, False)], ids=["three-seconds", "no-wait"])
async def test_fw_f04_stopping_takes_no_longer_than_the_graceful_timeout(timeout: float, error: bool) -> None:
    """What has not ended by then is an error that says so; zero does not wait at all, and is none."""
    loop = asyncio.get_running_loop()
    let_go = asyncio.Event()

    async def stubborn() -> None:
        try:
            await forever()
        finally:
            await let_go.wait()

    manager = Manager(NOWHERE, metrics_bind="0", graceful_timeout=timeout)
    manager.add(stubborn, name="stubborn")
    stop = asyncio.Event()
    loop.call_later(10, stop.set)
    if error:
        with pytest.raises(ManagerError, match="did not stop within 3 s"):
            await manager.run(stop)
    else:
        await manager.run(stop)

    assert 10 + timeout <= loop.time() < 10.5 + timeout
    let_go.set()
    await asyncio.sleep(1)


@pytest.mark.looptime
async def test_fw_f05_additions_run_at_once_until_the_manager_stops() -> None:
    """Added while running: started. Added while stopping: refused. A second run: refused."""
    manager = Manager(NOWHERE, metrics_bind="0")
    refused: list[str] = []
    ran = asyncio.Event()

    async def late() -> None:
        ran.set()
        try:
            await forever()
        finally:
            with pytest.raises(ManagerError, match="stops"):
                manager.add(forever, name="too late")
            refused.append("too late")

    async with running(manager) as task:
        manager.add(late, name="late")
        async with asyncio.timeout(1):
            await ran.wait()
        with pytest.raises(ManagerError, match="named late"):
            manager.add(forever, name="late")
    await task

    assert refused == ["too late"]
    with pytest.raises(ManagerError, match="before"):
        await manager.run(asyncio.Event())


async def test_fw_f10_nothing_is_left_running(script: Script) -> None:
    """After the stop no task and no open client remains, also when run() itself is cancelled."""
    before = asyncio.all_tasks()
    for cancel in (False, True):
        script.lists = [listing("a")]
        manager = Manager(RestConfig(server=script.url), health_bind="127.0.0.1:0")
        manager.cache.informer(CONFIGMAPS).add_handler(lambda _: None)
        manager.events("test")
        manager.add(forever, name="work")
        async with running(manager) as task:
            if cancel:
                task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        with pytest.raises(ConnectionFailed, match="closed"):
            await manager.live.get(CONFIGMAPS, "x", "n")

    script.lists = script.watches = []
    ours = [
        task
        for task in asyncio.all_tasks() - before
        if not task.get_coro().__qualname__.startswith(("Request", "Script"))
    ]  # type: ignore[union-attr]
    assert ours == []


async def test_fw_f11_servers_answer_while_it_runs_and_a_port_in_use_is_an_error() -> None:
    """Metrics carry the usual names; ready means running; afterwards nobody listens."""
    manager = Manager(NOWHERE, health_bind="127.0.0.1:0")
    manager.add_readyz("extra", lambda: None)
    async with running(manager) as task:
        assert manager.metrics_address
        assert manager.health_address
        metrics = "{}:{}".format(*manager.metrics_address)
        health = "{}:{}".format(*manager.health_address)
        async with Client(RestConfig(server=f"http://{metrics}")) as client:
            assert "process_resident_memory_bytes" in await client.text("/metrics")
        async with Client(RestConfig(server=f"http://{health}")) as client:
            assert await client.text("/readyz") == "ok"
            assert await client.text("/healthz", query={"verbose": True}) == "[+]ping ok\nhealthz check passed\n"
            with pytest.raises(NotFound):
                await client.text("/readyz/unknown")
            with pytest.raises(ManagerError, match=f"cannot listen on {health}"):
                await Manager(NOWHERE, metrics_bind=health).run(asyncio.Event())
    await task

    async with Client(RestConfig(server=f"http://{health}")) as client:
        with pytest.raises(ConnectionFailed):
            await client.text("/healthz")


async def test_a_cache_that_cannot_be_filled_ends_the_manager(
    script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error names the kind, and what to look at."""
    manager = Manager(RestConfig(server=script.url), metrics_bind="0")
    manager.cache.informer(CONFIGMAPS)
    original = manager.cache.wait_for_sync
    monkeypatch.setattr(manager.cache, "wait_for_sync", lambda: original(0.2))
    with pytest.raises(ManagerError, match="could not list configmaps within"):
        await manager.run(asyncio.Event())


def election(namespace: str, **times: float) -> LeaderElection:
    fast = {"lease_duration": 3.0, "renew_deadline": 2.0, "retry_period": 0.2, **times}
    return LeaderElection("l", namespace, "me", **fast)  # type: ignore[arg-type]


async def test_fw_f06_the_lease_is_given_back_after_all_work_has_ended(api_server: Server, namespace: str) -> None:
    """While a runnable cleans up the lease is still held; after the run it is free."""
    manager = Manager(api_server.config, leader_election=election(namespace), metrics_bind="0")
    holders: list[str] = []

    async with Client(api_server.config) as client:

        async def holder() -> str:
            lease = await client.get(LEASES, "l", namespace)
            return str(lease["spec"].get("holderIdentity", ""))

        async def work() -> None:
            try:
                await forever()
            finally:
                await asyncio.sleep(0.3)
                holders.append(await holder())

        manager.add(work, name="work")
        async with running(manager) as task:
            name = "leader_election_master_status"
            assert manager.metrics.get_sample_value(name, {"name": "l"}) == 1
        await task
        holders.append(await holder())

    assert holders == ["me", ""]


async def test_fw_f07_a_lost_lease_ends_the_manager(api_server: Server, namespace: str) -> None:
    """The work is cancelled as soon as another holder is seen, and the error says why."""
    manager = Manager(api_server.config, leader_election=election(namespace), metrics_bind="0")
    cancelled = asyncio.Event()

    async def work() -> None:
        try:
            await forever()
        finally:
            cancelled.set()

    manager.add(work, name="work")
    async with running(manager) as task, Client(api_server.config) as client:
        stolen = {"holderIdentity": "thief", "leaseDurationSeconds": 60}
        await client.patch(LEASES, "l", {"spec": stolen}, namespace=namespace)
        async with asyncio.timeout(1.5):
            await cancelled.wait()
        with pytest.raises(LeaderLost):
            await task
        lease = await client.get(LEASES, "l", namespace)

    assert lease["spec"]["holderIdentity"] == "thief"


async def test_fw_f08_a_standby_that_stops_never_leads(api_server: Server, namespace: str) -> None:
    """Runnables that need leadership do not start, and the rival keeps its lease."""
    spec = {"holderIdentity": "rival", "leaseDurationSeconds": 60}
    started: list[str] = []

    async def work() -> None:
        started.append("work")

    async with Client(api_server.config) as client:
        await client.create(LEASES, {"metadata": {"name": "l", "namespace": namespace}, "spec": spec})
        manager = Manager(api_server.config, leader_election=election(namespace), metrics_bind="0")
        manager.add(work, name="work")
        stop = asyncio.Event()
        asyncio.get_running_loop().call_later(0.7, stop.set)
        await manager.run(stop)
        lease = await client.get(LEASES, "l", namespace)

    assert started == []
    assert lease["spec"]["holderIdentity"] == "rival"
