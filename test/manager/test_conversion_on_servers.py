"""Custom resources in two versions, converted by our webhook on API servers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson
import pytest

from manager.client import Client, PatchType
from manager.errors import ApiError, Invalid, ServerError
from manager.resources import CRDS
from manager.testing.controlplane import free_port
from manager.testing.webhooks import LocalWebhooks
from manager.types import Obj, Resource
from manager.webhooks.conversion import ConversionError, Conversions

if TYPE_CHECKING:
    from conftest import Server


@pytest.fixture
async def client(api_server: Server) -> AsyncIterator[Client]:
    async with Client(api_server.config) as opened:
        yield opened


@pytest.fixture
async def hooks() -> AsyncIterator[LocalWebhooks]:
    async with LocalWebhooks() as running:
        yield running


async def until(call: Callable[[], Awaitable[Any]]) -> None:
    """Repeat a call until it gives something true; a server takes a new kind up in its own time."""
    async with asyncio.timeout(10):
        while not await call():
            await asyncio.sleep(0.02)


@dataclass(frozen=True, slots=True)
class Widgets:
    """A kind of two versions: v1 has ``size: 3cm``, v2, which is stored, ``centimetres: 3``."""

    group: str
    v1: Resource
    v2: Resource
    asked: list[int]  # objects of each review


def to_hub(obj: Obj) -> Obj:
    spec = obj.get("spec") or {}
    if "size" in spec:
        if spec["size"] == "broken":
            raise ConversionError("spec.size: broken is no size")
        spec["centimetres"] = int(spec.pop("size").removesuffix("cm"))
    return obj


def from_hub(obj: Obj) -> Obj:
    spec = obj.get("spec") or {}
    if "centimetres" in spec:
        spec["size"] = f"{spec.pop('centimetres')}cm"
    return obj


@pytest.fixture
async def widgets(client: Client, namespace: str, hooks: LocalWebhooks) -> AsyncIterator[Widgets]:
    """The kind, served by the API server; its name is the test's alone."""
    group = f"{namespace}.example.com"
    made = Widgets(group, *(Resource(group, version, "widgets", "Widget") for version in ("v1", "v2")), [])
    conversions = Conversions()
    conversions.hub(group, "Widget", "v2")
    conversions.spoke(group, "Widget", "v1", to_hub=to_hub, from_hub=from_hub)

    class Counting:
        limit = conversions.limit
        refuse = conversions.refuse

        async def answer(self, body: bytes, content_type: str) -> tuple[int, bytes]:
            made.asked.append(len(orjson.loads(body)["request"]["objects"]))
            return await conversions.answer(body, content_type)

    hooks.server.register("/convert", Counting())
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    scale = {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"}
    subresources = {"status": {}, "scale": scale}
    versions = [
        {"name": name, "served": True, "storage": name == "v2", "schema": schema, "subresources": subresources}
        for name in ("v1", "v2")
    ]
    webhook = {"conversionReviewVersions": ["v1"], "clientConfig": hooks.client_config("/convert")}
    names = {"plural": "widgets", "kind": "Widget", "singular": "widget", "listKind": "WidgetList"}
    spec = {
        "group": group,
        "scope": "Namespaced",
        "names": names,
        "versions": versions,
        "conversion": {"strategy": "Webhook", "webhook": webhook},
    }
    await client.create(CRDS, {"metadata": {"name": f"widgets.{group}"}, "spec": spec})

    async def served() -> bool:
        try:
            await client.create(made.v1, widget("probe", namespace, size="1cm"), dry_run=True)
        except ApiError as error:
            if error.status not in (404, 503):
                raise
            return False
        return True

    await until(served)
    made.asked.clear()
    yield made
    await client.delete(CRDS, f"widgets.{group}")


def widget(name: str, namespace: str, **spec: Any) -> Obj:
    return {"metadata": {"name": name, "namespace": namespace}, "spec": spec}


pytestmark = pytest.mark.acceptance("FW-H08")
ELSEWHERE = {"url": "https://x.io/"}


async def test_a_conversion_webhook_serves_both_versions(client: Client, namespace: str, widgets: Widgets) -> None:
    """What is written in one version is read in the other: alone, in lists, in watches."""
    v1, v2 = widgets.v1, widgets.v2
    await client.create(v1, widget("small", namespace, size="3cm"))
    await client.create(v2, widget("large", namespace, centimetres=300))
    listed_old = {o["metadata"]["name"]: o["spec"] for o in (await client.list(v1, namespace)).items}
    listed_new = {o["metadata"]["name"]: o["spec"] for o in (await client.list(v2, namespace)).items}
    patched_old = await client.patch(v1, "large", {"spec": {"size": "200cm"}}, namespace=namespace)
    read_new = await client.get(v2, "large", namespace)
    for number in range(8):
        await client.create(v2, widget(f"n{number}", namespace, centimetres=number))
    everything = (await client.list(v1, namespace)).items
    watching = client.watch(v1, namespace, resource_version="0", timeout_seconds=1)
    watched = [event.object["spec"] async for event in watching if event.type == "ADDED"]

    assert listed_old == {"small": {"size": "3cm"}, "large": {"size": "300cm"}}
    assert listed_new == {"small": {"centimetres": 3}, "large": {"centimetres": 300}}
    assert patched_old["spec"] == {"size": "200cm"}
    assert read_new["spec"] == {"centimetres": 200}
    assert len(everything) == len(watched) == 10
    assert {"size": "200cm"} in watched


@pytest.mark.embedded_only("how many objects go in one review is each server's choice")
async def test_a_list_is_converted_in_one_review(client: Client, namespace: str, widgets: Widgets) -> None:
    """Twenty objects that nobody has read in this version yet; a second list asks for nothing."""
    for number in range(20):
        await client.create(widgets.v2, widget(f"n{number}", namespace, centimetres=number))
    widgets.asked.clear()

    await client.list(widgets.v1, namespace)
    await client.list(widgets.v1, namespace)

    assert widgets.asked == [20]


async def test_changes_are_watched_in_the_version_that_was_asked_for(
    client: Client, namespace: str, widgets: Widgets
) -> None:
    """A write in v2 arrives as an event in v1, a deletion too."""
    made = await client.create(widgets.v2, widget("w", namespace, centimetres=1))
    version = made["metadata"]["resourceVersion"]
    events: list[tuple[str, str]] = []

    async def watch() -> None:
        async for event in client.watch(widgets.v1, namespace, resource_version=version, timeout_seconds=20):
            if event.type != "BOOKMARK":
                events.append((event.type, event.object["spec"]["size"]))
            if event.type == "DELETED":
                return

    watching = asyncio.create_task(watch())
    await client.patch(widgets.v2, "w", {"spec": {"centimetres": 2}}, namespace=namespace)
    await client.delete(widgets.v2, "w", namespace)
    await asyncio.wait_for(watching, 20)

    assert events == [("MODIFIED", "2cm"), ("DELETED", "2cm")]


async def test_every_way_of_writing_goes_through_the_conversion(
    client: Client, namespace: str, widgets: Widgets
) -> None:
    """Apply, JSON patch, replace, status and scale, all in the version that is not stored."""
    v1, v2 = widgets.v1, widgets.v2
    applied = await client.apply(v1, widget("w", namespace, size="1cm", replicas=1))
    again = await client.apply(v1, widget("w", namespace, size="2cm", replicas=1))
    operations = [{"op": "replace", "path": "/spec/size", "value": "3cm"}]
    patched = await client.patch(v1, "w", operations, namespace=namespace, type=PatchType.JSON)
    replaced = await client.replace(v1, {**patched, "spec": {"size": "4cm", "replicas": 1}})
    told = await client.patch(v1, "w", {"status": {"replicas": 1}}, namespace=namespace, subresource="status")
    scaled = await client.patch(v1, "w", {"spec": {"replicas": 5}}, namespace=namespace, subresource="scale")
    stored = await client.get(v2, "w", namespace)

    assert [obj["spec"]["size"] for obj in (applied, again, patched, replaced, told)] == [
        "1cm",
        "2cm",
        "3cm",
        "4cm",
        "4cm",
    ]
    assert (scaled["kind"], scaled["spec"]["replicas"]) == ("Scale", 5)
    assert stored["spec"] == {"centimetres": 4, "replicas": 5}
    assert stored["status"] == {"replicas": 1}
    assert stored["metadata"]["uid"] == applied["metadata"]["uid"]


async def test_a_conversion_that_fails_is_told_and_changes_nothing(
    client: Client, namespace: str, hooks: LocalWebhooks, widgets: Widgets
) -> None:
    """The converter's words reach the client; with nobody to ask, the stored version can still be read."""
    v1, v2 = widgets.v1, widgets.v2
    with pytest.raises(ApiError) as refused:
        await client.create(v1, widget("broken", namespace, size="broken"))
    await client.create(v2, widget("w", namespace, centimetres=7))
    nobody = {"url": f"https://127.0.0.1:{free_port()}/convert"}
    config = {"spec": {"conversion": {"webhook": {"clientConfig": nobody}}}}
    await client.patch(CRDS, f"widgets.{widgets.group}", config)

    async def gone() -> bool:
        try:
            await client.get(v1, "w", namespace)
        except ServerError as error:
            message.append(error.message)
            return True
        return False

    message: list[str] = []
    await until(gone)
    with pytest.raises(ServerError):
        await client.list(v1, namespace)
    names = [obj["metadata"]["name"] for obj in (await client.list(v2, namespace)).items]

    assert f"conversion webhook for {widgets.group}/v1, Kind=Widget failed:" in refused.value.message
    assert "spec.size: broken is no size" in refused.value.message
    assert f"conversion webhook for {widgets.group}/v2, Kind=Widget failed:" in message[0]
    assert names == ["w"]


@pytest.mark.parametrize(
    "conversion",
    [
        {"strategy": "Webhook"},
        {
            "strategy": "Webhook",
            "webhook": {"clientConfig": {"url": "https://x.io/"}, "conversionReviewVersions": ["v9"]},
        },
        {"strategy": "Webhook", "webhook": {"clientConfig": {}, "conversionReviewVersions": ["v1"]}},
        {"strategy": "Magic"},
    ],
    ids=["no webhook", "unknown review", "nowhere", "unknown strategy"],
)
async def test_a_conversion_that_cannot_work_is_refused(client: Client, namespace: str, conversion: Obj) -> None:
    """As a field of the CRD that is wrong."""
    group = f"{namespace}.example.com"
    schema = {"openAPIV3Schema": {"type": "object"}}
    names = {"plural": "widgets", "kind": "Widget", "singular": "widget", "listKind": "WidgetList"}
    versions = [{"name": "v1", "served": True, "storage": True, "schema": schema}]
    spec = {"group": group, "scope": "Namespaced", "names": names, "versions": versions, "conversion": conversion}

    with pytest.raises(Invalid) as caught:
        await client.create(CRDS, {"metadata": {"name": f"widgets.{group}"}, "spec": spec})

    assert caught.value.details is not None
    assert all(cause["field"].startswith("spec.conversion") for cause in caught.value.details["causes"])
