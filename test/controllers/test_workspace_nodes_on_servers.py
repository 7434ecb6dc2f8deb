"""The nodes of Workspaces on real API servers: several at once, brought along, shared, claimed, and seen late."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from api.crds import nodeclaim_crd
from controllers.resources import MACHINES, NODECLAIMS, WORKSPACES
from kaito.local.cluster import put
from manager.client import Client
from manager.errors import ApiError, NotFound
from manager.resources import CRDS, NODES

pytestmark = pytest.mark.timeout(90)

Json = dict[str, Any]
A10, A100, A100X4, V100 = (
    "Standard_NV36ads_A10_v5",
    "Standard_NC24ads_A100_v4",
    "Standard_NC96ads_A100_v4",
    "Standard_NC6s_v3",
)
PRIVATE = {"accessMode": "private", "presetOptions": {"image": "example.com/llama:1"}}


def wanted(world: Any, preset: str, type_: str | None = None, count: int | None = None, **spec: Any) -> Json:
    resource: Json = {"labelSelector": {"matchLabels": world.labels}}
    if type_:
        resource["instanceType"] = type_
    if count:
        resource["count"] = count
    return {"resource": resource, "inference": {"preset": {"name": preset, **spec}}}


async def ready(world: Any, name: str = "w") -> Json:
    """Wait until a Workspace has its nodes; the Workspace."""
    await world.becomes("ResourceReady", "True", name=name)
    return dict(await world.get(name))


def types(machines: list[Json]) -> list[str]:
    return [
        item["values"][0]
        for machine in machines
        for item in machine["spec"]["requirements"]
        if item["key"] == "node.kubernetes.io/instance-type"
    ]


# ------------------------------------------------------------------ several nodes


@pytest.mark.acceptance("KS-A05")
async def test_llama_2_70b_gets_its_two_nodes(world: Any) -> None:
    """Both Machines are asked for before either is a node, with upstream's type, disk and taint."""
    world.gpus, world.cloud.auto = "4", False
    await world.create(**wanted(world, "llama-2-70b", A100X4, 2, **PRIVATE))
    async with world.operator():
        await _asked(world, 2)
        machines = await world.machines()
        for name in [*world.cloud.creates]:
            await world.cloud.finish(name)
        workspace = await ready(world)

    assert types(machines) == [A100X4, A100X4]
    assert {machine["spec"]["resources"]["requests"]["storage"] for machine in machines} == {"158Gi"}
    assert {taint["key"] for machine in machines for taint in machine["spec"]["taints"]} == {"sku"}
    assert workspace["status"]["workerNodes"] == sorted(machine["metadata"]["name"] for machine in machines)
    assert workspace["status"]["targetNodeCount"] == 2


async def test_a_model_of_the_newer_catalogue_gets_as_many_as_it_takes(world: Any) -> None:
    """Without a count the plan's two nodes are made."""
    await world.create(**wanted(world, "qwen2.5-coder-32b-instruct", A100))
    async with world.operator():
        workspace = await ready(world)

    assert types(await world.machines()) == [A100, A100]
    assert len(workspace["status"]["workerNodes"]) == 2


async def test_a_refused_machine_is_told_while_the_other_comes(world: Any) -> None:
    """Nodes are made side by side: a refusal of one holds up nobody, and is the Workspace's reason."""
    world.cloud.auto = False
    await world.create(**wanted(world, "phi-3-mini-4k-instruct", V100, 2))
    async with world.operator():
        await _asked(world, 2)
        first, second = world.cloud.creates
        await world.cloud.finish(first)
        await world.cloud.finish(second, {"code": "OperationInProgress", "message": "busy elsewhere"})
        told = await world.becomes("ResourceReady", "False", "OperationInProgress")
        workspace = await world.get()

    assert "busy elsewhere" in told["message"]
    assert workspace["status"]["workerNodes"] == [first]


# ------------------------------------------------------------------ nodes that are brought along


