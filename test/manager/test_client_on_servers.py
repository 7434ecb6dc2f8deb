"""Every verb and option of the client, against API servers."""

from __future__ import annotations

import asyncio
import base64
import uuid
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from manager.client import Client, FieldValidation, PatchType
from manager.errors import (
    AlreadyExists,
    ApiError,
    ApplyConflict,
    BadRequest,
    Conflict,
    InvalidRequest,
    MethodNotAllowed,
    NotFound,
    UnsupportedMediaType,
)
from manager.patches import json_patch, merge_patch
from manager.resources import CONFIGMAPS, CRDS, DEPLOYMENTS, NAMESPACES, NODES, PODS, SERVICEACCOUNTS
from manager.types import Obj, Resource

if TYPE_CHECKING:
    from test.conftest import Server
else:
    Server = Any

CSRS = Resource(
    "certificates.k8s.io", "v1", "certificatesigningrequests", "CertificateSigningRequest", namespaced=False
)


@pytest.fixture
async def live(api_server: Server) -> AsyncIterator[Client]:
    """A client of the server under test; its field manager is ``tester``."""
    async with Client(api_server.config, field_manager="tester") as client:
        yield client


def config_map(name: str, **data: str) -> Obj:
    return {"metadata": {"name": name}, "data": data}


def pod(name: str) -> Obj:
    return {"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "i"}]}}


def deployment(name: str, replicas: int = 1) -> Obj:
    labels = {"app": name}
    template = {"metadata": {"labels": labels}, "spec": pod("x")["spec"]}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template},
    }


def managers(obj: Obj) -> set[str]:
    return {entry["manager"] for entry in obj["metadata"].get("managedFields") or []}


def without_time(obj: Obj) -> Obj:
    """The object without what says when and how often it was written."""
    volatile = ("managedFields", "resourceVersion")
    return {**obj, "metadata": {k: v for k, v in obj["metadata"].items() if k not in volatile}}


# ------------------------------------------------------------------ dry run


@pytest.mark.acceptance("FW-G05")
@pytest.mark.parametrize("how", ["per call", "client", "view"])
async def test_a_dry_run_changes_nothing_whatever_the_verb(
    live: Client, api_server: Server, namespace: str, how: str
) -> None:
    """Each verb runs through all stages and answers, and afterwards the object is what it was."""
    dep = {**deployment("d"), "metadata": {"name": "d", "namespace": namespace}}
    stored = await live.create(DEPLOYMENTS, dep)
    dry = {"dry_run": True} if how == "per call" else {}
    async with Client(api_server.config, field_manager="tester", dry_run=how == "client") as other:
        client = other.with_defaults(dry_run=True) if how == "view" else other
        scaled = {"spec": {"replicas": 7}}
        fresh = {**deployment("new"), "metadata": {"name": "new", "namespace": namespace}}
        answers = [
            await client.create(DEPLOYMENTS, fresh, **dry),
            await client.replace(DEPLOYMENTS, {**stored, "spec": {**stored["spec"], "replicas": 7}}, **dry),
            await client.patch(DEPLOYMENTS, "d", scaled, namespace=namespace, **dry),
            await client.apply(DEPLOYMENTS, {**dep, "spec": {**dep["spec"], "replicas": 7}}, **dry),
        ]
        status = {"observedGeneration": 9}
        answers += [
            await client.replace(DEPLOYMENTS, {**stored, "status": status}, subresource="status", **dry),
            await client.patch(
                DEPLOYMENTS, "d", {"status": status}, namespace=namespace, subresource="status", **dry
            ),
            await client.patch_status(DEPLOYMENTS, stored, status, **dry),
            await client.apply(
                DEPLOYMENTS,
                {
                    "apiVersion": "apps/v1",
                    "kind": "Deployment",
                    "metadata": dep["metadata"],
                    "status": status,
                },
                subresource="status",
                **dry,
            ),
            await client.patch(DEPLOYMENTS, "d", scaled, namespace=namespace, subresource="scale", **dry),
        ]
        await client.delete(DEPLOYMENTS, "d", namespace, **dry)
        await client.delete_all_of(DEPLOYMENTS, namespace, **dry)

    assert [a["spec"]["replicas"] for a in answers] == [1, 7, 7, 7, 1, 1, 1, 1, 7]
    assert [a.get("status", {}).get("observedGeneration") for a in answers[4:8]] == [9, 9, 9, 9]
    assert await live.get(DEPLOYMENTS, "d", namespace) == stored
    with pytest.raises(NotFound):
        await live.get(DEPLOYMENTS, "new", namespace)


