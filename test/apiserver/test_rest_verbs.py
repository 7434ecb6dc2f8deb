"""Verbs on built-in kinds, on both API servers: what holds here holds on a real one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from manager.client import Client, PatchType
from manager.errors import ApiError, BadRequest, Conflict, Forbidden, Invalid, NotFound
from manager.resources import (
    CONFIGMAPS,
    DEPLOYMENTS,
    JOBS,
    LEASES,
    NAMESPACES,
    NODES,
    PODS,
    SECRETS,
    SERVICES,
)
from manager.types import Obj


def pod(name: str, **spec: Any) -> Obj:
    return {"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "x:1"}], **spec}}


def config(name: str, **data: str) -> Obj:
    return {"metadata": {"name": name}, "data": data}


def deployment(name: str, replicas: int | None = None) -> Obj:
    spec: Obj = {
        "selector": {"matchLabels": {"app": name}},
        "template": {"metadata": {"labels": {"app": name}}, "spec": pod("x")["spec"]},
    }
    return {"metadata": {"name": name}, "spec": spec | ({} if replicas is None else {"replicas": replicas})}


@pytest.fixture
async def api(api_server: Any) -> AsyncIterator[Client]:
    async with Client(api_server.config, field_manager="test") as connected:
        yield connected


async def test_a_new_object_gets_what_only_the_server_knows(api: Client, namespace: str) -> None:
    """uid, creation time, revision and namespace are set, whatever the client sent for them."""
    sent = config("a", k="v")
    sent["metadata"] |= {"uid": "mine", "creationTimestamp": "2000-01-01T00:00:00Z"}
    made = await api.create(CONFIGMAPS, sent, namespace=namespace)

    meta = made["metadata"]
    assert meta["uid"] != "mine"
    assert meta["creationTimestamp"] > "2020"
    assert meta["namespace"] == namespace
    assert int(meta["resourceVersion"]) > 0
    assert await api.get(CONFIGMAPS, "a", namespace) == made


async def test_generated_names_are_short_and_differ(api: Client, namespace: str) -> None:
    """generateName appends five characters and keeps the whole within a label's length."""
    base = "long-" * 20
    made = [
        await api.create(CONFIGMAPS, {"metadata": {"generateName": base}}, namespace=namespace) for _ in range(2)
    ]

    first, second = (obj["metadata"]["name"] for obj in made)
    assert first != second
    assert first.startswith(base[:58])
    assert len(first) == 63


async def test_wrong_requests_name_what_is_wrong(api: Client, namespace: str) -> None:
    """Errors are Status objects with the reason and the details that clients branch on."""
    await api.create(CONFIGMAPS, config("a"), namespace=namespace)

    with pytest.raises(ApiError) as taken:
        await api.create(CONFIGMAPS, config("a"), namespace=namespace)
    with pytest.raises(NotFound) as absent:
        await api.get(DEPLOYMENTS, "nope", namespace)
    with pytest.raises(Invalid) as bad_name:
        await api.create(PODS, pod("Not_Good"), namespace=namespace)
    with pytest.raises(NotFound) as no_space:
        await api.create(CONFIGMAPS, config("a"), namespace="no-such-namespace")
    with pytest.raises(BadRequest):
        await api.create(CONFIGMAPS, {"metadata": {"name": "b", "namespace": "other"}}, namespace=namespace)
    with pytest.raises(BadRequest):
        await api.create(DEPLOYMENTS, deployment("d") | {"spec": {"replicas": "many"}}, namespace=namespace)
    with pytest.raises(ApiError) as method:
        await api.request("DELETE", "/api/v1/configmaps")

    assert (taken.value.status, taken.value.reason) == (409, "AlreadyExists")
    assert taken.value.details == {"name": "a", "kind": "configmaps"}
    assert str(absent.value.message) == 'deployments.apps "nope" not found'
    assert absent.value.details == {"name": "nope", "group": "apps", "kind": "deployments"}
    assert bad_name.value.details and bad_name.value.details["causes"][0]["field"] == "metadata.name"
    assert bad_name.value.details["causes"][0]["reason"] == "FieldValueInvalid"
    assert no_space.value.message == 'namespaces "no-such-namespace" not found'
    assert method.value.status == 405