async def test_labelled_nodes_are_enough(world: Any) -> None:
    """A node with the labels serves a Workspace without a type; a second Workspace does not share it."""
    name = f"byo-{world.namespace}"
    await world.add_node(name, world.labels)
    await world.create(name="first", **wanted(world, "phi-3-mini-4k-instruct"))
    async with world.operator():
        first = await ready(world, "first")
        await world.create(name="second", **wanted(world, "phi-3-mini-4k-instruct"))
        second = await ready(world, "second")

    (machine,) = await world.machines()
    assert first["status"]["workerNodes"] == [name]
    assert machine["metadata"]["labels"]["kaito.sh/workspace"] == "second"
    assert second["status"]["workerNodes"] == [machine["metadata"]["name"]]
    assert types([machine]) == [A10]


async def test_a_node_with_gpus_to_spare_serves_two(world: Any) -> None:
    """The second Workspace waits until the first one's pod is placed, and takes what GPUs are left."""
    name, never = f"byo-{world.namespace}", {"annotations": {"kaito.sh/node-provisioning": "never"}}
    world.gpus = "2"
    await world.add_node(name, world.labels)
    for workspace in ("a", "b", "c"):
        await world.create(name=workspace, metadata=never, **wanted(world, "phi-3-mini-4k-instruct"))
    async with world.operator():
        while len(served := await _served(world, ("a", "b", "c"))) < 2:
            await asyncio.sleep(0.05)
        (left,) = {"a", "b", "c"} - served
        told = await world.becomes("ResourceReady", "False", "NodesMissing", name=left)

    assert "0 of them can be used" in told["message"]


async def test_two_that_come_at_once_take_one_node_each(world: Any) -> None:
    """Reconciled in the same moment, one has the node that is there and the other a new one."""
    name = f"byo-{world.namespace}"
    await world.add_node(name, world.labels)
    for workspace in ("a", "b"):
        await world.create(name=workspace, **wanted(world, "phi-3-mini-4k-instruct", V100))
    async with world.operator():
        found = [(await ready(world, workspace))["status"]["workerNodes"] for workspace in ("a", "b")]

    machines = await world.machines()
    assert len(machines) == 1
    assert sorted(found) == sorted([[name], [machines[0]["metadata"]["name"]]])


async def test_what_one_leaves_the_other_takes(world: Any) -> None:
    """With provisioning off, a Workspace waits for the node that another uses, and has it when that one goes."""
    name, never = f"byo-{world.namespace}", {"annotations": {"kaito.sh/node-provisioning": "never"}}
    await world.add_node(name, world.labels)
    await world.create(name="first", **wanted(world, "phi-3-mini-4k-instruct"))
    async with world.operator():
        await ready(world, "first")
        await world.create(name="second", metadata=never, **wanted(world, "phi-3-mini-4k-instruct"))
        told = await world.becomes("ResourceReady", "False", "NodesMissing", name="second")
        await world.client.delete(WORKSPACES, "first", world.namespace)
        second = await ready(world, "second")

    assert "1 nodes match" in told["message"]
    assert second["status"]["workerNodes"] == [name]
    assert await world.machines() == []


async def test_never_waits_for_a_label(world: Any) -> None:
    """No node matches: that is told, nothing is made, and a label on a node is noticed."""
    name, never = f"byo-{world.namespace}", {"annotations": {"kaito.sh/node-provisioning": "never"}}
    await world.add_node(name, {})
    await world.create(metadata=never, **wanted(world, "phi-3-mini-4k-instruct", V100))
    async with world.operator():
        told = await world.becomes("ResourceReady", "False", "NoNodeMatches")
        await world.client.patch(NODES, name, {"metadata": {"labels": world.labels}})
        workspace = await ready(world)

    assert "No node matches" in told["message"]
    assert workspace["status"]["workerNodes"] == [name]
    assert await world.machines() == []