# ------------------------------------------------------------------ field owner, field validation


@pytest.mark.acceptance("FW-G06")
async def test_every_write_is_owned_by_the_client_s_manager_unless_the_call_names_one(
    live: Client, namespace: str
) -> None:
    """The default holds for create, replace, patch, apply and status; the call's own name wins."""
    view = live.with_defaults(field_manager="other").in_namespace(namespace)
    confined = live.in_namespace(namespace)
    for name, client, given, owner in (
        ("by-client", confined, {}, "tester"),
        ("by-view", view, {}, "other"),
        ("by-call", view, {"field_manager": "mine"}, "mine"),
    ):
        made = await client.create(CONFIGMAPS, config_map(name, a="1"), **given)
        assert managers(made) == {owner}
        patched = await client.patch(CONFIGMAPS, name, {"data": {"b": "2"}}, **given)
        replaced = await client.replace(CONFIGMAPS, {**patched, "data": {"c": "3"}}, **given)
        assert managers(replaced) == {owner}
        applied = await client.apply(CONFIGMAPS, config_map(f"{name}-applied", a="1"), **given)
        assert [(e["manager"], e["operation"]) for e in applied["metadata"]["managedFields"]] == [(owner, "Apply")]


@pytest.mark.acceptance("FW-G06")
@pytest.mark.parametrize("verb", ["patch", "patch_status", "replace", "apply"])
@pytest.mark.parametrize("given", [{}, {"field_manager": "stater"}], ids=["default", "by call"])
async def test_a_status_write_is_owned_too(live: Client, namespace: str, verb: str, given: dict[str, str]) -> None:
    """The subresource's fields get the same manager: the client's, or the one that the call names."""
    stored = await live.create(DEPLOYMENTS, deployment("d"), namespace=namespace, field_manager="maker")
    status = {"observedGeneration": 5}
    client: Any = live.with_defaults(field_manager="client").in_namespace(namespace)
    if verb == "patch":
        changed = await client.patch(DEPLOYMENTS, "d", {"status": status}, subresource="status", **given)
    elif verb == "patch_status":
        changed = await client.patch_status(DEPLOYMENTS, stored, status, **given)
    elif verb == "replace":
        changed = await client.replace(DEPLOYMENTS, {**stored, "status": status}, subresource="status", **given)
    else:
        body = {"metadata": {"name": "d"}, "status": status}
        changed = await client.apply(DEPLOYMENTS, body, subresource="status", **given)

    assert managers(changed) == {"maker", given.get("field_manager", "client")}


@pytest.mark.acceptance("FW-G06")
async def test_field_validation_has_a_default_and_an_override(
    live: Client, api_server: Server, namespace: str
) -> None:
    """Strict refuses an unknown field, Ignore and Warn drop it; a call's own wish wins. A server of before 1.25
    does not know the wish and drops the field silently."""
    heard: list[str] = []
    unknown = {**config_map("c"), "bogus": 1}
    async with Client(
        api_server.config, field_validation=FieldValidation.STRICT, on_warning=heard.append
    ) as client:
        if api_server.kind == "real":
            assert "bogus" not in await client.create(CONFIGMAPS, unknown, namespace=namespace)
            assert heard == []
            return
        with pytest.raises(BadRequest, match="bogus"):
            await client.create(CONFIGMAPS, unknown, namespace=namespace)
        ignored = await client.create(
            CONFIGMAPS, unknown, namespace=namespace, field_validation=FieldValidation.IGNORE
        )
        assert ("bogus" in ignored, heard) == (False, [])
        warned = client.with_defaults(field_validation=FieldValidation.WARN)
        await warned.replace(CONFIGMAPS, {**ignored, "bogus": 2})
        assert len(heard) == 1
        assert "bogus" in heard[0]
        with pytest.raises(BadRequest, match="bogus"):
            await client.patch(CONFIGMAPS, "c", {"bogus": 3}, namespace=namespace)
        stored = await client.create(DEPLOYMENTS, deployment("d"), namespace=namespace)
        with pytest.raises(BadRequest, match="bogus"):
            await client.patch_status(DEPLOYMENTS, stored, {"bogus": 1})
        odd = {**stored, "status": {"bogus": 1}}
        with pytest.raises(BadRequest, match="bogus"):
            await client.replace(DEPLOYMENTS, odd, subresource="status")
        await client.replace(DEPLOYMENTS, odd, subresource="status", field_validation=FieldValidation.IGNORE)


