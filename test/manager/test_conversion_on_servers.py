"""Custom resources in two versions, converted by our webhook on API servers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any

import pytest

from manager.client import Client
from manager.errors import ApiError
from manager.resources import CRDS
from manager.testing.webhooks import LocalWebhooks
from manager.types import Obj, Resource
from manager.webhooks.conversion import Conversions

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


async def test_a_conversion_webhook_serves_both_versions(
    api_server: Server, client: Client, namespace: str, hooks: LocalWebhooks
) -> None:
    """What is written in one version is read in the other, alone and in lists; a failure is told."""
    group = f"{namespace}.example.com"
    v1, v2 = (Resource(group, version, "widgets", "Widget") for version in ("v1", "v2"))
    conversions = Conversions()
    conversions.hub(group, "Widget", "v2")

    def to_hub(obj: Obj) -> Obj:
        if obj["spec"]["size"] == "broken":
            raise ValueError("cannot be read as a number")
        obj["spec"]["centimetres"] = int(obj["spec"].pop("size").removesuffix("cm"))
        return obj

    def from_hub(obj: Obj) -> Obj:
        obj["spec"]["size"] = f"{obj['spec'].pop('centimetres')}cm"
        return obj

    conversions.spoke(group, "Widget", "v1", to_hub=to_hub, from_hub=from_hub)
    hooks.server.convert(conversions)
    open_schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    versions = [
        {"name": "v1", "served": True, "storage": False, "schema": open_schema},
        {"name": "v2", "served": True, "storage": True, "schema": open_schema},
    ]
    conversion = {
        "strategy": "Webhook",
        "webhook": {"conversionReviewVersions": ["v1"], "clientConfig": hooks.client_config("/convert")},
    }
    names = {"plural": "widgets", "kind": "Widget", "singular": "widget", "listKind": "WidgetList"}
    spec = {"group": group, "scope": "Namespaced", "names": names, "versions": versions, "conversion": conversion}
    await client.create(CRDS, {"metadata": {"name": f"widgets.{group}"}, "spec": spec})
    small = {"metadata": {"name": "small", "namespace": namespace}, "spec": {"size": "3cm"}}
    large = {"metadata": {"name": "large", "namespace": namespace}, "spec": {"centimetres": 300}}

    async def served() -> bool:
        try:
            await client.create(v1, small)
        except ApiError as error:
            if error.status not in (404, 503):
                raise
            return False
        return True

    await until(served)
    await client.create(v2, large)
    listed_old = {o["metadata"]["name"]: o["spec"] for o in (await client.list(v1, namespace)).items}
    listed_new = {o["metadata"]["name"]: o["spec"] for o in (await client.list(v2, namespace)).items}
    patched_old = await client.patch(v1, "large", {"spec": {"size": "200cm"}}, namespace=namespace)
    read_new = await client.get(v2, "large", namespace)
    broken = {"metadata": {"name": "broken", "namespace": namespace}, "spec": {"size": "broken"}}
    with pytest.raises(ApiError) as caught:
        await client.create(v1, broken)
    watching = client.watch(v1, namespace, resource_version="0", timeout_seconds=1)
    watched = [event.object["spec"] async for event in watching if event.type == "ADDED"]
    await client.delete(CRDS, f"widgets.{group}")

    assert listed_old == {"small": {"size": "3cm"}, "large": {"size": "300cm"}}
    assert listed_new == {"small": {"centimetres": 3}, "large": {"centimetres": 300}}
    assert patched_old["spec"] == {"size": "200cm"}
    assert read_new["spec"] == {"centimetres": 200}
    assert f"conversion webhook for {group}/v1, Kind=Widget failed:" in caught.value.message
    assert "cannot be read as a number" in caught.value.message
    assert sorted(spec["size"] for spec in watched) == ["200cm", "3cm"]
