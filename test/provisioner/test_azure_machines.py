"""Machines become AKS nodes: the controller, the real SDK, the stand-in for ARM, and an API server."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from api.crds import crds
from controllers import MachineSettings, add_machine_controller
from controllers.resources import MACHINES, WORKSPACES
from kaito.local.cluster import put
from kaito.local.fakearm import Fault, Rules
from manager.client import Client
from manager.errors import ApiError, NotFound
from manager.manager import Manager
from manager.resources import CRDS, NODES
from provisioner.azure import AzureProvider

Make = Callable[..., Awaitable[Any]]
Json = dict[str, Any]
pytestmark = pytest.mark.timeout(90)


@dataclass
class World:
    """An API server with Machines, a subscription, and what a node does once it is there."""

    client: Client
    azure: Any = None
    gone: int = 0

    async def on_node(self, event: str, node: Json) -> None:
        """Register the node that AKS has made, as a kubelet does; AKS takes it away again."""
        name = node["metadata"]["name"]
        if event == "deleted":
            self.gone += 1
            try:
                await self.client.delete(NODES, name)
            except NotFound:
                pass  # the Machine's way out removes it too
            return
        await self.client.create(NODES, node)
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        ready = {"type": "Ready", "status": "True", "lastHeartbeatTime": now, "lastTransitionTime": now}
        amounts = {"cpu": "6", "memory": "112Gi", "pods": "30", "nvidia.com/gpu": "1"}
        status = {
            "conditions": [{**ready, "reason": "Played", "message": "played"}],
            "capacity": amounts,
            "allocatable": amounts,
        }
        await self.client.patch(NODES, name, {"status": status}, subresource="status")

    async def machine(self, **spec: Any) -> str:
        name = f"ws{uuid.uuid4().hex[:9]}"
        requirement = {"key": "node.kubernetes.io/instance-type", "operator": "In"}
        body = {
            "metadata": {"name": name, "labels": {"kaito.sh/workspace": "w"}},
            "spec": {
                "requirements": [{**requirement, "values": ["Standard_NC6s_v3", "Standard_NC12s_v3"]}],
                "resources": {"requests": {"storage": "100Gi", "nvidia.com/gpu": "1"}},
                "taints": [{"key": "sku", "value": "gpu", "effect": "NoSchedule"}],
                **spec,
            },
        }
        await self.client.create(MACHINES, body)
        return name

    async def becomes(self, name: str, status: str, reason: str = "", kind: str = "Ready") -> Json:
        """Wait for a condition of the Machine; the Machine."""

        async def check() -> Json | None:
            machine = await self.client.get(MACHINES, name)
            for item in (machine.get("status") or {}).get("conditions") or []:
                if item["type"] == kind and (item["status"], item.get("reason", "")) == (status, reason):
                    return machine
            return None

        return await eventually(check)

    async def leaves(self, name: str) -> None:
        async def check() -> bool:
            try:
                await self.client.get(MACHINES, name)
            except NotFound:
                return True
            return False

        await eventually(check)


async def eventually(check: Callable[[], Awaitable[Any]], seconds: float = 30.0) -> Any:
    async with asyncio.timeout(seconds):
        while not (answer := await check()):
            await asyncio.sleep(0.02)
        return answer


@asynccontextmanager
async def operator(config: Any, provider: AzureProvider) -> AsyncIterator[None]:
    """The Machine controller alone, as ``kaito manager --controllers=machine --provider=azure`` runs it."""
    mgr, stop = Manager(config, metrics_bind="0", health_bind="0"), asyncio.Event()
    add_machine_controller(mgr, provider, MachineSettings())
    async with asyncio.TaskGroup() as group:
        group.create_task(mgr.run(stop))
        try:
            yield
        finally:
            stop.set()


@pytest.fixture
async def world(cluster: Any, azure_with: Make) -> AsyncIterator[Callable[[Rules], Awaitable[World]]]:
    async with Client(cluster.config) as client:
        for crd in crds():
            await put(client, CRDS, crd)

        async def served() -> bool:
            try:
                await client.list(MACHINES, limit=1)
                await client.list(WORKSPACES, limit=1)
            except ApiError:
                return False
            return True

        await eventually(served)

        async def make(rules: Rules) -> World:
            made = World(client)
            made.azure = await azure_with(rules, on_node=made.on_node)
            return made

        yield make
        await clean_up(client)


async def clean_up(client: Client) -> None:
    """Leave no Machine and no node to the next test on this cluster."""
    for machine in (await client.list(MACHINES)).items:
        await client.patch(MACHINES, machine["metadata"]["name"], {"metadata": {"finalizers": None}})
        try:
            await client.delete(MACHINES, machine["metadata"]["name"])
        except NotFound:
            pass  # it was only waiting for its finalizer
    for node in (await client.list(NODES, label_selector="agentpool")).items:
        name = node["metadata"]["name"]
        try:
            await client.delete(NODES, name)
            await client.patch(NODES, name, {"metadata": {"finalizers": None}})
        except NotFound:
            pass  # its instance went at this moment


def quick(provider: AzureProvider) -> AzureProvider:
    provider.poll_interval = 0.05
    return provider


async def test_a_machine_becomes_an_aks_node_and_goes_again(cluster: Any, world: Any) -> None:
    """One PUT, one pool called after the Machine's uid, one node that is the Machine's; then nothing is left.

    Takes real time: an API server and its watches are in between.
    """
    w = await world(Rules(create_seconds=0.2, delete_seconds=0.1))
    provider = quick(w.azure.provider())
    async with operator(cluster.config, provider):
        name = await w.machine()
        ready = await w.becomes(name, "True")

        pool = provider.instance_name(name, ready["metadata"]["uid"])
        assert list(w.azure.arm.pools.pools) == [pool]
        node = await w.client.get(NODES, ready["status"]["nodeName"])
        assert ready["status"]["providerID"] == node["spec"]["providerID"]
        assert f"aks-{pool}-" in node["spec"]["providerID"]
        assert node["metadata"]["ownerReferences"][0]["uid"] == ready["metadata"]["uid"]

        await w.client.delete(MACHINES, name)
        await w.leaves(name)

    assert w.azure.arm.pools.pools == {}
    assert w.gone == 1
    counts = w.azure.arm.journal.counts()
    assert (counts["put 201"], counts["delete 202"]) == (1, 1)
    with pytest.raises(NotFound):
        await w.client.get(NODES, ready["status"]["nodeName"])


async def test_a_killed_operator_takes_up_the_pool_of_the_one_before(cluster: Any, world: Any) -> None:
    """The process dies while AKS works; the next one finds the pool by the Machine's uid and makes no other."""
    w = await world(Rules())
    async with operator(cluster.config, quick(w.azure.provider())):
        name = await w.machine()
        await w.becomes(name, "Unknown", "InstanceCreating", "MachineLaunched")

    (pool,) = w.azure.arm.pools.pools
    await w.azure.arm.finish(pool)
    async with operator(cluster.config, quick(w.azure.provider())):
        await w.becomes(name, "True")
        assert len(w.azure.arm.journal.of("put")) == 1

        w.azure.arm.rules.delete_seconds = 0
        await w.client.delete(MACHINES, name)
        await w.leaves(name)