@pytest.mark.acceptance("FW-G06")
async def test_an_apply_refuses_unknown_fields_whatever_the_default(live: Client, namespace: str) -> None:
    """A server cannot track a field that it does not know, and says so."""
    lenient = live.with_defaults(field_validation=FieldValidation.IGNORE)
    with pytest.raises(ApiError, match="bogus"):
        await lenient.apply(CONFIGMAPS, {**config_map("c"), "bogus": 1}, namespace=namespace)


# ------------------------------------------------------------------ status, metadata only


@pytest.mark.acceptance("FW-G07")
@pytest.mark.parametrize("verb", ["replace", "patch", "apply"])
async def test_a_status_write_leaves_the_spec_alone(live: Client, namespace: str, verb: str) -> None:
    """Through the status subresource only the status changes, and the generation does not."""
    stored = await live.create(DEPLOYMENTS, deployment("d"), namespace=namespace)
    both = {**stored, "spec": {**stored["spec"], "replicas": 9}, "status": {"observedGeneration": 4}}
    if verb == "replace":
        await live.replace(DEPLOYMENTS, both, subresource="status")
    elif verb == "patch":
        change = {"spec": {"replicas": 9}, "status": {"observedGeneration": 4}}
        await live.patch(DEPLOYMENTS, "d", change, namespace=namespace, subresource="status")
    else:
        body = {"metadata": {"name": "d", "namespace": namespace}, "status": {"observedGeneration": 4}}
        await live.apply(DEPLOYMENTS, body, subresource="status")
    now = await live.get(DEPLOYMENTS, "d", namespace)

    assert (now["spec"], now["status"]["observedGeneration"]) == (stored["spec"], 4)
    assert now["metadata"]["generation"] == stored["metadata"]["generation"]


@pytest.mark.acceptance("FW-G07")
async def test_a_main_write_leaves_the_status_alone(live: Client, namespace: str) -> None:
    """Without the subresource a status in the object is ignored."""
    stored = await live.create(DEPLOYMENTS, deployment("d"), namespace=namespace)
    change = {"spec": {"replicas": 2}, "status": {"observedGeneration": 77}}
    now = await live.patch(DEPLOYMENTS, "d", change, namespace=namespace)

    assert (now["spec"]["replicas"], now.get("status")) == (2, stored.get("status"))


@pytest.mark.acceptance("FW-G07")
async def test_a_status_that_is_so_already_is_not_sent(live: Client, namespace: str) -> None:
    """The object does not get a new resourceVersion, and the caller gets back what was given."""
    stored = await live.create(DEPLOYMENTS, deployment("d"), namespace=namespace)
    written = await live.patch_status(DEPLOYMENTS, stored, {"observedGeneration": 3})
    again = await live.patch_status(DEPLOYMENTS, written, {"observedGeneration": 3})

    assert again is written
    assert (await live.get(DEPLOYMENTS, "d", namespace)) == written
    with pytest.raises(Conflict):
        await live.patch_status(DEPLOYMENTS, stored, {"observedGeneration": 5}, optimistic_lock=True)