async def test_several_problems_come_at_once(api: Client, namespace: str) -> None:
    """An invalid object is refused with one cause per field, and nothing is stored."""
    bad = deployment("d")
    bad["spec"]["template"]["metadata"]["labels"] = {"app": "other"}
    bad["spec"]["template"]["spec"]["containers"].append({"name": "c", "image": "y"})

    with pytest.raises(Invalid) as refused:
        await api.create(DEPLOYMENTS, bad, namespace=namespace)

    assert refused.value.details
    assert {cause["field"] for cause in refused.value.details["causes"]} == {
        "spec.template.metadata.labels",
        "spec.template.spec.containers[1].name",
    }
    with pytest.raises(NotFound):
        await api.get(DEPLOYMENTS, "d", namespace)


async def test_an_update_needs_the_newest_state(api: Client, namespace: str) -> None:
    """A PUT with an old resourceVersion is a Conflict; with the current one it stores; unchanged it does not."""
    first = await api.create(CONFIGMAPS, config("a", k="1"), namespace=namespace)
    second = await api.replace(CONFIGMAPS, first | {"data": {"k": "2"}})

    with pytest.raises(Conflict):
        await api.replace(CONFIGMAPS, first | {"data": {"k": "3"}})
    unchanged = await api.replace(CONFIGMAPS, second)

    assert int(second["metadata"]["resourceVersion"]) > int(first["metadata"]["resourceVersion"])
    assert unchanged["metadata"]["resourceVersion"] == second["metadata"]["resourceVersion"]
    assert unchanged["metadata"]["uid"] == first["metadata"]["uid"]


async def test_generation_counts_what_users_want(api: Client, namespace: str) -> None:
    """generation rises with the spec, not with labels or status; a status write touches only the status.

    A Deployment's annotations count as well, unless they come with its status.
    """
    made = await api.create(DEPLOYMENTS, deployment("d"), namespace=namespace)
    labelled = await api.patch(DEPLOYMENTS, "d", {"metadata": {"labels": {"x": "y"}}}, namespace=namespace)
    status = await api.patch(
        DEPLOYMENTS,
        "d",
        {"status": {"replicas": 1}, "spec": {"replicas": 7}},
        namespace=namespace,
        subresource="status",
    )
    main = await api.patch(
        DEPLOYMENTS, "d", {"status": {"replicas": 5}, "spec": {"replicas": 2}}, namespace=namespace
    )

    note = {"metadata": {"annotations": {"by": "a controller"}}}
    told = await api.patch(DEPLOYMENTS, "d", note, namespace=namespace, subresource="status")
    note = {"metadata": {"annotations": {"by": "a user"}}}
    noted = await api.patch(DEPLOYMENTS, "d", note, namespace=namespace)

    objs = (made, labelled, status, main, told, noted)
    assert [o["metadata"]["generation"] for o in objs] == [1, 1, 1, 2, 2, 3]
    assert [o["metadata"]["annotations"]["by"] for o in (told, noted)] == ["a controller", "a user"]
    assert (status["spec"]["replicas"], status["status"]["replicas"]) == (1, 1)
    assert (main["spec"]["replicas"], main["status"]["replicas"]) == (2, 1)


async def test_defaults_of_a_deployment(api: Client, namespace: str) -> None:
    """What a manifest leaves out has the values that controllers and kubectl rely on."""
    spec = (await api.create(DEPLOYMENTS, deployment("d"), namespace=namespace))["spec"]
    template = spec["template"]["spec"]

    assert spec["replicas"] == 1
    assert spec["strategy"] == {
        "type": "RollingUpdate",
        "rollingUpdate": {"maxUnavailable": "25%", "maxSurge": "25%"},
    }
    assert (spec["revisionHistoryLimit"], spec["progressDeadlineSeconds"]) == (10, 600)
    assert template["containers"][0]["imagePullPolicy"] == "IfNotPresent"
    assert template["restartPolicy"] == "Always"
    assert template["terminationGracePeriodSeconds"] == 30


