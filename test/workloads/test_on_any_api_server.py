"""Our controllers, run by the test itself, against either API server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from kaito.local.workloads import run
from kaito.local.workloads.composition import run_controllers
from kaito.local.workloads.nodes.decide import Timing
from manager.client import Client
from manager.errors import NotFound
from manager.resources import (
    CONFIGMAPS,
    CRDS,
    DAEMONSETS,
    DEPLOYMENTS,
    NODES,
    PERSISTENTVOLUMECLAIMS,
    PERSISTENTVOLUMES,
    PODS,
    SERVICEACCOUNTS,
)
from manager.types import Resource

Obj = dict[str, Any]
_QUICK = Timing(grace=1.0, startup_grace=1.0, quarantine=0.1)


@pytest.fixture
async def client(api_server: Any) -> AsyncIterator[Client]:
    async with Client(api_server.config) as made:
        yield made


@pytest.fixture
async def controllers(api_server: Any) -> AsyncIterator[None]:
    """The controllers at work, with little patience for silent nodes."""
    stop = asyncio.Event()
    task = asyncio.create_task(run_controllers(api_server.config, stop, timing=_QUICK))
    yield
    stop.set()
    await task


def deployment(selector: Obj, replicas: int = 1) -> Obj:
    spec = {
        "nodeSelector": selector,
        "containers": [{"name": "c", "image": "i"}],
        "tolerations": [
            {
                "key": f"node.kubernetes.io/{key}",
                "operator": "Exists",
                "effect": "NoExecute",
                "tolerationSeconds": 1,
            }
            for key in ("unreachable", "not-ready")
        ],
    }
    return {
        "metadata": {"name": "web"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": spec},
        },
    }


async def is_gone(client: Client, resource: Resource, name: str, namespace: str | None = None) -> bool:
    try:
        await client.get(resource, name, namespace)
    except NotFound:
        return True
    return False


async def bound(client: Client, namespace: str, count: int) -> bool:
    pods = (await client.list(PODS, namespace)).items
    return len(pods) == count and all(x["spec"].get("nodeName") for x in pods)


async def test_it_stops_when_told_and_carries_on_where_it_was(
    client: Client, api_server: Any, namespace: str, node: Any, until: Any
) -> None:
    """What changes while the controllers are away is caught up with, and nothing is made twice."""
    for replicas in (1, 3):
        stop = asyncio.Event()
        if replicas == 1:
            await client.create(DEPLOYMENTS, deployment(node.selector), namespace=namespace)
        else:
            change = {"spec": {"replicas": replicas}}
            await client.patch(DEPLOYMENTS, "web", change, namespace=namespace)
        task = asyncio.create_task(run(api_server.config, stop))
        await until(lambda count=replicas: bound(client, namespace, count))
        await asyncio.sleep(0.2)
        assert await bound(client, namespace, replicas)
        stop.set()
        await asyncio.wait_for(task, 10)


@pytest.mark.usefixtures("controllers")
async def test_a_silent_node_loses_its_pods(client: Client, namespace: str, node: Any, until: Any) -> None:
    """No heartbeat: the node becomes Unknown and tainted, its pods unready, and evicted when they may be."""
    await client.create(DEPLOYMENTS, deployment(node.selector), namespace=namespace)
    await until(lambda: bound(client, namespace, 1))

    async def lost() -> bool:
        found = await client.get(NODES, node.name)
        ready = next(c for c in found["status"]["conditions"] if c["type"] == "Ready")
        taints = {(t["key"], t["effect"]) for t in found["spec"].get("taints") or []}
        key = "node.kubernetes.io/unreachable"
        return ready["status"] == "Unknown" and taints >= {(key, "NoSchedule"), (key, "NoExecute")}

    await until(lost)

    async def replaced() -> bool:
        pods = (await client.list(PODS, namespace)).items
        return [bool(x["spec"].get("nodeName")) for x in pods] == [False]

    await until(replaced)


@pytest.mark.usefixtures("controllers")
async def test_pods_of_a_vanished_node_are_removed(client: Client, namespace: str, until: Any) -> None:
    """A node that was deleted takes the pods that were bound to it with it."""
    pod = {
        "metadata": {"name": "lost"},
        "spec": {"nodeName": f"never-{namespace}", "containers": [{"name": "c", "image": "i"}]},
    }
    await client.create(PODS, pod, namespace=namespace)

    await until(lambda: is_gone(client, PODS, "lost", namespace))


@pytest.mark.usefixtures("controllers")
async def test_a_claim_gets_a_folder_and_gives_it_back(client: Client, namespace: str, until: Any) -> None:
    """A claim is bound to a new volume at once, and the volume goes with the claim."""
    claim = {
        "metadata": {"name": "data"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}},
    }
    await client.create(PERSISTENTVOLUMECLAIMS, claim, namespace=namespace)

    async def is_bound() -> Obj | None:
        found = await client.get(PERSISTENTVOLUMECLAIMS, "data", namespace)
        return found if found.get("status", {}).get("phase") == "Bound" else None

    found = await until(is_bound)
    volume = await client.get(PERSISTENTVOLUMES, found["spec"]["volumeName"])
    assert volume["spec"]["hostPath"]["path"].endswith(volume["metadata"]["name"])
    assert found["status"]["capacity"] == {"storage": "1Mi"}

    await client.delete(PERSISTENTVOLUMECLAIMS, "data", namespace)
    await until(lambda: is_gone(client, PERSISTENTVOLUMECLAIMS, "data", namespace))
    await until(lambda: is_gone(client, PERSISTENTVOLUMES, volume["metadata"]["name"]))


@pytest.mark.usefixtures("controllers")
async def test_custom_resources_own_and_are_owned(client: Client, namespace: str, until: Any) -> None:
    """Garbage collection covers kinds that appear later, and ends with them."""
    group = f"{namespace}.example.com"
    names = {"plural": "widgets", "singular": "widget", "kind": "Widget", "listKind": "WidgetList"}
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    crd = {
        "metadata": {"name": f"widgets.{group}"},
        "spec": {
            "group": group,
            "scope": "Cluster",
            "names": names,
            "versions": [{"name": "v1", "served": True, "storage": True, "schema": schema}],
        },
    }
    await client.create(CRDS, crd)
    widgets = Resource(group, "v1", "widgets", "Widget", namespaced=False)
    owner = await until(lambda: client.create(widgets, {"metadata": {"name": "w"}}))
    reference = {
        "apiVersion": f"{group}/v1",
        "kind": "Widget",
        "name": "w",
        "uid": owner["metadata"]["uid"],
    }
    await client.create(
        CONFIGMAPS, {"metadata": {"name": "child", "ownerReferences": [reference]}}, namespace=namespace
    )
    await client.create(widgets, {"metadata": {"name": "w2", "ownerReferences": [reference]}})

    await client.delete(widgets, "w", propagation="Background")
    await until(lambda: is_gone(client, CONFIGMAPS, "child", namespace))
    await until(lambda: is_gone(client, widgets, "w2"))
    await client.delete(CRDS, f"widgets.{group}")
    await until(lambda: is_gone(client, CRDS, f"widgets.{group}"))


@pytest.mark.usefixtures("controllers")
async def test_daemons_and_accounts(client: Client, namespace: str, node: Any, until: Any) -> None:
    """A DaemonSet covers the node that it selects; every namespace has its default account."""
    owner = deployment(node.selector)
    del owner["spec"]["replicas"]
    await client.create(DAEMONSETS, owner, namespace=namespace)
    await until(lambda: bound(client, namespace, 1))

    async def reported() -> bool:
        status = (await client.get(DAEMONSETS, "web", namespace)).get("status", {})
        return status.get("numberReady") == status.get("desiredNumberScheduled") == 1

    await until(reported)

    async def has_account() -> bool:
        return bool(await client.get(SERVICEACCOUNTS, "default", namespace))

    await until(has_account)
    if (await client.list(PODS, namespace)).items[0]["metadata"]["labels"].get("controller-revision-hash") is None:
        pytest.fail("daemon pods name their revision")