@pytest.mark.acceptance("FW-G07")
async def test_a_metadata_only_client_reads_patches_and_deletes(live: Client, namespace: str) -> None:
    """It sees metadata and nothing else, in get, list, watch and the answers to patches; create, replace and apply
    are refused before anything is sent."""
    client = live.metadata_only().in_namespace(namespace)
    whole = await live.create(CONFIGMAPS, config_map("c", secret="x"), namespace=namespace)
    partial = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": whole["metadata"]}

    assert await client.get(CONFIGMAPS, "c") == partial
    listed = await client.list(CONFIGMAPS, field_selector="metadata.name=c")
    assert listed.items == [partial]
    patched = await client.patch(CONFIGMAPS, "c", {"metadata": {"labels": {"a": "b"}}})
    assert (patched["metadata"]["labels"], sorted(patched)) == ({"a": "b"}, ["apiVersion", "kind", "metadata"])
    async with aclosing(client.watch(CONFIGMAPS, resource_version=listed.resource_version)) as events:
        event = await anext(events)
    assert (event.type, event.object["metadata"]["labels"], "data" in event.object) == (
        "MODIFIED",
        {"a": "b"},
        False,
    )
    for refused in (client.create, client.replace, client.apply):
        with pytest.raises(InvalidRequest, match="only the metadata"):
            await refused(CONFIGMAPS, patched)
    assert (await live.get(CONFIGMAPS, "c", namespace))["data"] == {"secret": "x"}
    await client.delete(CONFIGMAPS, "c")
    with pytest.raises(NotFound):
        await client.get(CONFIGMAPS, "c")


# ------------------------------------------------------------------ server-side apply


@pytest.mark.acceptance("FW-G08")
async def test_an_apply_creates_and_updates(live: Client, namespace: str) -> None:
    """The second apply changes a value and gives up a field that it leaves out."""
    client = live.in_namespace(namespace)
    first = await client.apply(CONFIGMAPS, config_map("c", a="1", b="1"))
    second = await client.apply(CONFIGMAPS, config_map("c", a="2"))

    assert (first["data"], second["data"]) == ({"a": "1", "b": "1"}, {"a": "2"})
    assert first["metadata"]["uid"] == second["metadata"]["uid"]
    # What comes from a server goes back as it is: managedFields are left out of what is sent.
    assert (await client.apply(CONFIGMAPS, {**second, "data": {"a": "3"}}))["data"] == {"a": "3"}


@pytest.mark.acceptance("FW-G08")
async def test_a_conflict_of_managers_names_fields_and_the_other(live: Client, namespace: str) -> None:
    """Without force the error is typed and has one cause per field; with force the field changes its owner."""
    client = live.in_namespace(namespace)
    await client.apply(CONFIGMAPS, config_map("c", a="1", b="1", c="1"), field_manager='one "quoted"')
    with pytest.raises(ApplyConflict) as caught:
        await client.apply(CONFIGMAPS, config_map("c", a="2", b="2"), field_manager="two", force=False)

    assert caught.value.managers == ('one "quoted"',)
    assert sorted(cause.field for cause in caught.value.causes) == [".data.a", ".data.b"]
    assert isinstance(caught.value, Conflict)
    taken = await client.apply(CONFIGMAPS, config_map("c", a="2"), field_manager="two")
    assert taken["data"] == {"a": "2", "b": "1", "c": "1"}


