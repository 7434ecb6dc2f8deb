"""The stand-in of Azure as `kaito up --cloud fake-azure` runs it: its memory, and who plays its machines."""

from __future__ import annotations

import asyncio
import json
import stat
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from kaito.errors import CliError
from kaito.local.azure_env import environment
from kaito.local.cluster import Cluster, Options, choose_ports
from kaito.local.fakearm import FakeArm, Rules
from kaito.local.fakearm.command import load_rules
from kaito.local.fakearm.machines import LocalMachines, instance_body
from kaito.local.fakearm.nodes import node_object
from kaito.local.node.cloud import Cloud
from kaito.local.node.cloud_api import cloud_app
from provisioner import InstanceState
from provisioner.azure import AzureProvider, AzureSettings

NODE = node_object(
    "kabc",
    {
        "vmSize": "Standard_NC48ads_A100_v4",
        "nodeLabels": {"kaito.sh/workspace": "w"},
        "nodeTaints": ["sku=gpu:NoSchedule"],
    },
    subscription="s",
    node_group="MC_g_c_eastus",
    location="eastus",
)


async def test_a_restarted_stand_in_goes_on(certificates: Any, azure_with: Any, ask: Any, tmp_path: Path) -> None:
    """Pools, an operation under way and the tokens are there again; the operation then ends; its node comes."""
    file, pair, nodes = tmp_path / "state.json", certificates.server, []

    async def on_node(event: str, node: Any) -> None:
        nodes.append((event, node["metadata"]["name"]))

    def stand_in(port: int = 0, seconds: float | None = None) -> FakeArm:
        rules = Rules(create_seconds=seconds, delete_seconds=0)
        return FakeArm(pair.certificate, pair.key, rules=rules, on_node=on_node, port=port, state=file)

    azure = await azure_with()
    async with stand_in() as arm:
        arm.identity.tokens.add("static")
        port = int(arm.url.rpartition(":")[2])
        settings = replace(azure.settings, endpoint=arm.url)
        provider = AzureProvider(settings, credential=azure.provider()._make_credential)
        started = await provider.create(ask(provider))
    assert stat.S_IMODE(file.stat().st_mode) == 0o600

    async with stand_in(port, 0.01) as arm:
        async with asyncio.timeout(10):
            while (
                found := await provider.resume(started.name, started.operation)
            ).state is InstanceState.CREATING:
                await asyncio.sleep(0.01)
        again = await provider.create(ask(provider, uid="another"))
        assert arm.pools.operations[sorted(arm.pools.operations)[-1]].id == "op-000002"
    await provider.close()

    assert found.state is InstanceState.RUNNING
    assert nodes[0][0] == "added"
    assert again.name != started.name


async def test_a_damaged_memory_is_an_empty_one(certificates: Any, tmp_path: Path, caplog: Any) -> None:
    """It starts, says so, and has no pools."""
    file, pair = tmp_path / "state.json", certificates.server
    file.write_text("{")
    async with FakeArm(pair.certificate, pair.key, state=file) as arm:
        assert arm.pools.pools == {}
    assert "cannot be read" in caplog.text


@pytest.fixture
async def agent(tmp_path: Path) -> AsyncIterator[tuple[Cloud, LocalMachines]]:
    """The node agent's local cloud on its real wire, and the machines that it plays."""
    (tmp_path / "token").write_text("secret")
    cloud = Cloud(tmp_path / "instances.json", 0.0, lambda: 0.0)
    runner = web.AppRunner(cloud_app(cloud, "secret", lambda: True))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    port = runner.addresses[0][1]
    async with LocalMachines(f"http://127.0.0.1:{port}", tmp_path / "token") as machines:
        yield cloud, machines
    await runner.cleanup()


