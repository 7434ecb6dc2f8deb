"""`kaito audit` on a cluster and a subscription: what it says, what it deletes, and what it never touches."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import generate_latest

from api.crds import crds
from controllers.leaks import add_leak_audit
from controllers.resources import MACHINES
from kaito.audit.run import Request, run
from kaito.clouds import rates
from kaito.errors import CliError
from kaito.local.cluster import put
from kaito.local.fakearm import Fault, Rules
from manager.client import Client
from manager.errors import ApiError, NotFound
from manager.manager import Manager
from manager.resources import CRDS

Make = Callable[..., Awaitable[Any]]
Json = dict[str, Any]
LABELS = {"kaito.sh/workspace": "w"}


@dataclass
class World:
    """A cluster with CRDs and a subscription in which pools can be as old as a test wants."""

    client: Client
    kubeconfig: Path
    azure: Any
    at: list[datetime] = field(default_factory=lambda: [datetime.now(UTC)])
    made: list[str] = field(default_factory=list)

    async def machine(self) -> Json:
        name = f"wsaudit{len(self.made)}"
        self.made.append(name)
        return await self.client.create(MACHINES, {"metadata": {"name": name, "labels": LABELS}, "spec": {}})

    async def pool(self, request: Any, *, hours: float) -> str:
        """One pool of ours, made that long ago."""
        self.at[0] = datetime.now(UTC) - timedelta(hours=hours)
        provider = self.azure.provider()
        await provider.create(request)
        await self.azure.arm.finish(request.name)
        return str(request.name)

    def foreign(self, name: str, **properties: Any) -> None:
        """A pool that somebody else made."""
        pools = self.azure.arm.pools
        created = {"systemData": {"createdAt": "2026-01-01T00:00:00Z"}}
        body = {"vmSize": "Standard_NC6s_v3", "provisioningState": "Succeeded", **properties}
        pools.pools[name] = {"id": pools.path(name), "name": name, "properties": body, **created}

    async def audit(self, **options: Any) -> int:
        return await run(Request(kubeconfig=self.kubeconfig, **options))


@pytest.fixture
async def world(
    api_server: Any, azure_with: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[World]:
    async with Client(api_server.config) as client:
        for crd in crds():
            await put(client, CRDS, crd)
        async with asyncio.timeout(20):
            while True:
                try:
                    await client.list(MACHINES, limit=1)
                    break
                except ApiError:
                    await asyncio.sleep(0.02)
        at = [datetime.now(UTC)]
        azure = await azure_with(Rules(delete_seconds=0), now=lambda: at[0])
        world = World(client, api_server.kubeconfig, azure, at)
        for name, value in azure.environment(tmp_path).items():
            monkeypatch.setenv(name, value)
        yield world
        for name in world.made:
            try:
                await client.delete(MACHINES, name)
            except NotFound:
                pass  # the test deleted it


async def test_audit_says_deletes_and_leaves_alone(
    world: World, ask: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """Only the orphan of ours is a finding, only it is deleted, and then nothing leaks any more."""
    provider = world.azure.provider()
    machine = await world.machine()
    kept = await world.pool(ask(provider, uid=machine["metadata"]["uid"]), hours=9)
    young = await world.pool(ask(provider, uid="young"), hours=0)
    orphan = await world.pool(ask(provider, uid="orphan"), hours=100)
    world.foreign("system")
    world.foreign("copied", tags={"kaito-managed-by": "kaito", "kaito-owner-uid": "another"})

    assert await world.audit() == 1
    told = capsys.readouterr().out
    assert f"InstanceWithoutMachine   {orphan}" in told
    assert "Machine/ws0f3a9c21b" in told
    assert "1 orphaned, 100.0 GPU-hours so far, 3.06 USD per hour." in told
    assert re.search(r"\b3 instances, \d+ Machines?,", told)  # others may have Machines on this server
    assert "(1 too young to judge)" in told
    for name in (kept, young, "system", "copied"):
        assert name not in told

    assert await world.audit(output="json") == 1
    document = json.loads(capsys.readouterr().out)
    assert [item["name"] for item in document["findings"]] == [orphan]
    assert document["orphanedPerHour"] == {"USD": 3.06}
    assert document["orphanedGpuHours"] == pytest.approx(100, abs=0.1)

    with pytest.raises(CliError, match="nobody can be asked") as refused:
        await world.audit(delete=True)
    assert refused.value.exit_code == 2
    assert orphan in world.azure.arm.pools.pools

    world.azure.arm.rules.faults.append(Fault(verb="delete", answer="throttled", retry_after=1))
    assert await world.audit(delete=True, yes=True) == 0
    assert "1 of 1 orphaned instances were deleted." in capsys.readouterr().out
    assert sorted(world.azure.arm.pools.pools) == sorted([kept, young, "system", "copied"])

    assert await world.audit() == 0
    assert capsys.readouterr().out.startswith("Nothing leaks: 2 instances")


async def test_a_machine_that_appears_meanwhile_keeps_its_instance(world: World, ask: Any) -> None:
    """What is deleted is looked at again at the last moment."""
    from controllers.audit import GRACE, audit
    from controllers.settings import utc_now
    from kaito.audit.gather import gather
    from kaito.audit.remove import remove

    provider = world.azure.provider()
    machine = await world.machine()
    name = await world.pool(ask(provider, uid=machine["metadata"]["uid"]), hours=9)
    seen = await gather(provider, world.client)
    stale = audit(type(seen)(provider, seen.instances), utc_now())
    assert [item.name for item in stale.orphans] == [name]

    assert await remove(provider, world.client, stale.orphans, grace=GRACE, timeout=10) == {}
    assert name in world.azure.arm.pools.pools
    assert world.azure.arm.journal.of("delete") == []


async def test_an_audit_that_cannot_be_made_is_no_clean_one(world: World) -> None:
    """A cloud that refuses ends the command with its words and exit code 2, which neither 0 nor 1 can be."""
    world.azure.arm.rules.faults.append(Fault(verb="list", answer="forbidden", times=0))
    with pytest.raises(CliError) as refused:
        await world.audit()
    assert refused.value.exit_code == 2
    assert "AuthorizationFailed" in refused.value.message
    assert "Contributor" in refused.value.next_step


async def test_the_operator_publishes_what_an_audit_finds(world: World, ask: Any, api_server: Any) -> None:
    """A running manager shows the orphan in its metrics, and a failed audit is counted and leaves them."""
    provider = world.azure.provider()
    await world.pool(ask(provider, uid="orphan"), hours=2)
    mgr, stop = Manager(api_server.config, metrics_bind="0", health_bind="0"), asyncio.Event()
    add_leak_audit(mgr, provider, rates(), interval=0.05)
    async with asyncio.TaskGroup() as group:
        group.create_task(mgr.run(stop))
        async with asyncio.timeout(20):
            while "kaito_orphaned_instances 1.0" not in generate_latest(mgr.metrics).decode():
                await asyncio.sleep(0.02)
            world.azure.arm.rules.faults.append(Fault(verb="list", answer="forbidden", times=0))
            while "kaito_leak_audit_failures_total 0.0" in generate_latest(mgr.metrics).decode():
                await asyncio.sleep(0.02)
        text = generate_latest(mgr.metrics).decode()
        stop.set()

    assert 'kaito_orphaned_cost_per_hour{currency="USD"} 3.06' in text
    assert "kaito_orphaned_gpu_hours 2.0" in text