@pytest.mark.acceptance("FW-G08")
async def test_a_field_manager_that_no_server_takes_is_refused_at_once(live: Client, namespace: str) -> None:
    """128 bytes are the limit, and a server agrees with us about it."""
    longest = "m" * 128
    assert managers(
        await live.apply(CONFIGMAPS, config_map("c", a="1"), namespace=namespace, field_manager=longest)
    ) == {longest}
    for bad in ("m" * 129, "ü" * 65, "line\nbreak"):
        with pytest.raises(InvalidRequest, match="field manager"):
            await live.apply(CONFIGMAPS, config_map("c"), namespace=namespace, field_manager=bad)
    with pytest.raises(InvalidRequest, match="field manager"):
        live.with_defaults(field_manager="m" * 129)
    with pytest.raises(ApiError, match="128"):
        await live.request(
            "PATCH",
            f"/api/v1/namespaces/{namespace}/configmaps/c",
            query={"fieldManager": "m" * 129},
            body={"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}},
            headers={"Content-Type": PatchType.APPLY.value},
        )


# ------------------------------------------------------------------ subresources


@pytest.mark.acceptance("FW-G09")
async def test_scale_is_read_replaced_and_patched(live: Client, namespace: str) -> None:
    """The scale of a Deployment is an object of its own, and sets its replicas."""
    await live.create(DEPLOYMENTS, deployment("d"), namespace=namespace)
    scale = await live.get(DEPLOYMENTS, "d", namespace, subresource="scale")
    assert (scale["kind"], scale["spec"]) == ("Scale", {"replicas": 1})

    scale = await live.replace(DEPLOYMENTS, {**scale, "spec": {"replicas": 3}}, subresource="scale")
    assert scale["spec"] == {"replicas": 3}
    await live.patch(DEPLOYMENTS, "d", {"spec": {"replicas": 4}}, namespace=namespace, subresource="scale")
    assert (await live.get(DEPLOYMENTS, "d", namespace))["spec"]["replicas"] == 4


@pytest.mark.acceptance("FW-G09")
async def test_a_token_is_created_for_an_account(live: Client, namespace: str) -> None:
    """The body's kind is known by the name of the subresource."""
    await live.create(SERVICEACCOUNTS, {"metadata": {"name": "robot"}}, namespace=namespace)
    answer = await live.create(
        SERVICEACCOUNTS,
        {"spec": {"audiences": ["https://kubernetes.default.svc"], "expirationSeconds": 600}},
        name="robot",
        namespace=namespace,
        subresource="token",
    )

    assert answer["kind"] == "TokenRequest"
    assert len(answer["status"]["token"].split(".")) == 3


@pytest.mark.acceptance("FW-G09")
async def test_a_binding_puts_a_pod_on_a_node(live: Client, namespace: str) -> None:
    """What the scheduler does."""
    node = f"n-{uuid.uuid4().hex[:8]}"
    await live.create(NODES, {"metadata": {"name": node}})
    await live.create(PODS, pod("p"), namespace=namespace)
    target = {"apiVersion": "v1", "kind": "Node", "name": node}
    await live.create(
        PODS,
        {"metadata": {"name": "p"}, "target": target},
        name="p",
        namespace=namespace,
        subresource="binding",
    )

    assert (await live.get(PODS, "p", namespace))["spec"]["nodeName"] == node
    await live.delete(PODS, "p", namespace, grace_seconds=0)
    await live.delete(NODES, node)


@pytest.mark.acceptance("FW-G09")
async def test_an_eviction_deletes_a_pod(live: Client, api_server: Server, namespace: str) -> None:
    """The kind of the body may be said; 1.20 knows only the beta of policy."""
    await live.create(PODS, pod("p"), namespace=namespace)
    body: Obj = {"metadata": {"name": "p", "namespace": namespace}, "deleteOptions": {"gracePeriodSeconds": 0}}
    if api_server.kind == "real":
        body["apiVersion"] = "policy/v1beta1"
    await live.create(PODS, body, name="p", namespace=namespace, subresource="eviction")

    with pytest.raises(NotFound):
        await live.get(PODS, "p", namespace)


@pytest.mark.acceptance("FW-G09")
async def test_an_approval_is_written_to_a_signing_request(live: Client) -> None:
    """The approval subresource takes the request itself, with a condition more."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "someone")])
    csr = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    name = f"csr-{uuid.uuid4().hex[:8]}"
    spec = {
        "request": base64.b64encode(csr.public_bytes(serialization.Encoding.PEM)).decode(),
        "signerName": "example.com/nobody",
        "usages": ["client auth"],
    }
    made = await live.create(CSRS, {"metadata": {"name": name}, "spec": spec})
    condition = {"type": "Approved", "status": "True", "reason": "Test", "message": "by a test"}
    made["status"] = {"conditions": [condition]}
    await live.replace(CSRS, made, subresource="approval")
    now = await live.get(CSRS, name)
    await live.delete(CSRS, name)

    assert [(c["type"], c["reason"]) for c in now["status"]["conditions"]] == [("Approved", "Test")]


# ------------------------------------------------------------------ warnings


@pytest.mark.acceptance("FW-G10")
async def test_warnings_reach_the_handler_once(
    api_server: Server, namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A server's Warning is told to the handler, or the log, the first time that it is sent."""
    heard: list[str] = []
    async with Client(api_server.config, on_warning=heard.append) as client, Client(api_server.config) as plain:
        if api_server.kind == "real":
            old = Resource("extensions", "v1beta1", "ingresses", "Ingress")
            for asker in (client, client, plain, plain):
                await asker.list(old, namespace)
            words = "deprecated"
        else:
            odd = {**config_map("c"), "bogus": 1}
            for asker in (client, client, plain, plain):
                await asker.create(CONFIGMAPS, odd, namespace=namespace, dry_run=True)
            words = "bogus"

    assert len(heard) == 1
    assert words in heard[0]
    logged = [record.getMessage() for record in caplog.records if record.name == "kaito.manager.client"]
    assert logged == [f"server warning text={heard[0]}"]


# ------------------------------------------------------------------ int64


@pytest.mark.acceptance("FW-G12")
async def test_large_and_similar_numbers_arrive_as_they_are(live: Client) -> None:
    """Two numbers that a float cannot tell apart go there and back in merge and JSON patches."""
    low, high = 2**53, 2**53 + 1
    group = f"g{uuid.uuid4().hex[:8]}.example.com"
    numbers = Resource(group, "v1", "numbers", "Number", namespaced=False)
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    names = {"plural": "numbers", "singular": "number", "kind": "Number", "listKind": "NumberList"}
    crd = {
        "metadata": {"name": f"numbers.{group}"},
        "spec": {"group": group, "scope": "Cluster", "names": names, "versions": [version]},
    }
    await live.create(CRDS, crd)
    try:
        before = await _eventually(live, numbers, {"metadata": {"name": "n"}, "spec": {"value": low}})
        after = {**before, "spec": {"value": high}}
        merged = await live.patch(numbers, "n", merge_patch(before, after, optimistic_lock=True))
        assert merged["spec"] == {"value": high}
        largest = {**merged, "spec": {"value": 2**63 - 1}}
        patched = await live.patch(numbers, "n", json_patch(merged, largest), type=PatchType.JSON)
        assert patched["spec"] == {"value": 2**63 - 1}
        with pytest.raises(UnsupportedMediaType):
            await live.patch(numbers, "n", {"spec": {}}, type=PatchType.STRATEGIC)
    finally:
        await live.delete(CRDS, f"numbers.{group}")


async def _eventually(client: Client, resource: Resource, obj: Obj) -> Obj:
    async with asyncio.timeout(20):
        while True:
            try:
                return await client.create(resource, obj)
            except NotFound:  # the definition is not served yet
                await asyncio.sleep(0.05)


# ------------------------------------------------------------------ patches, deletes, lists


async def test_each_kind_of_patch_does_what_it_says(live: Client, namespace: str) -> None:
    """JSON patch addresses, merge patch replaces lists, strategic merge patch merges them by key."""
    client = live.in_namespace(namespace)
    await client.create(PODS, pod("p"))
    label = [{"op": "add", "path": "/metadata/labels", "value": {"a": "b"}}]
    assert (await client.patch(PODS, "p", label, type=PatchType.JSON))["metadata"]["labels"] == {"a": "b"}
    image = {"spec": {"containers": [{"name": "c", "image": "new"}]}}
    strategic = await client.patch(PODS, "p", image, type=PatchType.STRATEGIC)
    assert strategic["spec"]["containers"][0]["image"] == "new"
    assert "imagePullPolicy" in strategic["spec"]["containers"][0]
    gone = await client.patch(PODS, "p", {"metadata": {"labels": None}})
    assert "labels" not in gone["metadata"]
    await client.delete(PODS, "p", grace_seconds=0)


async def test_preconditions_of_a_delete(live: Client, namespace: str) -> None:
    """Another uid or version is a conflict, and the object stays."""
    made = await live.create(CONFIGMAPS, config_map("c"), namespace=namespace)
    with pytest.raises(Conflict):
        await live.delete(CONFIGMAPS, "c", namespace, uid="another")
    with pytest.raises(Conflict):
        await live.delete(CONFIGMAPS, "c", namespace, resource_version="1")
    meta = made["metadata"]
    await live.delete(CONFIGMAPS, "c", namespace, uid=meta["uid"], resource_version=meta["resourceVersion"])
    with pytest.raises(NotFound):
        await live.delete(CONFIGMAPS, "c", namespace)


async def test_all_of_a_selection_are_deleted(live: Client, namespace: str) -> None:
    """One request deletes what the selector matches; a kind without the verb says so."""
    for name, color in (("a", "red"), ("b", "red"), ("c", "blue")):
        obj = config_map(name)
        obj["metadata"]["labels"] = {"color": color}
        await live.create(CONFIGMAPS, obj, namespace=namespace)
    await live.delete_all_of(CONFIGMAPS, namespace, label_selector="color=red")
    left = await live.list(CONFIGMAPS, namespace, label_selector="color")
    with pytest.raises(MethodNotAllowed):
        await live.delete_all_of(NAMESPACES, label_selector="no=such")

    assert [obj["metadata"]["name"] for obj in left.items] == ["c"]


async def test_a_list_comes_in_pages(live: Client, namespace: str) -> None:
    """Pages are put together; a page is as large as asked for."""
    for index in range(5):
        await live.create(CONFIGMAPS, config_map(f"c{index}"), namespace=namespace)
    whole = await live.list(CONFIGMAPS, namespace, limit=2)
    page = await live.list_page(CONFIGMAPS, namespace, query={"limit": 2})

    assert [obj["metadata"]["name"] for obj in whole.items if obj["metadata"]["name"] != "kube-root-ca.crt"] == [
        f"c{index}" for index in range(5)
    ]
    assert (len(page.items), bool(page.continue_token)) == (2, True)
    assert all((obj["apiVersion"], obj["kind"]) == ("v1", "ConfigMap") for obj in whole.items)


# ------------------------------------------------------------------ one namespace


async def test_a_client_of_one_namespace(live: Client, namespace: str) -> None:
    """It need not be told the namespace; it refuses another one and what has none, in every verb."""
    client = live.in_namespace(namespace)
    made = await client.create(CONFIGMAPS, config_map("c", a="1"))
    assert made["metadata"]["namespace"] == namespace
    assert await client.get(CONFIGMAPS, "c") == made
    assert [o["metadata"]["namespace"] for o in (await client.list(CONFIGMAPS)).items] == [namespace]
    with pytest.raises(AlreadyExists):
        await client.create(CONFIGMAPS, config_map("c"), namespace=namespace)

    elsewhere = {"metadata": {"name": "c", "namespace": "default"}}
    refused = [
        lambda: client.get(CONFIGMAPS, "c", "default"),
        lambda: client.list(CONFIGMAPS, "default"),
        lambda: client.create(CONFIGMAPS, elsewhere),
        lambda: client.replace(CONFIGMAPS, elsewhere),
        lambda: client.patch(CONFIGMAPS, "c", {}, namespace="default"),
        lambda: client.apply(CONFIGMAPS, elsewhere),
        lambda: client.delete(CONFIGMAPS, "c", "default"),
        lambda: client.delete_all_of(CONFIGMAPS, "default"),
        lambda: client.get(NODES, "n"),
        lambda: client.list(NODES),
        lambda: client.create(NODES, {"metadata": {"name": "n"}}),
        lambda: client.patch(NODES, "n", {}),
        lambda: client.delete(NODES, "n"),
    ]
    for call in refused:
        with pytest.raises(InvalidRequest):
            await call()
    for watch in (lambda: client.watch_batches(CONFIGMAPS, "default"), lambda: client.watch_batches(NODES)):
        with pytest.raises(InvalidRequest):
            watch()
    with pytest.raises(InvalidRequest):
        client.in_namespace("default")