async def test_a_machine_is_the_agents_instance_under_its_azure_name(agent: Any) -> None:
    """The node that the agent registers has AKS's labels, taints and providerID; it goes when the pool goes."""
    cloud, machines = agent
    await machines.on_node("added", NODE)
    await machines.on_node("added", NODE)  # after a restart, once more
    (instance,) = cloud._instances.values()
    assert instance["name"] == NODE["metadata"]["name"]
    assert instance["providerID"] == NODE["spec"]["providerID"]
    assert instance["labels"]["kubernetes.azure.com/agentpool"] == "kabc"
    assert instance["taints"] == [{"key": "sku", "value": "gpu", "effect": "NoSchedule"}]
    assert instance["capacity"] == {"nvidia.com/gpu": "2"}

    left: list[str] = []

    async def leave(instance: Any) -> None:
        left.append(instance["name"])

    async def join(instance: Any) -> None:
        """It is registered at once."""

    running = asyncio.create_task(cloud.run(join, leave))
    await machines.on_node("deleted", NODE)
    running.cancel()
    assert left == [NODE["metadata"]["name"]]


async def test_an_agent_that_is_away_is_waited_for(tmp_path: Path, caplog: Any) -> None:
    """The operation takes as long as it takes; nothing breaks."""
    (tmp_path / "token").write_text("secret")
    async with LocalMachines("http://127.0.0.1:9", tmp_path / "token") as machines:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await machines.on_node("added", NODE)


def test_a_size_that_nobody_knows_has_a_gpu_by_its_name() -> None:
    """An N size of tomorrow has one GPU, any other none."""
    node = json.loads(json.dumps(NODE))
    for size, gpus in (("Standard_NC1_v9", {"nvidia.com/gpu": "1"}), ("Standard_D4s_v9", {})):
        node["metadata"]["labels"]["node.kubernetes.io/instance-type"] = size
        assert instance_body(node)["capacity"] == gpus


def test_the_settings_are_complete_and_win_over_the_shells(tmp_path: Path) -> None:
    """What points at the stand-in is a whole configuration, whatever else the shell has of Azure."""
    shell = {"AZURE_CREDENTIAL": "managed", "DEPLOYMENT_MODE": "managed", "AZURE_ENVIRONMENT": "AzureChinaCloud"}
    settings = AzureSettings.from_env(shell | environment(tmp_path, 7))
    assert settings.arm == "https://127.0.0.1:7"
    assert (settings.credential, settings.cloud.name) == ("workload", "AzurePublicCloud")
    assert settings.poll_interval == 1


def test_the_processes_of_a_cluster_with_a_stand_in(tmp_path: Path) -> None:
    """The operator runs as it does on Azure; the node agent brings machines up at once: the pool took its time."""
    options = Options.of(tmp_path, node_delay=7, cloud="fake-azure")
    cluster = Cluster(options, choose_ports(options))
    operator = cluster.operator()
    assert "--provider=azure" in operator.argv
    assert not any(flag.startswith("--local-cloud") for flag in operator.argv)
    assert operator.environment["AZURE_RESOURCE_MANAGER_ENDPOINT"] == f"https://127.0.0.1:{cluster.ports.arm}"
    assert "--node-delay=0.0" in cluster.node().argv
    assert "--node-delay=7" in cluster.arm().argv


@pytest.mark.parametrize(
    ("options", "content", "words"),
    [
        ({"cloud": "gcp"}, None, "--cloud gcp: unknown"),
        ({}, "{}", "--faults is for --cloud fake-azure"),
        ({"cloud": "fake-azure"}, "faults: [{verb: put, answer: nonsense}]", "answer nonsense: not one of"),
        ({"cloud": "fake-azure"}, "slow: true", "slow"),
    ],
)
def test_options_that_cannot_be_used(
    tmp_path: Path, options: dict[str, Any], content: str | None, words: str
) -> None:
    """They are told before anything starts, with exit code 2."""
    faults = tmp_path / "faults.yaml"
    if content is not None:
        faults.write_text(content)
    with pytest.raises(CliError) as caught:
        Options.of(tmp_path, **options, faults=faults if content is not None else None)
    assert caught.value.exit_code == 2
    assert words in caught.value.message


def test_operations_of_the_process_end_by_themselves(tmp_path: Path) -> None:
    """A file that says nothing of durations has the usual ones; one that does, keeps them."""
    file = tmp_path / "faults.yaml"
    file.write_text("{create_seconds: 9}")
    assert load_rules(file, 2.0).create_seconds == 9
    rules = load_rules(None, 2.0)
    assert (rules.create_seconds, rules.delete_seconds, rules.retry_after) == (2.0, 1.0, 1)