async def test_defaults_of_a_pod(api: Client, namespace: str) -> None:
    """A pod is Pending, has a QoS class, tolerates an absent node for five minutes, and probes have limits."""
    wanted = pod("p")
    wanted["spec"]["containers"][0] |= {
        "resources": {"limits": {"cpu": "1"}},
        "readinessProbe": {"httpGet": {"port": 80}},
        "ports": [{"containerPort": 80}],
    }
    made = await api.create(PODS, wanted, namespace=namespace)
    container = made["spec"]["containers"][0]

    assert made["status"]["phase"] == "Pending"
    assert made["status"]["qosClass"] == "Burstable"
    assert container["resources"]["requests"] == {"cpu": "1"}
    assert container["ports"] == [{"containerPort": 80, "protocol": "TCP"}]
    assert container["readinessProbe"] == {
        "httpGet": {"path": "/", "port": 80, "scheme": "HTTP"},
        "timeoutSeconds": 1,
        "periodSeconds": 10,
        "successThreshold": 1,
        "failureThreshold": 3,
    }
    assert {(t["key"], t["tolerationSeconds"]) for t in made["spec"]["tolerations"]} == {
        ("node.kubernetes.io/not-ready", 300),
        ("node.kubernetes.io/unreachable", 300),
    }


async def test_a_secret_keeps_its_strings_encoded(api: Client, namespace: str) -> None:
    """stringData ends up in data, and the type has a default."""
    made = await api.create(SECRETS, {"metadata": {"name": "s"}, "stringData": {"a": "b"}}, namespace=namespace)

    assert made["data"] == {"a": "Yg=="}
    assert made["type"] == "Opaque"
    assert "stringData" not in made


async def test_a_job_selects_its_own_pods(api: Client, namespace: str) -> None:
    """A Job's selector is made from its uid, so that it takes no foreign pods; its template is immutable."""
    job = {
        "metadata": {"name": "j"},
        "spec": {"template": {"spec": {"restartPolicy": "Never", **pod("x")["spec"]}}},
    }
    made = await api.create(JOBS, job, namespace=namespace)

    selector = made["spec"]["selector"]["matchLabels"]
    labels = made["spec"]["template"]["metadata"]["labels"]
    assert made["metadata"]["uid"] in selector.values()
    assert selector.items() <= labels.items()
    assert labels["job-name"] == "j"
    with pytest.raises(Invalid):
        image = [{"op": "replace", "path": "/spec/template/spec/containers/0/image", "value": "y"}]
        await api.patch(JOBS, "j", image, namespace=namespace, type=PatchType.JSON)


