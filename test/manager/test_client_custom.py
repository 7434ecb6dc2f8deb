"""The client on custom resources: the embedded server, an old one and a current one (which validates fields)."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import pytest

from manager.client import Client, FieldValidation, PatchType
from manager.errors import ApiError, ApplyConflict, BadRequest, Invalid, NotFound, UnsupportedMediaType
from manager.patches import merge_patch
from manager.resources import CRDS
from manager.types import Obj, Resource

if TYPE_CHECKING:
    from conftest import Server


@pytest.fixture
async def gadgets(crd_server: Server) -> AsyncIterator[Resource]:
    """A cluster-scoped kind with a pruning schema, a status and a scale."""
    group = f"g{uuid.uuid4().hex[:8]}.example.com"
    integer = {"type": "integer", "format": "int64"}
    schema = {
        "type": "object",
        "properties": {
            "spec": {
                "type": "object",
                "properties": {"size": integer, "large": integer, "color": {"type": "string"}},
            },
            "status": {"type": "object", "properties": {"size": integer}},
        },
    }
    scale = {"specReplicasPath": ".spec.size", "statusReplicasPath": ".status.size"}
    version = {
        "name": "v1",
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": schema},
        "subresources": {"status": {}, "scale": scale},
    }
    names = {"plural": "gadgets", "singular": "gadget", "kind": "Gadget", "listKind": "GadgetList"}
    spec = {"group": group, "scope": "Cluster", "names": names, "versions": [version]}
    resource = Resource(group, "v1", "gadgets", "Gadget", namespaced=False)
    async with Client(crd_server.config) as client:
        await client.create(CRDS, {"metadata": {"name": f"gadgets.{group}"}, "spec": spec})
        async with asyncio.timeout(30):
            while True:
                try:
                    # Writes are served a moment after reads, and handlers are made anew while a CRD settles.
                    await client.create(resource, {"metadata": {"name": "probe"}}, dry_run=True)
                    break
                except ApiError:
                    await asyncio.sleep(0.05)
        yield resource
        await client.delete(CRDS, f"gadgets.{group}")


@pytest.fixture
async def live(crd_server: Server) -> AsyncIterator[Client]:
    async with Client(crd_server.config, field_manager="tester") as client:
        yield client


def gadget(name: str = "g", **spec: Any) -> Obj:
    return {"metadata": {"name": name}, "spec": spec}


@pytest.mark.acceptance("FW-G05")
async def test_a_dry_run_of_a_custom_resource_changes_nothing(live: Client, gadgets: Resource) -> None:
    """Every verb, the status and the scale."""
    stored = await live.create(gadgets, gadget(size=1))
    dry = live.with_defaults(dry_run=True)
    changed = {**stored, "spec": {"size": 2}}
    answers = [
        await dry.create(gadgets, gadget("other", size=2)),
        await dry.replace(gadgets, changed),
        await dry.patch(gadgets, "g", {"spec": {"size": 2}}),
        await dry.apply(gadgets, gadget(size=2)),
        await dry.patch(gadgets, "g", {"spec": {"replicas": 2}}, subresource="scale"),
    ]
    statuses = [
        await dry.patch_status(gadgets, stored, {"size": 2}),
        await dry.replace(gadgets, {**stored, "status": {"size": 2}}, subresource="status"),
        await dry.apply(gadgets, {"metadata": {"name": "g"}, "status": {"size": 2}}, subresource="status"),
    ]
    await dry.delete(gadgets, "g")
    await dry.delete_all_of(gadgets)

    assert [a["spec"].get("size", a["spec"].get("replicas")) for a in answers] == [2] * 5
    assert [a["status"]["size"] for a in statuses] == [2] * 3
    assert await live.get(gadgets, "g") == stored
    with pytest.raises(NotFound):
        await live.get(gadgets, "other")


@pytest.mark.acceptance("FW-G06")
async def test_unknown_fields_of_a_custom_resource(crd_server: Server, live: Client, gadgets: Resource) -> None:
    """Strict refuses them, Warn tells, Ignore and a server of before 1.25 drop them silently, and where fields are
    validated an apply refuses them whatever the default."""
    heard: list[str] = []
    async with Client(
        crd_server.config, field_validation=FieldValidation.STRICT, on_warning=heard.append
    ) as strict:
        if crd_server.kind == "real":
            assert (await strict.create(gadgets, gadget(bogus=1)))["spec"] == {}
            return
        with pytest.raises(BadRequest, match=r"spec\.bogus"):
            await strict.create(gadgets, gadget(bogus=1))
        made = await strict.create(gadgets, gadget(bogus=1), field_validation=FieldValidation.IGNORE)
        assert (made["spec"], heard) == ({}, [])
        await strict.patch(gadgets, "g", {"spec": {"bogus": 1}}, field_validation=FieldValidation.WARN)
        assert len(heard) == 1
        assert "spec.bogus" in heard[0]
        with pytest.raises((BadRequest, Invalid), match="bogus"):  # a real server calls the patch invalid
            await strict.patch(gadgets, "g", {"spec": {"bogus": 1}})
        lenient = live.with_defaults(field_validation=FieldValidation.IGNORE)
        with pytest.raises(ApiError, match="bogus"):
            await lenient.apply(gadgets, gadget(bogus=1))


@pytest.mark.acceptance("FW-G07")
async def test_status_and_spec_of_a_custom_resource_are_apart(live: Client, gadgets: Resource) -> None:
    """Each way of writing changes its own half, and the generation counts the spec alone."""
    stored = await live.create(gadgets, gadget(size=1))
    written = await live.patch_status(gadgets, stored, {"size": 5})
    both = {"spec": {"size": 9}, "status": {"size": 9}}
    through_status = await live.patch(gadgets, "g", both, subresource="status")
    through_main = await live.patch(gadgets, "g", {"spec": {"size": 3}, "status": {"size": 3}})

    assert (written["spec"], written["status"]) == ({"size": 1}, {"size": 5})
    assert (through_status["spec"], through_status["status"]) == ({"size": 1}, {"size": 9})
    assert (through_main["spec"], through_main["status"]) == ({"size": 3}, {"size": 9})
    generations = [obj["metadata"]["generation"] for obj in (stored, written, through_status, through_main)]
    assert generations == [1, 1, 1, 2]
    assert await live.patch_status(gadgets, through_main, {"size": 9}) is through_main


@pytest.mark.acceptance("FW-G08")
async def test_applies_of_a_custom_resource(live: Client, gadgets: Resource) -> None:
    """It is created, changed, and a conflict names the other manager and the field."""
    await live.apply(gadgets, gadget(size=1, color="red"), field_manager="one")
    with pytest.raises(ApplyConflict) as caught:
        await live.apply(gadgets, gadget(size=2), field_manager="two", force=False)
    taken = await live.apply(gadgets, gadget(size=2), field_manager="two")
    left = await live.apply(gadgets, gadget(), field_manager="one")

    assert caught.value.managers == ("one",)
    assert [cause.field for cause in caught.value.causes] == [".spec.size"]
    assert (taken["spec"], left["spec"]) == ({"size": 2, "color": "red"}, {"size": 2})


@pytest.mark.acceptance("FW-G09")
async def test_the_scale_of_a_custom_resource(live: Client, gadgets: Resource) -> None:
    """It is read and replaced as a Scale."""
    await live.create(gadgets, gadget(size=1))
    scale = await live.get(gadgets, "g", subresource="scale")
    await live.replace(gadgets, {**scale, "spec": {"replicas": 4}}, subresource="scale")

    assert (scale["kind"], scale["spec"]) == ("Scale", {"replicas": 1})
    assert (await live.get(gadgets, "g"))["spec"] == {"size": 4}


@pytest.mark.acceptance("FW-G12")
async def test_large_numbers_of_a_custom_resource(live: Client, gadgets: Resource) -> None:
    """Two that a float cannot tell apart go there and back; a strategic merge is for built-in kinds."""
    low, high = 2**53, 2**53 + 1
    before = await live.create(gadgets, gadget(large=low))
    after = await live.patch(gadgets, "g", merge_patch(before, {**before, "spec": {"large": high}}))

    assert (before["spec"]["large"], after["spec"]["large"]) == (low, high)
    with pytest.raises(UnsupportedMediaType):
        await live.patch(gadgets, "g", {"spec": {}}, type=PatchType.STRATEGIC)
