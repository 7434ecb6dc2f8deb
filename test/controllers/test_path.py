"""From a Workspace to a ready endpoint and back, on real API servers, with hardware played."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from controllers.resources import MACHINES, WORKSPACES
from controllers.workspace.made import machine_name
from manager.errors import NotFound
from manager.resources import DEPLOYMENTS, EVENTS_V1, NODES, PODS, SERVICES
from provisioner.testing import Fault

pytestmark = pytest.mark.timeout(60)


async def test_a_workspace_becomes_a_ready_endpoint(world: Any) -> None:
    """One Machine, one node, a Service and a Deployment whose pod runs there; then all conditions are True."""
    await world.create()
    async with world.operator():
        await world.becomes("WorkspaceReady", "True", "workspaceReady")

    workspace = await world.get()
    (machine,) = await world.machines()
    name = machine["metadata"]["name"]
    assert name == machine_name(world.namespace, "w", workspace["metadata"]["uid"], 0)
    assert world.cloud.creates == [name]
    assert {item["type"]: item["status"] for item in machine["status"]["conditions"]} == {
        "MachineInitialized": "True",
        "MachineLaunched": "True",
        "MachineRegistered": "True",
        "Ready": "True",
    }
    assert machine["status"]["providerID"] == f"local:///instances/{name}"
    assert machine["status"]["capacity"]["nvidia.com/gpu"] == "1"
    assert workspace["status"]["workerNodes"] == [machine["status"]["nodeName"]] == [name]
    assert workspace["status"]["state"] == "Ready"
    node = await world.client.get(NODES, name)
    assert node["metadata"]["labels"]["karpenter.sh/registered"] == "true"
    assert node["metadata"]["labels"]["accelerator"] == "nvidia"
    assert node["metadata"]["ownerReferences"][0]["name"] == name
    service = await world.client.get(SERVICES, "w", world.namespace)
    assert [port["port"] for port in service["spec"]["ports"]] == [80, 29500]
    (pod,) = (await world.client.list(PODS, world.namespace)).items
    assert pod["spec"]["nodeName"] == name


async def test_a_ready_workspace_is_left_in_peace(world: Any) -> None:
    """Once all is well, a restarted operator writes nothing."""
    await world.create()
    async with world.operator():
        await world.becomes("WorkspaceReady", "True")
        await world.becomes("MachineReady", "True")
    before = await _versions(world)

    async with world.operator() as mgr:
        await mgr.elected.wait()
        # The markers come after everything that the restart found: they pass through the same queues.
        await world.create(name="marker", tuning=_tuning())
        await world.becomes("WorkspaceReady", "False", "PlaceholderInSpec", name="marker")

    assert await _versions(world) == before


async def test_deletion_leaves_nothing(world: Any) -> None:
    """Workspace, Machine, instance and node are gone; the namespace's children follow their owner."""
    await world.create()
    async with world.operator():
        await world.becomes("WorkspaceReady", "True")
        (machine,) = await world.machines()
        await world.client.delete(WORKSPACES, "w", world.namespace)
        await world.gone()

    assert await world.machines() == []
    assert world.cloud.instances == {}
    with pytest.raises(NotFound):
        await world.client.get(NODES, machine["metadata"]["name"])
    with pytest.raises(NotFound):
        await world.client.get(DEPLOYMENTS, "w", world.namespace)


async def test_a_refusal_of_the_cloud_is_told_at_once_and_got_over(world: Any) -> None:
    """The cloud's words are in the Workspace's conditions and events; when it relents, the path goes on."""
    fault = Fault("create", "TooManyRequests", "slow down", times=1000, status=429, retry_after=1)
    world.cloud.faults.append(fault)
    await world.create()
    async with world.operator():
        told = await world.becomes("WorkspaceReady", "False", "Throttled")
        assert "slow down" in told["message"]
        assert "waiting for the cloud" in told["message"]
        fault.times = 0
        await world.becomes("WorkspaceReady", "True")
        await _event(world, "w", "Throttled")
    assert len(world.cloud.creates) == 1


async def test_a_creation_that_fails_later_is_cleared_and_tried_again(world: Any) -> None:
    """An instance that ends as Failed is told, deleted, and made anew under the same name."""
    world.cloud.auto = False
    await world.create()
    async with world.operator():
        name = await world.instance()
        await world.cloud.finish(name, {"code": "OperationInProgress", "message": "busy elsewhere"})
        told = await world.becomes("ResourceReady", "False", "OperationInProgress")
        assert "busy elsewhere" in told["message"]
        world.cloud.auto = True
        await world.cloud.finish(name)
        await world.becomes("ResourceReady", "True")
    assert world.cloud.creates == [name, name]
    assert len(await world.machines()) == 1


async def test_nodes_that_exist_are_used_before_new_ones(world: Any) -> None:
    """A labelled GPU node serves without any Machine, and gets the accelerator label."""
    name = f"byo-{world.namespace}"
    await world.add_node(name, {**world.labels, "node.kubernetes.io/instance-type": "Standard_NC6s_v3"})
    await world.create()
    async with world.operator():
        await world.becomes("WorkspaceReady", "True")

    assert await world.machines() == []
    assert world.cloud.creates == []
    assert (await world.client.get(NODES, name))["metadata"]["labels"]["accelerator"] == "nvidia"