async def test_service_addresses(api: Client, namespace: str) -> None:
    """A Service gets an address of its own out of the range and keeps it; a taken one is refused."""
    service = {"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}], "selector": {"a": "b"}}}
    made = await api.create(SERVICES, service, namespace=namespace)
    headless = await api.create(
        SERVICES,
        {"metadata": {"name": "h"}, "spec": {"clusterIP": "None", "selector": {"a": "b"}}},
        namespace=namespace,
    )
    address = made["spec"]["clusterIP"]
    changed = await api.patch(
        SERVICES, "s", {"spec": {"ports": [{"port": 81, "protocol": "TCP"}]}}, namespace=namespace
    )

    assert address.startswith("127.96.")
    assert made["spec"]["clusterIPs"] == [address]
    assert made["spec"]["ports"] == [{"port": 80, "protocol": "TCP", "targetPort": 80}]
    assert headless["spec"]["clusterIP"] == "None"
    assert changed["spec"]["clusterIP"] == address
    taken = {"metadata": {"name": "t"}, "spec": {"clusterIP": address, "ports": [{"port": 80}]}}
    with pytest.raises(Invalid, match="already allocated"):
        await api.create(SERVICES, taken, namespace=namespace)
    with pytest.raises(Invalid):
        await api.patch(
            SERVICES,
            "s",
            {"spec": {"clusterIP": "127.96.200.200", "clusterIPs": ["127.96.200.200"]}},
            namespace=namespace,
        )
    await api.delete(SERVICES, "s", namespace)
    assert (await api.create(SERVICES, taken, namespace=namespace))["spec"]["clusterIP"] == address


async def test_node_ports(api: Client, namespace: str) -> None:
    """A NodePort Service gets a port of the range for each of its ports and keeps it."""
    spec = {"type": "NodePort", "ports": [{"port": 80}], "selector": {"a": "b"}}
    made = await api.create(SERVICES, {"metadata": {"name": "s"}, "spec": spec}, namespace=namespace)
    port = made["spec"]["ports"][0]["nodePort"]
    kept = await api.replace(SERVICES, made | {"metadata": made["metadata"] | {"labels": {"x": "y"}}})

    assert 30000 <= port <= 32767
    assert kept["spec"]["ports"][0]["nodePort"] == port


async def test_finalizers_hold_an_object(api: Client, namespace: str) -> None:
    """A deleted object with a finalizer stays, takes no new finalizers, and goes with the last one."""
    obj = config("a", k="v")
    obj["metadata"]["finalizers"] = ["example.com/hold"]
    made = await api.create(CONFIGMAPS, obj, namespace=namespace)
    await api.delete(CONFIGMAPS, "a", namespace)
    going = await api.get(CONFIGMAPS, "a", namespace)

    assert going["metadata"]["deletionTimestamp"]
    assert going["metadata"]["uid"] == made["metadata"]["uid"]
    with pytest.raises(ApiError) as refused:
        more = {"metadata": {"finalizers": ["example.com/hold", "example.com/more"]}}
        await api.patch(CONFIGMAPS, "a", more, namespace=namespace)
    assert refused.value.status == 422
    await api.patch(CONFIGMAPS, "a", {"metadata": {"finalizers": None}}, namespace=namespace)
    with pytest.raises(NotFound):
        await api.get(CONFIGMAPS, "a", namespace)


async def test_propagation_policies_leave_their_finalizers(api: Client, namespace: str) -> None:
    """Foreground and Orphan hold the object for the garbage collector; Background does not."""
    for name, policy in (("f", "Foreground"), ("o", "Orphan"), ("b", "Background")):
        await api.create(CONFIGMAPS, config(name), namespace=namespace)
        await api.delete(CONFIGMAPS, name, namespace, propagation=policy)

    foreground = await api.get(CONFIGMAPS, "f", namespace)
    orphan = await api.get(CONFIGMAPS, "o", namespace)
    assert foreground["metadata"]["finalizers"] == ["foregroundDeletion"]
    assert orphan["metadata"]["finalizers"] == ["orphan"]
    with pytest.raises(NotFound):
        await api.get(CONFIGMAPS, "b", namespace)


async def test_preconditions_of_a_delete(api: Client, namespace: str) -> None:
    """A delete that names another uid or revision is a Conflict and deletes nothing."""
    made = await api.create(CONFIGMAPS, config("a"), namespace=namespace)

    with pytest.raises(Conflict):
        await api.delete(CONFIGMAPS, "a", namespace, uid="another")
    with pytest.raises(Conflict):
        await api.delete(CONFIGMAPS, "a", namespace, resource_version="1")
    await api.delete(CONFIGMAPS, "a", namespace, uid=made["metadata"]["uid"])


async def test_a_pod_on_a_node_waits_for_its_agent(api: Client, namespace: str) -> None:
    """A bound pod keeps its grace period until somebody deletes it with none; an unbound one goes at once."""
    await api.create(PODS, pod("free"), namespace=namespace)
    await api.delete(PODS, "free", namespace)
    with pytest.raises(NotFound):
        await api.get(PODS, "free", namespace)

    await api.create(PODS, pod("bound", nodeName="somewhere"), namespace=namespace)
    await api.delete(PODS, "bound", namespace)
    first = (await api.get(PODS, "bound", namespace))["metadata"]
    await api.delete(PODS, "bound", namespace, grace_seconds=5)
    second = (await api.get(PODS, "bound", namespace))["metadata"]
    await api.delete(PODS, "bound", namespace, grace_seconds=60)
    third = (await api.get(PODS, "bound", namespace))["metadata"]

    assert first["deletionGracePeriodSeconds"] == 30
    assert second["deletionGracePeriodSeconds"] == 5
    assert second["deletionTimestamp"] < first["deletionTimestamp"]
    assert third["deletionTimestamp"] == second["deletionTimestamp"]
    await api.delete(PODS, "bound", namespace, grace_seconds=0)
    with pytest.raises(NotFound):
        await api.get(PODS, "bound", namespace)


async def test_binding_gives_a_pod_its_node_once(api: Client, namespace: str) -> None:
    """pods/binding sets the node and the PodScheduled condition, and a second binding is a Conflict."""
    await api.create(PODS, pod("p"), namespace=namespace)
    path = PODS.path(namespace, "p", "binding")
    binding = {
        "apiVersion": "v1",
        "kind": "Binding",
        "metadata": {"name": "p"},
        "target": {"apiVersion": "v1", "kind": "Node", "name": "n1"},
    }
    await api.request("POST", path, body=binding)
    bound = await api.get(PODS, "p", namespace)

    assert bound["spec"]["nodeName"] == "n1"
    assert [(c["type"], c["status"]) for c in bound["status"]["conditions"]] == [("PodScheduled", "True")]
    with pytest.raises(Conflict):
        await api.request("POST", path, body=binding)
    await api.delete(PODS, "p", namespace, grace_seconds=0)


async def test_a_pods_spec_is_fixed(api: Client, namespace: str) -> None:
    """Of a pod's spec only images and a few other fields may change."""
    await api.create(PODS, pod("p"), namespace=namespace)
    image = [{"op": "replace", "path": "/spec/containers/0/image", "value": "y:2"}]
    changed = await api.patch(PODS, "p", image, namespace=namespace, type=PatchType.JSON)

    assert changed["spec"]["containers"][0]["image"] == "y:2"
    with pytest.raises(Invalid):
        await api.patch(PODS, "p", {"spec": {"restartPolicy": "Never"}}, namespace=namespace)


async def test_the_four_kinds_of_patch(api: Client, namespace: str) -> None:
    """JSON patch, merge patch, strategic merge and apply do what their names say to a list and a map."""
    await api.create(DEPLOYMENTS, deployment("d"), namespace=namespace)
    env = {"spec": {"template": {"spec": {"containers": [{"name": "c", "env": [{"name": "A", "value": "1"}]}]}}}}
    merged = await api.patch(DEPLOYMENTS, "d", env, namespace=namespace, type=PatchType.STRATEGIC)
    test_first = [
        {"op": "test", "path": "/spec/replicas", "value": 1},
        {"op": "replace", "path": "/spec/replicas", "value": 4},
    ]
    scaled = await api.patch(DEPLOYMENTS, "d", test_first, namespace=namespace, type=PatchType.JSON)
    removed = await api.patch(DEPLOYMENTS, "d", {"spec": {"minReadySeconds": None}}, namespace=namespace)
    applied = await api.apply(
        DEPLOYMENTS, {"metadata": {"name": "d", "namespace": namespace, "labels": {"l": "1"}}, "spec": {}}
    )

    container = merged["spec"]["template"]["spec"]["containers"][0]
    assert (container["image"], container["env"]) == ("x:1", [{"name": "A", "value": "1"}])
    assert scaled["spec"]["replicas"] == 4
    assert removed["spec"]["replicas"] == 4
    assert applied["metadata"]["labels"] == {"l": "1"}
    with pytest.raises(ApiError) as failed:
        await api.patch(DEPLOYMENTS, "d", test_first, namespace=namespace, type=PatchType.JSON)
    assert failed.value.status == 422
    with pytest.raises(NotFound):
        await api.patch(DEPLOYMENTS, "absent", {}, namespace=namespace)


async def test_a_patch_can_insist_on_a_revision(api: Client, namespace: str) -> None:
    """A resourceVersion inside a merge patch makes the patch conditional."""
    made = await api.create(CONFIGMAPS, config("a", k="1"), namespace=namespace)
    old = made["metadata"]["resourceVersion"]
    await api.patch(
        CONFIGMAPS, "a", {"data": {"k": "2"}, "metadata": {"resourceVersion": old}}, namespace=namespace
    )

    with pytest.raises(Conflict):
        conditional = {"data": {"k": "3"}, "metadata": {"resourceVersion": old}}
        await api.patch(CONFIGMAPS, "a", conditional, namespace=namespace)


async def test_dry_run_changes_nothing(api: Client, namespace: str) -> None:
    """dryRun=All answers as if, validates as always, and stores nothing."""
    made = await api.create(CONFIGMAPS, config("a"), namespace=namespace, dry_run=True)

    assert made["metadata"]["uid"]
    with pytest.raises(NotFound):
        await api.get(CONFIGMAPS, "a", namespace)
    with pytest.raises(Invalid):
        await api.create(PODS, pod("Bad_Name"), namespace=namespace, dry_run=True)


async def test_scale(api: Client, namespace: str) -> None:
    """The scale subresource shows and sets the replicas, and counts as a change of the spec."""
    await api.create(DEPLOYMENTS, deployment("d", 2), namespace=namespace)
    path = DEPLOYMENTS.path(namespace, "d", "scale")
    scale = await api.request("GET", path)
    await api.request("PUT", path, body=scale | {"spec": {"replicas": 5}})
    patched = await api.request(
        "PATCH", path, body={"spec": {"replicas": 6}}, headers={"Content-Type": PatchType.MERGE.value}
    )
    after = await api.get(DEPLOYMENTS, "d", namespace)

    assert (scale["kind"], scale["apiVersion"]) == ("Scale", "autoscaling/v1")
    assert scale["spec"] == {"replicas": 2}
    assert scale["status"]["selector"] == "app=d"
    assert patched["spec"] == {"replicas": 6}
    assert after["spec"]["replicas"] == 6
    assert after["metadata"]["generation"] == 3


async def test_selectors_choose(api: Client, namespace: str) -> None:
    """Label and field selectors filter lists; a malformed one is a 400."""
    for name, color in (("a", "red"), ("b", "blue"), ("c", "")):
        obj = config(name)
        obj["metadata"]["labels"] = {"color": color} if color else {}
        await api.create(CONFIGMAPS, obj, namespace=namespace)

    async def names(labels: str | None = None, fields: str | None = None) -> list[str]:
        found = await api.list(CONFIGMAPS, namespace, label_selector=labels, field_selector=fields)
        return [obj["metadata"]["name"] for obj in found.items if not obj["metadata"]["name"].startswith("kube-")]

    assert await names("color=red") == ["a"]
    assert await names("color in (red,blue)") == ["a", "b"]
    assert await names("color!=red") == ["b", "c"]
    assert await names("!color") == ["c"]
    assert await names("color") == ["a", "b"]
    assert await names(fields="metadata.name=b") == ["b"]
    assert await names(fields="metadata.name!=b") == ["a", "c"]
    with pytest.raises(BadRequest):
        await names("a in b")


async def test_field_selectors_of_pods(api: Client, namespace: str) -> None:
    """Pods can be chosen by node and by phase."""
    await api.create(PODS, pod("free"), namespace=namespace)
    await api.create(PODS, pod("bound", nodeName="n1"), namespace=namespace)

    on_node = await api.list(PODS, namespace, field_selector="spec.nodeName=n1")
    pending = await api.list(PODS, namespace, field_selector="status.phase=Pending,spec.nodeName=")

    assert [p["metadata"]["name"] for p in on_node.items] == ["bound"]
    assert [p["metadata"]["name"] for p in pending.items] == ["free"]
    await api.delete(PODS, "bound", namespace, grace_seconds=0)


async def test_pages_are_one_snapshot(api: Client, namespace: str) -> None:
    """A list read page by page shows the state of its first page, whatever happens meanwhile."""
    for number in range(5):
        await api.create(LEASES, {"metadata": {"name": f"l{number}"}}, namespace=namespace)
    first = await api.list_page(LEASES, namespace, query={"limit": 2})
    await api.delete(LEASES, "l3", namespace)
    await api.create(LEASES, {"metadata": {"name": "l9"}}, namespace=namespace)
    second = await api.list_page(LEASES, namespace, query={"limit": 2, "continue": first.continue_token})
    third = await api.list_page(LEASES, namespace, query={"limit": 2, "continue": second.continue_token})

    pages = [[obj["metadata"]["name"] for obj in page.items] for page in (first, second, third)]
    assert pages == [["l0", "l1"], ["l2", "l3"], ["l4"]]
    assert first.resource_version == second.resource_version == third.resource_version
    assert third.continue_token == ""
    with pytest.raises(BadRequest):
        await api.list_page(LEASES, namespace, query={"continue": "nonsense"})


async def test_lists_at_a_revision(api: Client, namespace: str) -> None:
    """resourceVersionMatch=Exact reads the past, NotOlderThan the present; the future is a retryable error."""
    made = await api.create(LEASES, {"metadata": {"name": "a"}}, namespace=namespace)
    revision = made["metadata"]["resourceVersion"]
    await api.create(LEASES, {"metadata": {"name": "b"}}, namespace=namespace)

    async def names(match: str, at: str = revision) -> list[str]:
        query = {"resourceVersion": at, "resourceVersionMatch": match}
        found = await api.list_page(LEASES, namespace, query=query)
        return sorted(o["metadata"]["name"] for o in found.items)

    assert await names("Exact") == ["a"]
    assert await names("NotOlderThan") == ["a", "b"]
    with pytest.raises(ApiError) as forbidden:
        await api.list_page(LEASES, namespace, query={"resourceVersionMatch": "Exact"})
    assert forbidden.value.status == 422


async def test_collections_can_be_deleted_by_selector(api: Client, namespace: str) -> None:
    """DELETE on a collection removes what the selector names and leaves the rest."""
    for name in ("a", "b"):
        obj = config(name)
        obj["metadata"]["labels"] = {"name": name}
        await api.create(CONFIGMAPS, obj, namespace=namespace)
    await api.request("DELETE", CONFIGMAPS.path(namespace), query={"labelSelector": "name=a"})

    with pytest.raises(NotFound):
        await api.get(CONFIGMAPS, "a", namespace)
    assert await api.get(CONFIGMAPS, "b", namespace)


async def test_events_have_two_shapes(api: Client, namespace: str) -> None:
    """An event written through v1 is the same event in events.k8s.io, with that group's field names."""
    core = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": "e"},
        "involvedObject": {"kind": "Pod", "name": "p", "namespace": namespace},
        "reason": "Because",
        "message": "a text",
        "type": "Warning",
        "count": 3,
        "source": {"component": "test"},
    }
    await api.request("POST", f"/api/v1/namespaces/{namespace}/events", body=core)
    group = await api.request("GET", "/apis/events.k8s.io")
    version = group["preferredVersion"]["version"]
    path = f"/apis/events.k8s.io/{version}/namespaces/{namespace}/events"
    new = await api.request("GET", f"{path}/e")
    chosen = await api.request(
        "GET", f"/api/v1/namespaces/{namespace}/events?fieldSelector=involvedObject.name%3Dp"
    )

    assert (new["note"], new["regarding"]["name"], new["deprecatedCount"]) == ("a text", "p", 3)
    assert [e["metadata"]["name"] for e in chosen["items"]] == ["e"]