async def test_a_node_that_loses_its_labels_is_given_up(world: Any) -> None:
    """The selector decides: a node that is relabelled is replaced by one that is made."""
    name = f"byo-{world.namespace}"
    await world.add_node(name, world.labels)
    await world.create(**wanted(world, "phi-3-mini-4k-instruct", V100))
    async with world.operator():
        before = await ready(world)
        await world.client.patch(NODES, name, {"metadata": {"labels": dict.fromkeys(world.labels)}})
        machine = await world.instance()
        await _uses(world, [machine])
    await world.client.delete(NODES, name)

    assert before["status"]["workerNodes"] == [name]


async def test_a_workspace_made_again_does_not_wait_for_the_old_ones_machines(world: Any) -> None:
    """Its predecessor's Machine is still going, held by somebody: the new one's is made beside it."""
    await world.create(**wanted(world, "phi-3-mini-4k-instruct", V100))
    async with world.operator():
        await ready(world)
        (old,) = await world.machines()
        name = old["metadata"]["name"]
        held = [*old["metadata"]["finalizers"], "test.example.com/hold"]
        await world.client.patch(MACHINES, name, {"metadata": {"finalizers": held}})
        await world.client.delete(WORKSPACES, "w", world.namespace)
        await _leaving(world, name)
        await world.client.patch(WORKSPACES, "w", {"metadata": {"finalizers": []}}, namespace=world.namespace)
        await world.gone()
        await world.create(**wanted(world, "phi-3-mini-4k-instruct", V100))
        workspace = await ready(world)
        machines = {machine["metadata"]["name"] for machine in await world.machines()}

    assert name in machines
    assert set(workspace["status"]["workerNodes"]) == machines - {name}


# ------------------------------------------------------------------ GPUs that do not show


async def test_gpus_that_do_not_show_are_told_before_and_after_the_deadline(world: Any) -> None:
    """The reason says how long the device plug-in has; when that has passed it says so without any change."""
    world.gpus = "0"
    await world.add_node(f"byo-{world.namespace}", world.labels)
    await world.create(**wanted(world, "phi-3-mini-4k-instruct", V100))
    async with world.operator(gpu_deadline=2.0):
        first = await world.becomes("ResourceReady", "False", "GpuNotVisible")
        second = await _says(world, "has not reported any within 2 s")
        world.gpus = "1"
        await world.node_ready(f"byo-{world.namespace}")
        await ready(world)

    assert "NVIDIA device plugin" in first["message"]
    assert "NVIDIA device plugin" in second
    assert await world.machines() == []


# ------------------------------------------------------------------ NodeClaims


@pytest.fixture
async def claims(world: Any) -> AsyncIterator[Any]:
    """A world that serves NodeClaims."""
    await _install(world.client)
    yield world
    for claim in await _claims(world):
        name = claim["metadata"]["name"]
        await world._ignore_absent(world.client.patch(NODECLAIMS, name, {"metadata": {"finalizers": None}}))
        await world._ignore_absent(world.client.delete(NODECLAIMS, name))


async def test_node_claims_are_made_instead_of_machines(claims: Any) -> None:
    """With --node-api=nodeclaim a NodeClaim becomes the node, the condition has its name, deletion leaves none."""
    world = claims
    await world.create(**wanted(world, "phi-3-mini-4k-instruct", V100))
    async with world.operator(node_api="nodeclaim"):
        workspace = await ready(world)
        await world.becomes("NodeClaimReady", "True", "installNodePluginsSuccess")
        (claim,) = await _claims(world)
        await world.client.delete(WORKSPACES, "w", world.namespace)
        await world.gone()

    assert claim["spec"]["nodeClassRef"] == {"group": "kaito.sh", "kind": "KaitoNodeClass", "name": "default"}
    assert workspace["status"]["workerNodes"] == [claim["metadata"]["name"]]
    assert "MachineReady" not in {item["type"] for item in workspace["status"]["conditions"]}
    assert await _claims(world) == await world.machines() == []
    assert world.cloud.instances == {}