async def test_a_node_that_falters_takes_readiness_down_and_back(world: Any) -> None:
    """Readiness follows the node; nobody makes a second one for it."""
    await world.create()
    async with world.operator():
        await world.becomes("WorkspaceReady", "True")
        (name,) = world.cloud.creates
        await world.node_ready(name, "False")
        await world.becomes("WorkspaceReady", "False", "NodeNotReady")
        assert (await world.get())["status"]["state"] == "NotReady"
        await world.node_ready(name)
        await world.becomes("WorkspaceReady", "True")
    assert len(world.cloud.creates) == 1


async def test_a_crashing_server_is_told_with_its_exit_code(world: Any) -> None:
    """InferenceReady stays False while the pod crashes, and says how it ended."""
    ended = {"exitCode": 42, "reason": "Error", "message": "no weights", "startedAt": None, "finishedAt": None}
    world.pods_fail = {"terminated": {key: value for key, value in ended.items() if value is not None}}
    await world.create()
    async with world.operator():
        told = await world.becomes("WorkspaceReady", "False", "CrashLoop")

    assert "exit code 42" in told["message"]
    assert "no weights" in told["message"]


async def test_a_machine_that_is_deleted_by_hand_is_made_anew(world: Any) -> None:
    """The wanted state includes one node: its replacement has the same name, after the old one is gone."""
    await world.create()
    async with world.operator():
        await world.becomes("WorkspaceReady", "True")
        (machine,) = await world.machines()
        await world.client.delete(MACHINES, machine["metadata"]["name"])
        await world.becomes("WorkspaceReady", "False")
        await world.becomes("WorkspaceReady", "True")

    (again,) = await world.machines()
    assert again["metadata"]["name"] == machine["metadata"]["name"]
    assert again["metadata"]["uid"] != machine["metadata"]["uid"]
    assert len(world.cloud.instances) == 1


async def test_a_template_runs_as_its_author_wrote_it(world: Any) -> None:
    """The user's containers run on the node that was made; there is no Service."""
    template = {
        "spec": {"containers": [{"name": "mine", "image": "example.com/x:1", "ports": [{"containerPort": 9}]}]}
    }
    await world.create(inference={"template": template})
    async with world.operator():
        await world.becomes("WorkspaceReady", "True")

    deployment = await world.client.get(DEPLOYMENTS, "w", world.namespace)
    assert deployment["spec"]["template"]["spec"]["containers"][0]["name"] == "mine"
    with pytest.raises(NotFound):
        await world.client.get(SERVICES, "w", world.namespace)


async def test_a_template_that_the_server_refuses_is_told(world: Any) -> None:
    """The API server's own words reach the condition."""
    await world.create(inference={"template": {"spec": {"containers": [{"name": "Not_A_Name"}]}}})
    async with world.operator():
        told = await world.becomes("InferenceReady", "False", "ReconcileFailed")

    assert "Not_A_Name" in told["message"]


async def test_a_foreign_deployment_is_not_taken_over(world: Any) -> None:
    """Somebody's Deployment of the same name stays as it is, and the Workspace says so."""
    pod = {"metadata": {"labels": {"x": "y"}}, "spec": {"containers": [{"name": "c", "image": "example.com/x:1"}]}}
    mine = {
        "metadata": {"name": "w"},
        "spec": {"replicas": 0, "selector": {"matchLabels": {"x": "y"}}, "template": pod},
    }
    await world.client.create(DEPLOYMENTS, mine, namespace=world.namespace)
    await world.create()
    async with world.operator():
        await world.becomes("InferenceReady", "False", "WorkloadConflict")

    kept = await world.client.get(DEPLOYMENTS, "w", world.namespace)
    assert kept["spec"]["replicas"] == 0
    assert "ownerReferences" not in kept["metadata"]


async def test_an_unknown_preset_provisions_nothing_until_it_is_corrected(world: Any) -> None:
    """A typo costs no GPU node; the message suggests the right name."""
    await world.create(inference={"preset": {"name": "phi-3-mini-4k-instrct"}})
    async with world.operator():
        told = await world.becomes("WorkspaceReady", "False", "UnknownPreset")

    assert "phi-3-mini-4k-instruct" in told["message"]
    assert await world.machines() == []


def _tuning() -> dict[str, Any]:
    return {
        "preset": {"name": "phi-3-mini-4k-instruct"},
        "method": "qlora",
        "input": {"urls": ["https://example.com/data.parquet"]},
        "output": {"image": "REPO_HERE.example.com/tuned:1", "imagePushSecret": "push"},
    }


async def _versions(world: Any) -> dict[str, str]:
    """resourceVersion of every object that the operator writes for the Workspace ``w``."""
    objects = [await world.get(), *await world.machines()]
    objects += [await world.client.get(resource, "w", world.namespace) for resource in (DEPLOYMENTS, SERVICES)]
    return {f"{obj['kind']}/{obj['metadata']['name']}": obj["metadata"]["resourceVersion"] for obj in objects}


async def _event(world: Any, name: str, reason: str) -> None:
    for _ in range(200):
        events = (await world.client.list(EVENTS_V1, world.namespace)).items
        if any(event["reason"] == reason and event["regarding"]["name"] == name for event in events):
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"no event {reason}")
