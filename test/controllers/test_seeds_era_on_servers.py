"""Upstream's acceptance list on API servers: its examples all at once, and the order in which nodes are taken."""

from __future__ import annotations

import json
from typing import Any

import pytest

from controllers.resources import WORKSPACES
from manager.resources import CONFIGMAPS, DEPLOYMENTS, NODES, SERVICES, STATEFULSETS

pytestmark = pytest.mark.timeout(120)

Json = dict[str, Any]
V100, V100X2, A100X4 = "Standard_NC6s_v3", "Standard_NC12s_v3", "Standard_NC96ads_A100_v4"
PRIVATE = {"accessMode": "private", "presetOptions": {"image": "example.com/llama:1"}}
ADAPTER = {"source": {"name": "falcon-7b-adapter", "image": "example.com/falcon-adapter:0.0.2"}, "strength": "0.2"}

# preset, type, count, kind, GPUs of a pod, adapters
SERVED = {
    "a01": ("phi-3-mini-4k-instruct", V100, None, "Deployment", "1", ()),
    "a02a": ("falcon-7b", V100X2, None, "Deployment", "1", ()),
    "a02b": ("falcon-7b-instruct", V100X2, None, "Deployment", "1", ()),
    "a02c": ("mistral-7b", V100X2, None, "Deployment", "1", ()),
    "a02d": ("mistral-7b-instruct", V100X2, None, "Deployment", "1", ()),
    "a02e": ("phi-2", V100, None, "Deployment", "1", ()),
    "a02f": ("falcon-40b", A100X4, None, "Deployment", "2", ()),
    "a02g": ("falcon-40b-instruct", A100X4, None, "Deployment", "2", ()),
    "a03a": ("llama-2-7b", V100X2, None, "Deployment", "1", ()),
    "a03b": ("llama-2-7b-chat", V100X2, None, "Deployment", "1", ()),
    "a04a": ("llama-2-13b", V100X2, 1, "StatefulSet", "2", ()),
    "a04b": ("llama-2-13b-chat", V100X2, 1, "StatefulSet", "2", ()),
    "a05a": ("llama-2-70b", A100X4, 2, "StatefulSet", "4", ()),
    "a05b": ("llama-2-70b-chat", A100X4, 2, "StatefulSet", "4", ()),
    "a06a": ("falcon-7b", V100X2, None, "Deployment", "1", (ADAPTER,)),
    "a06b": ("phi-3-mini-128k-instruct", V100, None, "Deployment", "1", (ADAPTER,)),
}


def manifest(world: Any, name: str) -> Json:
    """One of upstream's examples; each with labels of its own."""
    preset, type_, count, _, _, adapters = SERVED[name]
    private = PRIVATE if preset.startswith("llama") else {}
    resource: Json = {
        "instanceType": type_,
        "labelSelector": {"matchLabels": {**world.labels, "example": name}},
        **({"count": count} if count else {}),
    }
    inference: Json = {"preset": {"name": preset, **private}, **({"adapters": [*adapters]} if adapters else {})}
    return dict(world.workspace(name, resource=resource, inference=inference))


@pytest.mark.acceptance("KS-A01", "KS-A02", "KS-A03", "KS-A04", "KS-A05", "KS-A06")
async def test_upstreams_examples_become_what_they_say(world: Any) -> None:
    """Each example gets its Machines, its workload of the right kind with its GPUs, its Services and adapters."""
    world.gpus = "4"
    for name in SERVED:
        await world.client.create(WORKSPACES, manifest(world, name))
    async with world.operator():
        for name in SERVED:
            await world.becomes("WorkspaceReady", "True", name=name)
    made: dict[str, list[Json]] = {name: [] for name in SERVED}
    for machine in await world.machines():
        made[machine["metadata"]["labels"]["kaito.sh/workspace"]].append(machine)

    for name, (preset, type_, count, kind, gpus, adapters) in SERVED.items():
        nodes = count or 1
        assert [_type(machine) for machine in made[name]] == [type_] * nodes, preset
        resource = STATEFULSETS if kind == "StatefulSet" else DEPLOYMENTS
        workload = await world.client.get(resource, name, world.namespace)
        (container,) = workload["spec"]["template"]["spec"]["containers"]
        assert workload["spec"]["replicas"] == nodes, preset
        assert container["resources"]["limits"]["nvidia.com/gpu"] == gpus, preset
        assert container["image"].startswith("example.com/llama:1" if "llama" in preset else "example.com/kaito/")
        service = await world.client.get(SERVICES, name, world.namespace)
        assert [(port["port"], port["targetPort"]) for port in service["spec"]["ports"]] == [
            (80, 5000),
            (29500, 29500),
        ]
        if kind == "StatefulSet":
            headless = await world.client.get(SERVICES, f"{name}-headless", world.namespace)
            assert headless["spec"]["clusterIP"] == "None"
            assert workload["spec"]["serviceName"] == f"{name}-headless"
        listed = await world.client.get(CONFIGMAPS, f"{name}-adapters", world.namespace)
        wanted = json.loads(listed["data"]["adapters.json"])["adapters"]
        assert [(item["name"], item["image"], item["strength"]) for item in wanted] == [
            (item["source"]["name"], item["source"]["image"], float(item["strength"])) for item in adapters
        ], preset


def _type(machine: Json) -> str:
    (value,) = [
        item["values"][0]
        for item in machine["spec"]["requirements"]
        if item["key"] == "node.kubernetes.io/instance-type"
    ]
    return str(value)


@pytest.mark.acceptance("KS-A16")
async def test_nodes_that_are_there_are_taken_in_upstreams_order(world: Any) -> None:
    """Preferred first, then a worker of before, then what a provisioner made, then by name; the rest is left."""
    prefix = world.namespace

    async def add(name: str, type_: str | None = V100, ready: str = "True", **labels: str) -> str:
        node = f"{prefix}-{name}"
        typed = {"node.kubernetes.io/instance-type": type_} if type_ else {}
        await world.add_node(node, {**world.labels, **typed, **labels})
        if ready != "True":
            await world.node_ready(node, ready)
        return node

    await add("a-not-ready", ready="False")
    await add("a-other-type", type_="Standard_NC24ads_A100_v4")
    going = await add("a-going")
    untyped, plain = await add("b-untyped", type_=None), await add("c-plain")
    last = await add("d-plain")
    made = await add("x-made", **{"karpenter.sh/nodepool": "kaito"})
    worker, preferred = await add("y-worker"), await add("z-preferred")
    await world.client.patch(NODES, going, {"metadata": {"finalizers": ["example.com/hold"]}})
    await world.client.delete(NODES, going)

    resource = {**world.resource(world.labels), "count": 5, "preferredNodes": [preferred]}
    await world.create(resource=resource)
    status = {"status": {"workerNodes": [worker]}}
    await world.client.patch(WORKSPACES, "w", status, namespace=world.namespace, subresource="status")
    async with world.operator():
        await world.becomes("ResourceReady", "True")
        taken = (await world.get())["status"]["workerNodes"]

    assert taken == sorted([preferred, worker, made, untyped, plain])
    assert last not in taken
    assert await world.machines() == []