async def test_namespaces_go_in_two_steps(api: Client) -> None:
    """A deleted namespace is Terminating, takes nothing new, and ends when its finalizer is taken away."""
    name = f"ns-{id(api)}"
    made = await api.create(NAMESPACES, {"metadata": {"name": name}})
    await api.delete(NAMESPACES, name)
    going = await api.get(NAMESPACES, name)

    assert made["status"]["phase"] == "Active"
    assert made["spec"]["finalizers"] == ["kubernetes"]
    assert going["status"]["phase"] == "Terminating"
    with pytest.raises(Forbidden) as refused:
        await api.create(CONFIGMAPS, config("a"), namespace=name)
    assert refused.value.details
    assert refused.value.details["causes"][0]["reason"] == "NamespaceTerminating"
    finalized = going | {"spec": {"finalizers": []}}
    await api.request("PUT", NAMESPACES.path(None, name, "finalize"), body=finalized)
    for _ in range(50):
        try:
            await api.get(NAMESPACES, name)
        except NotFound:
            break
        await asyncio.sleep(0.05)  # the real server needs a moment
    else:
        pytest.fail("the namespace is still there")


async def test_nodes_keep_the_status_of_their_creator(api: Client) -> None:
    """A node agent registers its node with its status in one request."""
    name = f"node-{id(api)}"
    status = {"capacity": {"cpu": "2"}, "conditions": [{"type": "Ready", "status": "True"}]}
    made = await api.create(NODES, {"metadata": {"name": name}, "status": status})

    assert made["status"]["capacity"] == {"cpu": "2"}
    await api.delete(NODES, name)
