"""Custom resources, on both API servers."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest

from kaito.local.apiserver.server import ApiServer
from manager.client import Client, PatchType
from manager.errors import ApiError, BadRequest, Conflict, Invalid, NotFound
from manager.resources import CRDS
from manager.types import Obj, Resource

STRUCTURE: Obj = {
    "type": "object",
    "properties": {
        "spec": {
            "type": "object",
            "required": ["size"],
            "properties": {
                "size": {"type": "integer", "minimum": 1},
                "color": {"type": "string", "default": "red", "enum": ["red", "blue"]},
                "replicas": {"type": "integer"},
            },
        },
        "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
    },
}


def definition(group: str) -> Obj:
    subresources = {
        "status": {},
        "scale": {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"},
    }
    versions = [
        {
            "name": name,
            "served": True,
            "storage": name == "v1",
            "schema": {"openAPIV3Schema": STRUCTURE},
            "subresources": subresources,
        }
        for name in ("v1", "v1beta1")
    ]
    return {
        "metadata": {"name": f"widgets.{group}"},
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {"plural": "widgets", "kind": "Widget"},
            "versions": versions,
        },
    }


@dataclass
class Widgets:
    api: Client
    v1: Resource
    v1beta1: Resource
    crd: str


async def established(api: Client, name: str) -> Obj:
    for _ in range(100):
        crd = await api.get(CRDS, name)
        conditions = {c["type"]: c["status"] for c in (crd.get("status") or {}).get("conditions") or ()}
        if conditions.get("Established") == "True":
            return crd
        await asyncio.sleep(0.05)  # a real server establishes a moment later
    raise AssertionError("not established")


async def served(api: Client, resource: Resource, namespace: str) -> None:
    for _ in range(100):
        try:
            await api.list(resource, namespace)
            return
        except NotFound:
            await asyncio.sleep(0.05)


@pytest.fixture
async def widgets(api_server: Any, namespace: str) -> AsyncIterator[Widgets]:
    group = f"g{uuid.uuid4().hex[:8]}.example.com"
    async with Client(api_server.config, field_manager="test") as api:
        await api.create(CRDS, definition(group))
        await established(api, f"widgets.{group}")
        found = Widgets(
            api,
            Resource(group, "v1", "widgets", "Widget"),
            Resource(group, "v1beta1", "widgets", "Widget"),
            f"widgets.{group}",
        )
        await served(api, found.v1, namespace)
        await served(api, found.v1beta1, namespace)
        yield found
        try:
            await api.delete(CRDS, found.crd)
        except NotFound:
            pass


def widget(name: str, **spec: Any) -> Obj:
    return {"metadata": {"name": name}, "spec": {"size": 1, **spec}}


async def test_a_definition_completes_itself(widgets: Widgets) -> None:
    """Names that are left out follow from the kind, and the status says what is served and stored."""
    crd = await established(widgets.api, widgets.crd)

    assert crd["spec"]["names"]["singular"] == "widget"
    assert crd["spec"]["names"]["listKind"] == "WidgetList"
    assert crd["spec"]["conversion"] == {"strategy": "None"}
    assert crd["status"]["acceptedNames"]["plural"] == "widgets"
    assert crd["status"]["storedVersions"] == ["v1"]


async def test_the_schema_defaults_prunes_and_refuses(widgets: Widgets, namespace: str) -> None:
    """Defaults appear, unknown fields vanish, and what breaks the schema is refused by field."""
    made = await widgets.api.create(widgets.v1, widget("a", colr="x"), namespace=namespace)

    assert made["spec"] == {"size": 1, "color": "red"}
    with pytest.raises(Invalid) as refused:
        await widgets.api.create(widgets.v1, widget("b", size=0, color="green"), namespace=namespace)
    assert refused.value.details
    assert {c["field"] for c in refused.value.details["causes"]} == {"spec.size", "spec.color"}


async def test_every_version_shows_the_same_object(widgets: Widgets, namespace: str) -> None:
    """Conversion None changes the apiVersion alone, in reads, writes and watches."""
    made = await widgets.api.create(widgets.v1beta1, widget("a"), namespace=namespace)
    other = await widgets.api.get(widgets.v1, "a", namespace)
    listed = await widgets.api.list(widgets.v1beta1, namespace)
    watch = widgets.api.watch(widgets.v1beta1, namespace, timeout_seconds=1)
    seen = [event async for event in watch if event.type == "ADDED"]

    assert made["apiVersion"].endswith("/v1beta1")
    assert other["apiVersion"].endswith("/v1")
    same = ("uid", "resourceVersion", "creationTimestamp", "generation")
    assert [made["metadata"][key] for key in same] == [other["metadata"][key] for key in same]
    assert listed.items[0]["apiVersion"] == seen[0].object["apiVersion"] == made["apiVersion"]


async def test_status_and_spec_are_apart(widgets: Widgets, namespace: str) -> None:
    """Create and update lose the status; a status write loses spec and metadata and keeps the generation."""
    made = await widgets.api.create(widgets.v1, widget("a") | {"status": {"phase": "x"}}, namespace=namespace)
    patch = {"status": {"phase": "Up"}, "spec": {"size": 9}, "metadata": {"labels": {"a": "b"}}}
    status = await widgets.api.patch(widgets.v1, "a", patch, namespace=namespace, subresource="status")
    main = await widgets.api.patch(
        widgets.v1, "a", {"status": {"phase": "Down"}, "spec": {"size": 3}}, namespace=namespace
    )

    assert "status" not in made
    assert (status["status"], status["spec"]["size"]) == ({"phase": "Up"}, 1)
    assert "labels" not in status["metadata"]
    assert (main["status"], main["spec"]["size"]) == ({"phase": "Up"}, 3)
    assert [o["metadata"]["generation"] for o in (made, status, main)] == [1, 1, 2]


async def test_what_custom_resources_do_not_have(widgets: Widgets, namespace: str) -> None:
    """No strategic merge, no unconditional PUT, no field selectors beyond the name."""
    made = await widgets.api.create(widgets.v1, widget("a"), namespace=namespace)

    with pytest.raises(ApiError) as strategic:
        await widgets.api.patch(widgets.v1, "a", {}, namespace=namespace, type=PatchType.STRATEGIC)
    with pytest.raises(Invalid, match="resourceVersion"):
        blind = {**made, "metadata": {"name": "a", "namespace": namespace}}
        await widgets.api.replace(widgets.v1, blind)
    with pytest.raises(BadRequest, match="field label not supported"):
        await widgets.api.list(widgets.v1, namespace, field_selector="spec.size=1")
    assert strategic.value.status == 415
    named = await widgets.api.list(widgets.v1, namespace, field_selector="metadata.name=a")
    assert len(named.items) == 1


async def test_scale_follows_the_paths_of_the_definition(widgets: Widgets, namespace: str) -> None:
    """The scale subresource reads and writes the replicas where the definition says they are."""
    await widgets.api.create(widgets.v1, widget("a", replicas=2), namespace=namespace)
    path = widgets.v1.path(namespace, "a", "scale")
    scale = await widgets.api.request("GET", path)
    await widgets.api.request("PUT", path, body=scale | {"spec": {"replicas": 4}})

    assert scale["spec"]["replicas"] == 2
    assert (await widgets.api.get(widgets.v1, "a", namespace))["spec"]["replicas"] == 4


async def test_server_side_apply(widgets: Widgets, namespace: str) -> None:
    """Apply creates, shares fields by manager, refuses to take a foreign one, and gives up what is left out."""
    me: Obj = {"metadata": {"name": "a", "namespace": namespace}, "spec": {"size": 1, "replicas": 2}}
    await widgets.api.apply(widgets.v1, me, field_manager="one")

    with pytest.raises(Conflict) as conflict:
        await widgets.api.apply(widgets.v1, me | {"spec": {"size": 2}}, field_manager="two", force=False)
    taken = await widgets.api.apply(widgets.v1, me | {"spec": {"size": 2}}, field_manager="two")
    given_up = await widgets.api.apply(widgets.v1, me | {"spec": {"size": 2}}, field_manager="one")

    assert conflict.value.details
    assert [c["field"] for c in conflict.value.details["causes"]] == [".spec.size"]
    assert taken["spec"] == {"size": 2, "replicas": 2, "color": "red"}
    assert given_up["spec"] == {"size": 2, "color": "red"}
    assert {m["manager"] for m in given_up["metadata"]["managedFields"]} == {"one", "two"}


async def test_a_definition_goes_after_its_objects(widgets: Widgets, namespace: str) -> None:
    """Deleting a definition deletes its objects; one with a finalizer holds it, and nothing new is taken."""
    held = widget("held")
    held["metadata"]["finalizers"] = ["example.com/hold"]
    await widgets.api.create(widgets.v1, held, namespace=namespace)
    await widgets.api.create(widgets.v1, widget("free"), namespace=namespace)
    await widgets.api.delete(CRDS, widgets.crd)
    for _ in range(100):
        left = await widgets.api.list(widgets.v1, namespace)
        if len(left.items) == 1 and left.items[0]["metadata"].get("deletionTimestamp"):
            break
        await asyncio.sleep(0.05)

    assert [o["metadata"]["name"] for o in left.items] == ["held"]
    with pytest.raises(ApiError) as refused:
        await widgets.api.create(widgets.v1, widget("late"), namespace=namespace)
    assert refused.value.status == 405
    await widgets.api.patch(widgets.v1, "held", {"metadata": {"finalizers": None}}, namespace=namespace)
    for _ in range(200):
        try:
            await widgets.api.get(CRDS, widgets.crd)
        except NotFound:
            break
        await asyncio.sleep(0.05)
    else:
        pytest.fail("the definition is still there")
    with pytest.raises(NotFound):
        await widgets.api.list(widgets.v1, namespace)


# ---------------------------------------------------------------------- newer than the real server at hand


@pytest.mark.parametrize(("mode", "stored"), [("Strict", False), ("Warn", True), ("Ignore", True)])
async def test_field_validation(server: ApiServer, client: Client, mode: str, stored: bool) -> None:
    """Strict refuses unknown and duplicate fields by path, Warn reports them, Ignore says nothing."""
    await client.create(CRDS, definition("example.com"))
    body = b"""{"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "a"},
               "spec": {"size": 1, "size": 2, "colr": "red"}}"""
    answer = await raw(server, "POST", f"/namespaces/default/widgets?fieldValidation={mode}", body)

    if mode == "Strict":
        assert answer.status == 400
        assert answer.text.startswith(
            'Widget in version "v1" cannot be handled as a Widget: strict decoding error: '
        )
        assert 'unknown field "spec.colr"' in answer.text
        assert 'duplicate field "' in answer.text
    else:
        assert answer.status == 201
    assert ("Warning" in answer.headers) is (mode == "Warn")
    assert bool((await client.list(Resource("example.com", "v1", "widgets", "Widget"), "default")).items) is stored


@dataclass
class Answer:
    status: int
    text: str
    headers: dict[str, str]


async def raw(server: ApiServer, method: str, path: str, body: bytes) -> Answer:
    import aiohttp

    headers = {"Authorization": f"Bearer {server.token}", "Content-Type": "application/json"}
    url = f"{server.url}/apis/example.com/v1{path}"
    async with (
        aiohttp.ClientSession() as session,
        session.request(method, url, data=body, headers=headers, ssl=False) as response,
    ):
        reply = await response.json()
        return Answer(response.status, str(reply.get("message", "")), dict(response.headers))