async def test_a_size_without_capacity_gives_way_to_the_next(cluster: Any, world: Any) -> None:
    """The first size fails within its operation: its pool is removed, and the next size is Ready in its place."""
    fault = Fault(verb="create-operation", sku="Standard_NC6s_v3", answer="allocation", times=0)
    w = await world(Rules(create_seconds=0.05, delete_seconds=0.05, faults=[fault]))
    async with operator(cluster.config, quick(w.azure.provider())):
        name = await w.machine()
        told = await w.becomes(name, "False", "CapacityUnavailable")
        message = next(item["message"] for item in told["status"]["conditions"] if item["type"] == "Ready")
        assert "sufficient capacity" in message

        await w.client.patch(MACHINES, name, {"spec": {"resources": {"requests": {"storage": "120Gi"}}}})
        await w.becomes(name, "True")
        (pool,) = w.azure.arm.pools.pools.values()
        assert pool["properties"]["vmSize"] == "Standard_NC12s_v3"

        await w.client.delete(MACHINES, name)
        await w.leaves(name)


async def test_what_will_never_be_allowed_is_asked_once(cluster: Any, world: Any) -> None:
    """The condition says why and what to do; there is one PUT for each size, and no more."""
    fault = Fault(verb="put", answer="not-in-subscription", times=0)
    w = await world(Rules(faults=[fault]))
    async with operator(cluster.config, quick(w.azure.provider())):
        name = await w.machine()
        told = await w.becomes(name, "False", "SkuNotAllowedInSubscription")
        message = next(item["message"] for item in told["status"]["conditions"] if item["type"] == "Ready")
        assert "Ask Azure support" in message
        assert "Next attempt" not in message

        await w.client.patch(MACHINES, name, {"metadata": {"annotations": {"touched": "1"}}})
        await w.client.delete(MACHINES, name)
        await w.leaves(name)

    assert len(w.azure.arm.journal.of("put")) == 2


async def test_the_command_runs_on_upstreams_environment(cluster: Any, world: Any, tmp_path: Path) -> None:
    """`kaito manager --provider=azure` as its own process, with a federated token, makes a node and ends well.

    Takes the start of a process and a second, the least that a Retry-After can be.
    """
    w = await world(Rules(create_seconds=0.1, retry_after=1))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "kaito", "manager", "--controllers=machine", "--provider=azure"),
        *(f"--kubeconfig={cluster.kubeconfig}", "--metrics-bind=0", "--health-bind=0", "--log-level=warning"),
        env={**os.environ, **w.azure.environment(tmp_path)},
    )
    try:
        name = await w.machine()
        await w.becomes(name, "True", "", "MachineLaunched")
        assert w.azure.arm.identity.asked[0]["client_assertion"] == "federated"
        assert len(w.azure.arm.pools.pools) == 1
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
