"""The sweep on real objects: an API server, the real SDK, and a wall clock that the test moves."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from controllers import MachineSettings
from controllers.machine.metered import MeteredProvider
from controllers.machine.setup import ServedKinds
from kaito.local.fakearm import Rules
from manager.errors import NotFound
from manager.manager import Manager
from manager.resources import NODES

pytestmark = pytest.mark.timeout(120)


class Stepper:
    """Moves the clock and sweeps, as time would."""

    def __init__(self, fleet: Any) -> None:
        self._fleet = fleet

    async def minutes(self, mgr: Any, count: int) -> None:
        """Let so many minutes pass, with a pass after every second one and at the end."""
        while count > 0:
            self._fleet.clock.forward(minutes=min(count, 2))
            count -= 2
            await mgr.sweeper.sweep()


@pytest.fixture
def stepper(fleet: Any) -> Stepper:
    return Stepper(fleet)


def with_sweeper(fleet: Any) -> Any:
    """An operator whose sweep the test runs by hand."""
    mgr = Manager(fleet.config, metrics_bind="0", health_bind="0")
    settings = MachineSettings(clock=fleet.clock, kinds_poll=0.2)
    served = ServedKinds(mgr, MeteredProvider(fleet.provider(), mgr.metrics), settings)
    mgr.add(served.run, name="machine-kinds", needs_leader=False)
    mgr.sweeper = served.sweeper  # type: ignore[attr-defined]
    return mgr


class Running:
    """``async with Running(manager)``."""

    def __init__(self, mgr: Any) -> None:
        self.mgr, self._stop = mgr, asyncio.Event()

    async def __aenter__(self) -> Any:
        self._task = asyncio.create_task(self.mgr.run(self._stop))
        await self.mgr.elected.wait()
        return self.mgr

    async def __aexit__(self, *exc: object) -> None:
        self._stop.set()
        await self._task


@pytest.mark.acceptance(
    "PV-instance-gc-with-provider-id", "PV-gc-orphan-pools", "PV-node-no-claim", "PV-gc-leaked"
)
async def test_a_pool_whose_claim_was_torn_away_is_collected(fleet: Any, stepper: Stepper) -> None:
    """Somebody strips the finalizer: pool and node are left, and go after the grace, the node without a drain."""
    azure = await fleet.cloud(Rules(create_seconds=0.05, delete_seconds=0.05))
    async with Running(with_sweeper(fleet)) as mgr:
        kept, torn = await fleet.claim(), await fleet.claim()
        pools = {name: fleet.pool(name, await fleet.becomes(name, "True")) for name in (kept, torn)}
        node = (await fleet.get(torn))["status"]["nodeName"]
    # With no operator at work, so that nothing but the sweep can find it.
    await fleet.client.delete(fleet.kind, torn)
    await fleet.client.patch(fleet.kind, torn, {"metadata": {"finalizers": None}})

    async with Running(with_sweeper(fleet)) as mgr:
        await stepper.minutes(mgr, 4)
        assert pools[torn] in azure.arm.pools.pools
        await stepper.minutes(mgr, 6)
        await fleet.eventually(lambda: only(azure, pools[kept]))
        await stepper.minutes(mgr, 10)
        await fleet.eventually(lambda: missing(fleet, node))

    assert (await fleet.get(kept))["metadata"].get("deletionTimestamp") is None


async def only(azure: Any, pool: str) -> bool:
    return list(azure.arm.pools.pools) == [pool]


async def missing(fleet: Any, node: str) -> bool:
    try:
        await fleet.client.get(NODES, node)
    except NotFound:
        return True
    return False


@pytest.mark.acceptance("PV-gc-not-ready-11", "PV-gc-not-ready-9", "PV-repair-replaces")
async def test_a_node_that_stays_away_costs_its_claim(fleet: Any, stepper: Stepper) -> None:
    """NotReady for nine minutes: nothing; for eleven: the claim goes the ordinary way, with pool and node."""
    azure = await fleet.cloud(Rules(create_seconds=0.05, delete_seconds=0.05))
    async with Running(with_sweeper(fleet)) as mgr:
        name = await fleet.claim()
        ready = await fleet.becomes(name, "True")
        await stepper.minutes(mgr, 20)
        await fleet.report(ready["status"]["nodeName"], "Unknown")
        since = (datetime.now(UTC) + fleet.clock.ahead).strftime("%Y-%m-%dT%H:%M:%SZ")
        await transition(fleet, ready["status"]["nodeName"], since)
        await fleet.becomes(name, "False", "NodeNotReady")
        await stepper.minutes(mgr, 9)
        assert (await fleet.get(name))["metadata"].get("deletionTimestamp") is None
        await stepper.minutes(mgr, 2)
        await fleet.leaves(name)

    assert azure.arm.pools.pools == {}


async def transition(fleet: Any, node: str, at: str) -> None:
    """The node's Ready condition says since when, by the test's clock."""
    condition = {
        "type": "Ready",
        "status": "Unknown",
        "reason": "Played",
        "message": "played",
        "lastHeartbeatTime": at,
        "lastTransitionTime": at,
    }
    await fleet.client.patch(NODES, node, {"status": {"conditions": [condition]}}, subresource="status")


@pytest.mark.acceptance("PV-gc-pool-deleted")
async def test_a_pool_deleted_by_hand_is_noticed(fleet: Any, stepper: Stepper) -> None:
    """The pool is gone and its node stops reporting: after the grace the claim goes, and nothing is left."""
    azure = await fleet.cloud(Rules(create_seconds=0.05, delete_seconds=0.05))
    async with Running(with_sweeper(fleet)) as mgr:
        name = await fleet.claim()
        ready = await fleet.becomes(name, "True")
        azure.arm.pools.pools.clear()
        await fleet.report(ready["status"]["nodeName"], "Unknown")
        await fleet.becomes(name, "False", "NodeNotReady")
        await stepper.minutes(mgr, 4)
        assert (await fleet.get(name))["metadata"].get("deletionTimestamp") is None
        await stepper.minutes(mgr, 6)
        await fleet.leaves(name)
        await fleet.eventually(lambda: missing(fleet, ready["status"]["nodeName"]))


@pytest.mark.acceptance("PV-liveness-unregistered-past-ttl")
async def test_a_node_that_never_joins_costs_its_claim(fleet: Any) -> None:
    """Fifteen minutes after the launch the claim is given up, with its pool."""
    azure = await fleet.cloud(Rules(create_seconds=0.05, delete_seconds=0.05))
    fleet.joins = False
    async with Running(with_sweeper(fleet)):
        name = await fleet.claim()
        await fleet.becomes(name, "True", None, "Launched")
        fleet.clock.forward(minutes=16)
        # Any change of the claim wakes its reconcile; its own timer runs on real time.
        await fleet.client.patch(fleet.kind, name, {"metadata": {"annotations": {"touched": "1"}}})
        await fleet.leaves(name)

    assert azure.arm.pools.pools == {}
    assert fleet.clock.ahead == timedelta(minutes=16)
