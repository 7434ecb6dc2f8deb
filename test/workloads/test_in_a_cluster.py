"""The same behaviour on our controllers and on those of Kubernetes: `cluster` is either."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from manager.client import Client
from manager.errors import NotFound
from manager.resources import (
    CONFIGMAPS,
    DEPLOYMENTS,
    ENDPOINTS,
    EVENTS,
    JOBS,
    NAMESPACES,
    NODES,
    PERSISTENTVOLUMECLAIMS,
    PODS,
    REPLICASETS,
    SERVICEACCOUNTS,
    SERVICES,
    STATEFULSETS,
)
from manager.types import Resource

Obj = dict[str, Any]


def template(node: Any, app: str = "web", image: str = "v1", **annotations: str) -> Obj:
    return {
        "metadata": {"labels": {"app": app}, "annotations": annotations},
        "spec": {
            "nodeSelector": node.selector,
            "terminationGracePeriodSeconds": 1,
            "containers": [{"name": "c", "image": image, "ports": [{"name": "http", "containerPort": 5000}]}],
        },
    }


def workload(node: Any, replicas: int, name: str = "web", **spec: Any) -> Obj:
    return {
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": template(node, name),
            **spec,
        },
    }


async def is_gone(client: Client, resource: Resource, name: str, namespace: str | None = None) -> bool:
    try:
        await client.get(resource, name, namespace)
    except NotFound:
        return True
    return False


def conditions(obj: Obj) -> dict[str, tuple[str, str]]:
    return {c["type"]: (c["status"], c.get("reason", "")) for c in obj.get("status", {}).get("conditions", [])}


async def complete(client: Client, name: str, namespace: str, size: int) -> Obj | None:
    """The Deployment, once `kubectl rollout status` would say so."""
    found = await client.get(DEPLOYMENTS, name, namespace)
    status = found.get("status", {})
    there = all(status.get(f) == size for f in ("replicas", "updatedReplicas", "availableReplicas"))
    seen = status.get("observedGeneration") == found["metadata"]["generation"]
    settled = conditions(found).get("Progressing") == ("True", "NewReplicaSetAvailable")
    return found if there and seen and settled else None


async def test_a_deployment_rolls_out_rolls_over_and_rolls_back(
    client: Client, namespace: str, node: Any, until: Any
) -> None:
    """Create, change the image, and go back: revisions, conditions and pods follow."""
    await client.create(DEPLOYMENTS, workload(node, 2), namespace=namespace)
    await until(lambda: complete(client, "web", namespace, 2))

    change = {"spec": {"template": template(node, image="v2")}}
    await client.patch(DEPLOYMENTS, "web", change, namespace=namespace)
    second = await until(lambda: complete(client, "web", namespace, 2))
    assert second["metadata"]["annotations"]["deployment.kubernetes.io/revision"] == "2"

    await client.patch(DEPLOYMENTS, "web", {"spec": {"template": template(node)}}, namespace=namespace)
    third = await until(lambda: complete(client, "web", namespace, 2))
    assert third["metadata"]["annotations"]["deployment.kubernetes.io/revision"] == "3"
    sets = (await client.list(REPLICASETS, namespace)).items
    revisions = {s["metadata"]["annotations"]["deployment.kubernetes.io/revision"]: s for s in sets}
    assert {r: s["spec"]["replicas"] for r, s in revisions.items()} == {"2": 0, "3": 2}
    assert revisions["3"]["metadata"]["annotations"]["deployment.kubernetes.io/revision-history"] == "1"


async def test_a_lost_pod_comes_back_and_scaling_is_told(
    client: Client, namespace: str, node: Any, until: Any
) -> None:
    """Deleting a pod brings another, scaling works through the subresource, and events tell both."""
    await client.create(DEPLOYMENTS, workload(node, 1), namespace=namespace)
    await until(lambda: complete(client, "web", namespace, 1))
    (pod,) = (await client.list(PODS, namespace)).items
    await client.delete(PODS, pod["metadata"]["name"], namespace)

    async def another() -> bool:
        names = {x["metadata"]["name"] for x in (await client.list(PODS, namespace)).items}
        return len(names) == 1 and pod["metadata"]["name"] not in names

    await until(another)
    scale = {"spec": {"replicas": 3}}
    await client.patch(DEPLOYMENTS, "web", scale, namespace=namespace, subresource="scale")
    await until(lambda: complete(client, "web", namespace, 3))

    async def told() -> bool:
        reasons = {e["reason"] for e in (await client.list(EVENTS, namespace)).items}
        return reasons >= {"ScalingReplicaSet", "SuccessfulCreate", "Scheduled"}

    await until(told)


async def test_an_orphan_is_adopted_and_a_relabelled_pod_released(
    client: Client, namespace: str, node: Any, until: Any
) -> None:
    """A ReplicaSet takes in a matching pod that nobody controls, and lets go of one that stops matching."""
    bare = {"metadata": {"name": "bare", "labels": {"app": "rs"}}, "spec": template(node)["spec"]}
    await client.create(PODS, bare, namespace=namespace)

    async def bound() -> bool:  # then the controllers have seen it, and have no reason to make a pod of their own
        return bool((await client.get(PODS, "bare", namespace))["spec"].get("nodeName"))

    await until(bound)
    await client.create(REPLICASETS, workload(node, 1, "rs"), namespace=namespace)

    async def controller() -> str | None:
        found = await client.get(PODS, "bare", namespace)
        return next((r["name"] for r in found["metadata"].get("ownerReferences", [])), None)

    assert await until(controller) == "rs"
    assert len((await client.list(PODS, namespace)).items) == 1

    await client.patch(PODS, "bare", {"metadata": {"labels": {"app": "other"}}}, namespace=namespace)

    async def released() -> bool:
        mine = (await client.list(PODS, namespace, label_selector="app=rs")).items
        return await controller() is None and len(mine) == 1

    await until(released)


async def test_the_scheduler_says_why_and_tries_again(client: Client, namespace: str, until: Any) -> None:
    """A pod that fits nowhere waits with the reason, and is placed as soon as a node can take it."""
    pod = {
        "metadata": {"name": "gpu"},
        "spec": {
            "nodeSelector": {"gpu-test": namespace},
            "containers": [
                {"name": "c", "image": "i", "resources": {"limits": {"nvidia.com/gpu": "1"}}},
            ],
        },
    }
    await client.create(PODS, pod, namespace=namespace)

    async def refused() -> bool:
        found = await client.get(PODS, "gpu", namespace)
        return conditions(found).get("PodScheduled") == ("False", "Unschedulable")

    await until(refused)

    async def told() -> bool:
        return "FailedScheduling" in {e["reason"] for e in (await client.list(EVENTS, namespace)).items}

    await until(told)
    name = f"gpu-{namespace}"
    await client.create(NODES, {"metadata": {"name": name, "labels": {"gpu-test": namespace}}})
    amounts = {"cpu": "1", "memory": "1Gi", "pods": "9", "nvidia.com/gpu": "1"}
    ready = [{"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "ok"}]
    status = {"capacity": amounts, "allocatable": amounts, "conditions": ready}
    await client.patch(NODES, name, {"status": status}, subresource="status")

    async def placed() -> bool:
        return (await client.get(PODS, "gpu", namespace))["spec"].get("nodeName") == name

    await until(placed)
    await client.delete(PODS, "gpu", namespace, grace_seconds=0)
    await client.delete(NODES, name)


async def test_services_follow_their_pods(client: Client, namespace: str, node: Any, until: Any) -> None:
    """Ready pods are addresses, others are not-ready addresses, and slices say the same."""
    service = {
        "metadata": {"name": "web"},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": "http"}]},
    }
    await client.create(SERVICES, service, namespace=namespace)
    await client.create(DEPLOYMENTS, workload(node, 2), namespace=namespace)

    async def addresses() -> tuple[set[str], set[str]]:
        found = await client.get(ENDPOINTS, "web", namespace)
        subsets = found.get("subsets") or []
        return (
            {a["ip"] for s in subsets for a in s.get("addresses") or []},
            {a["ip"] for s in subsets for a in s.get("notReadyAddresses") or []},
        )

    async def two_ready() -> bool:
        return [len(x) for x in await addresses()] == [2, 0]

    await until(two_ready)
    pods = (await client.list(PODS, namespace)).items
    assert {x["status"]["podIP"] for x in pods} == (await addresses())[0]
    kind = await client.discover("discovery.k8s.io", "EndpointSlice", "v1", "v1beta1")
    assert kind is not None

    async def slice_addresses() -> set[str]:
        mine = (await client.list(kind, namespace, label_selector="kubernetes.io/service-name=web")).items
        assert all(s["ports"][0]["port"] == 5000 for s in mine if s.get("endpoints"))
        return {
            a for s in mine for e in s.get("endpoints") or [] if e["conditions"]["ready"] for a in e["addresses"]
        }

    async def agree() -> bool:
        return await slice_addresses() == (await addresses())[0]

    await until(agree)
    unready = {"status": {"conditions": [{"type": "Ready", "status": "False"}]}}
    await client.patch(PODS, pods[0]["metadata"]["name"], unready, namespace=namespace, subresource="status")

    async def one_of_each() -> bool:
        return [len(x) for x in await addresses()] == [1, 1]

    await until(one_of_each)
    await client.delete(SERVICES, "web", namespace)
    await until(lambda: is_gone(client, ENDPOINTS, "web", namespace))

    async def no_slices() -> bool:
        return not (await client.list(kind, namespace, label_selector="kubernetes.io/service-name=web")).items

    await until(no_slices)


async def test_a_statefulset_starts_in_order_with_claims(
    client: Client, namespace: str, node: Any, until: Any
) -> None:
    """Pods come as db-0, db-1, each with its own claim, and go from the top."""
    sts = workload(
        node,
        2,
        "db",
        serviceName="db",
        volumeClaimTemplates=[
            {
                "metadata": {"name": "data"},
                "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}},
            }
        ],
    )
    await client.create(STATEFULSETS, sts, namespace=namespace)

    async def claims() -> bool:
        found = {c["metadata"]["name"] for c in (await client.list(PERSISTENTVOLUMECLAIMS, namespace)).items}
        return "data-db-0" in found

    await until(claims)
    first = await until(lambda: client.get(PODS, "db-0", namespace))
    assert (first["spec"]["hostname"], first["spec"]["subdomain"]) == ("db-0", "db")
    volume = next(v for v in first["spec"]["volumes"] if v["name"] == "data")
    assert volume["persistentVolumeClaim"]["claimName"] == "data-db-0"


async def test_statefulset_update_and_scale(client: Client, namespace: str, node: Any, until: Any) -> None:
    """A new template replaces every pod, the highest first, and the revisions of the status meet again."""
    await client.create(STATEFULSETS, workload(node, 2, "db", serviceName="db"), namespace=namespace)

    async def settled(size: int, image: str) -> bool:
        found = await client.get(STATEFULSETS, "db", namespace)
        status = found.get("status", {})
        pods = (await client.list(PODS, namespace)).items
        images = [x["spec"]["containers"][0]["image"] for x in pods]
        return (
            status.get("readyReplicas", 0) == size
            and status.get("currentRevision") == status.get("updateRevision")
            and status.get("observedGeneration") == found["metadata"]["generation"]
            and images == [image] * size
        )

    await until(lambda: settled(2, "v1"))
    change = {"spec": {"template": template(node, "db", image="v2")}}
    await client.patch(STATEFULSETS, "db", change, namespace=namespace)
    await until(lambda: settled(2, "v2"))
    await client.patch(STATEFULSETS, "db", {"spec": {"replicas": 1}}, namespace=namespace)
    await until(lambda: settled(1, "v2"))
    assert (await client.list(PODS, namespace)).items[0]["metadata"]["name"] == "db-0"


@pytest.mark.parametrize(("phase", "verdict"), [("Succeeded", "Complete"), ("Failed", "Failed")])
async def test_jobs_end_with_a_verdict(
    client: Client, namespace: str, node: Any, until: Any, phase: str, verdict: str
) -> None:
    """A Job whose pod succeeds is Complete; one whose pod fails once too often is Failed."""
    body = template(node, "job", **{"test/phase": phase})
    body["spec"]["restartPolicy"] = "Never"
    job = {"metadata": {"name": "job"}, "spec": {"backoffLimit": 0, "template": body}}
    await client.create(JOBS, job, namespace=namespace)

    async def ended() -> Obj | None:
        found = await client.get(JOBS, "job", namespace)
        return found if conditions(found).get(verdict, ("",))[0] == "True" else None

    found = await until(ended)
    count = "succeeded" if phase == "Succeeded" else "failed"
    assert found["status"][count] == 1
    if verdict == "Failed":
        assert conditions(found)["Failed"] == ("True", "BackoffLimitExceeded")


def owned(name: str, owner: Obj, *, blocks: bool = False) -> Obj:
    reference = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
        "blockOwnerDeletion": blocks,
    }
    return {"metadata": {"name": name, "ownerReferences": [reference]}}


async def test_background_deletion_cascades(client: Client, namespace: str, until: Any) -> None:
    """Children, and children of children, go after their owner; a second living owner keeps a child."""
    top = await client.create(CONFIGMAPS, {"metadata": {"name": "top"}}, namespace=namespace)
    other = await client.create(CONFIGMAPS, {"metadata": {"name": "other"}}, namespace=namespace)
    child = await client.create(CONFIGMAPS, owned("child", top), namespace=namespace)
    await client.create(CONFIGMAPS, owned("grandchild", child), namespace=namespace)
    shared = owned("shared", top)
    shared["metadata"]["ownerReferences"] += owned("x", other)["metadata"]["ownerReferences"]
    await client.create(CONFIGMAPS, shared, namespace=namespace)

    await client.delete(CONFIGMAPS, "top", namespace, propagation="Background")
    await until(lambda: is_gone(client, CONFIGMAPS, "grandchild", namespace))

    async def released() -> bool:
        found = await client.get(CONFIGMAPS, "shared", namespace)
        return [r["name"] for r in found["metadata"]["ownerReferences"]] == ["other"]

    await until(released)


async def test_foreground_deletion_waits_for_blocking_dependents(
    client: Client, namespace: str, until: Any
) -> None:
    """The owner stays, marked, until a dependent that blocks it is gone."""
    top = await client.create(CONFIGMAPS, {"metadata": {"name": "top"}}, namespace=namespace)
    child = owned("child", top, blocks=True)
    child["metadata"]["finalizers"] = ["test/hold"]
    await client.create(CONFIGMAPS, child, namespace=namespace)

    await client.delete(CONFIGMAPS, "top", namespace, propagation="Foreground")

    async def child_is_leaving() -> bool:
        return "deletionTimestamp" in (await client.get(CONFIGMAPS, "child", namespace))["metadata"]

    await until(child_is_leaving)
    held = await client.get(CONFIGMAPS, "top", namespace)
    assert held["metadata"]["finalizers"] == ["foregroundDeletion"]
    await client.patch(CONFIGMAPS, "child", {"metadata": {"finalizers": None}}, namespace=namespace)
    await until(lambda: is_gone(client, CONFIGMAPS, "top", namespace))


async def test_orphaning_keeps_dependents(client: Client, namespace: str, until: Any) -> None:
    """With the policy Orphan the children lose the reference and stay."""
    top = await client.create(CONFIGMAPS, {"metadata": {"name": "top"}}, namespace=namespace)
    await client.create(CONFIGMAPS, owned("child", top), namespace=namespace)
    await asyncio.sleep(0.3)  # the collector must have heard of the child before its owner goes
    await client.delete(CONFIGMAPS, "top", namespace, propagation="Orphan")

    await until(lambda: is_gone(client, CONFIGMAPS, "top", namespace))
    assert not (await client.get(CONFIGMAPS, "child", namespace))["metadata"].get("ownerReferences")


async def test_a_reference_to_nobody_is_garbage(client: Client, namespace: str, until: Any) -> None:
    """An object whose only owner never existed, or no longer does, is collected."""
    ghost: Obj = {"metadata": {"name": "ghost", "uid": "00000000-0000-0000-0000-000000000000"}}
    await client.create(CONFIGMAPS, owned("child", ghost), namespace=namespace)

    await until(lambda: is_gone(client, CONFIGMAPS, "child", namespace))


async def test_a_namespace_goes_with_its_contents(client: Client, node: Any, namespace: str, until: Any) -> None:
    """Everything in it is deleted, and a finalizer inside holds it with a reason."""
    name = f"{namespace}-x"
    await client.create(NAMESPACES, {"metadata": {"name": name}})
    await until(lambda: client.get(SERVICEACCOUNTS, "default", name))
    held = {"metadata": {"name": "held", "finalizers": ["test/hold"]}}
    await client.create(CONFIGMAPS, held, namespace=name)
    await client.create(DEPLOYMENTS, workload(node, 1), namespace=name)
    await until(lambda: complete(client, "web", name, 1))

    await client.delete(NAMESPACES, name)

    async def explained() -> bool:
        found = await client.get(NAMESPACES, name)
        return conditions(found).get("NamespaceFinalizersRemaining") == ("True", "SomeFinalizersRemain")

    await until(explained, 40)
    await client.patch(CONFIGMAPS, "held", {"metadata": {"finalizers": None}}, namespace=name)
    await until(lambda: is_gone(client, NAMESPACES, name), 40)