async def test_a_deletion_also_clears_what_the_other_setting_made(claims: Any) -> None:
    """Made as Machines, deleted by an operator that makes NodeClaims: nothing is left behind."""
    world = claims
    await world.create(**wanted(world, "phi-3-mini-4k-instruct", V100))
    async with world.operator():
        await ready(world)
    async with world.operator(node_api="nodeclaim"):
        await world.becomes("NodeClaimReady", "True")
        await world.client.delete(WORKSPACES, "w", world.namespace)
        await world.gone()

    assert await _claims(world) == await world.machines() == []
    assert world.cloud.instances == {}


async def test_a_kind_that_is_installed_later_is_noticed(world: Any) -> None:
    """Without the CRD the condition says what to install; once it is there the operator goes on by itself."""
    await _uninstall(world.client)
    await world.create(**wanted(world, "phi-3-mini-4k-instruct", V100))
    async with world.operator(machine=False, node_api="nodeclaim", machine_api=False, crd_poll=0.2):
        told = await world.becomes("NodeClaimReady", "False", "NodeClaimApiMissing")
        await _install(world.client)
        await world.becomes("NodeClaimReady", "Unknown", "CreateNodeClaimPending")
        (claim,) = await _claims(world)
        await world.client.delete(WORKSPACES, "w", world.namespace)
        await world.gone()

    assert "config/nodeclaim" in told["message"]
    assert claim["metadata"]["labels"]["kaito.sh/workspace"] == "w"
    assert await _claims(world) == []


async def test_a_kind_that_is_absent_does_not_hold_up_a_deletion(world: Any) -> None:
    """Neither of the two kinds' absence keeps a Workspace from going."""
    await _uninstall(world.client)
    await world.create(**wanted(world, "phi-3-mini-4k-instruct", V100))
    async with world.operator(machine=False, node_api="nodeclaim", machine_api=False, crd_poll=60.0):
        await world.becomes("NodeClaimReady", "False", "NodeClaimApiMissing")
        await world.client.delete(WORKSPACES, "w", world.namespace)
        await world.gone()
    await _install(world.client)


# ------------------------------------------------------------------ waiting


async def _asked(world: Any, count: int) -> None:
    while len(world.cloud.creates) < count:
        await asyncio.sleep(0.02)


async def _served(world: Any, names: tuple[str, ...]) -> set[str]:
    """The Workspaces that are ready as a whole."""
    return {name for name in names if (await world.conditions(name)).get("WorkspaceReady", ("",))[0] == "True"}


async def _uses(world: Any, nodes: list[str]) -> None:
    while (await world.get())["status"].get("workerNodes") != nodes:
        await asyncio.sleep(0.02)


async def _says(world: Any, words: str) -> str:
    while True:
        for item in (await world.get())["status"]["conditions"]:
            if item["type"] == "ResourceReady" and words in item["message"]:
                return str(item["message"])
        await asyncio.sleep(0.02)


async def _leaving(world: Any, machine: str) -> None:
    while not (await world.client.get(MACHINES, machine))["metadata"].get("deletionTimestamp"):
        await asyncio.sleep(0.02)


async def _claims(world: Any) -> list[Json]:
    selector = f"kaito.sh/workspacenamespace={world.namespace}"
    try:
        return list((await world.client.list(NODECLAIMS, label_selector=selector)).items)
    except NotFound:
        return []


async def _install(client: Client) -> None:
    await put(client, CRDS, nodeclaim_crd())
    while True:
        try:
            await client.list(NODECLAIMS, limit=1)
        except ApiError:
            await asyncio.sleep(0.05)
        else:
            return


async def _uninstall(client: Client) -> None:
    try:
        await client.delete(CRDS, "nodeclaims.karpenter.sh")
    except NotFound:
        return
    while await client.discover(NODECLAIMS.group, NODECLAIMS.kind, NODECLAIMS.version) is not None:
        await asyncio.sleep(0.05)
