"""Finalizers: the functions (FW-G03), and the registry (FW-G04) on real API servers."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import pytest

from manager.client import Client
from manager.errors import Conflict, ManagerError, NotFound
from manager.finalizers import Finalize, Finalizers, has_finalizer, with_finalizer, without_finalizer
from manager.resources import CONFIGMAPS
from manager.types import Obj, Result

if TYPE_CHECKING:
    from conftest import Server

ONE, TWO, THREE = "example.com/one", "example.com/two", "example.com/three"


def carrying(*finalizers: str) -> Obj:
    return {"metadata": {"name": "c", **({"finalizers": list(finalizers)} if finalizers else {})}}


# ------------------------------------------------------------------ functions


@pytest.mark.acceptance("FW-G03")
def test_a_finalizer_is_added_once() -> None:
    """The object is another one when it was added, and the same one when it was there; the argument never
    changes."""
    bare, full = carrying(), carrying(TWO, ONE)

    assert with_finalizer(bare, ONE)["metadata"]["finalizers"] == [ONE]
    assert bare == carrying()
    assert with_finalizer(carrying(TWO), ONE)["metadata"]["finalizers"] == [TWO, ONE]
    assert with_finalizer(full, ONE) is full


@pytest.mark.acceptance("FW-G03")
def test_a_finalizer_is_removed_wherever_it_stands() -> None:
    """All equal entries go; the last one leaves no empty list; the object is the same one when it was not
    there."""
    full = carrying(ONE, TWO, ONE)

    assert without_finalizer(full, ONE)["metadata"]["finalizers"] == [TWO]
    assert full == carrying(ONE, TWO, ONE)
    assert "finalizers" not in without_finalizer(carrying(ONE, ONE), ONE)["metadata"]
    assert without_finalizer(full, THREE) is full
    bare = carrying()
    assert without_finalizer(bare, ONE) is bare


@pytest.mark.acceptance("FW-G03")
def test_a_finalizer_can_be_asked_for() -> None:
    """Also of an object that has none."""
    assert has_finalizer(carrying(TWO, ONE), ONE)
    assert not has_finalizer(carrying(TWO), ONE)
    assert not has_finalizer(carrying(), ONE)


# ------------------------------------------------------------------ registry


class Cleanup:
    """A finalizer that counts its runs and does what the test says."""

    def __init__(self, answer: Result | None = None, error: Exception | None = None) -> None:
        self.answer, self.error, self.runs = answer, error, 0

    async def __call__(self, obj: Obj) -> Result | None:
        self.runs += 1
        if self.error is not None:
            raise self.error
        return self.answer


def registry(client: Client, **cleanups: Finalize) -> Finalizers:
    finalizers = Finalizers(client, CONFIGMAPS)
    for name, cleanup in cleanups.items():
        finalizers.register(f"example.com/{name}", cleanup)
    return finalizers


class World:
    """One ConfigMap on a server."""

    def __init__(self, client: Client, namespace: str) -> None:
        self.client, self.namespace, self.name = client, namespace, f"c-{uuid.uuid4().hex[:8]}"

    async def create(self, *finalizers: str, deleted: bool = False) -> Obj:
        metadata = {"name": self.name, "namespace": self.namespace, "finalizers": list(finalizers)}
        await self.client.create(CONFIGMAPS, {"metadata": metadata})
        if deleted:
            await self.client.delete(CONFIGMAPS, self.name, self.namespace)
        return await self.get()

    async def get(self) -> Obj:
        return await self.client.get(CONFIGMAPS, self.name, self.namespace)

    async def finalizers(self) -> list[str]:
        return (await self.get())["metadata"].get("finalizers", [])

    async def gone(self) -> bool:
        try:
            await self.get()
        except NotFound:
            return True
        return False


@pytest.fixture
async def world(api_server: Server, namespace: str) -> AsyncIterator[World]:
    async with Client(api_server.config) as client:
        made = World(client, namespace)
        yield made
        if not await made.gone():
            await client.patch(CONFIGMAPS, made.name, {"metadata": {"finalizers": None}}, namespace=namespace)


@pytest.mark.acceptance("FW-G04")
def test_a_finalizer_is_registered_once_and_under_a_name_that_servers_take(client: Client) -> None:
    """A duplicate and a name without a domain are refused at once, not by the server on the first object."""
    finalizers = registry(client, one=Cleanup())

    with pytest.raises(ManagerError, match="already registered"):
        finalizers.register(ONE, Cleanup())
    with pytest.raises(ManagerError, match=r"example\.com/cleanup"):
        finalizers.register("cleanup", Cleanup())


@pytest.mark.acceptance("FW-G04")
async def test_a_live_object_gets_what_is_registered_and_keeps_what_it_has(world: World) -> None:
    """In one write; nothing runs; the second time there is nothing to write."""
    one, two = Cleanup(), Cleanup()
    finalizers = registry(world.client, one=one, two=two)

    first = await finalizers.finalize(await world.create(THREE))
    second = await finalizers.finalize(first.obj)

    assert await world.finalizers() == [THREE, ONE, TWO]
    assert (first.changed, second.changed) == (True, False)
    assert second.obj is first.obj
    assert not first.deleting
    assert one.runs + two.runs == 0


@pytest.mark.acceptance("FW-G04")
async def test_an_empty_registry_changes_nothing(world: World) -> None:
    """Neither on a live object nor on one that goes."""
    live = await registry(world.client).finalize(await world.create(ONE))
    await world.client.delete(CONFIGMAPS, world.name, world.namespace)
    going = await registry(world.client).finalize(await world.get())

    assert (live.changed, live.deleting, going.changed, going.deleting) == (False, False, False, True)
    assert await world.finalizers() == [ONE]


@pytest.mark.acceptance("FW-G04")
async def test_a_deleted_object_goes_when_all_finalizers_are_done(world: World) -> None:
    """Each runs once and its name is taken off; the server then lets the object go."""
    one, two = Cleanup(), Cleanup(Result())
    deleted = await world.create(ONE, TWO, deleted=True)

    outcome = await registry(world.client, one=one, two=two).finalize(deleted)

    assert (outcome.deleting, outcome.changed, outcome.requeue_after) == (True, True, None)
    assert (one.runs, two.runs) == (1, 1)
    assert await world.gone()


@pytest.mark.acceptance("FW-G04")
async def test_a_deleted_object_without_the_finalizer_is_left_alone(world: World) -> None:
    """What is registered is neither added nor run, and foreign finalizers stay."""
    one = Cleanup()
    deleted = await world.create(THREE, deleted=True)

    outcome = await registry(world.client, one=one).finalize(deleted)

    assert (outcome.deleting, outcome.changed, one.runs) == (True, False, 0)
    assert await world.finalizers() == [THREE]


@pytest.mark.acceptance("FW-G04")
async def test_one_that_fails_stays_and_the_others_are_done(world: World) -> None:
    """All failures are raised together, each with the name of its finalizer, after the write."""
    failing, done, failing_too = Cleanup(error=OSError("no disk")), Cleanup(), Cleanup(error=ValueError("bad"))
    deleted = await world.create(ONE, TWO, THREE, deleted=True)

    with pytest.raises(ExceptionGroup) as caught:
        await registry(world.client, one=failing, two=done, three=failing_too).finalize(deleted)

    assert [str(error) for error in caught.value.exceptions] == ["no disk", "bad"]
    assert ONE in caught.value.exceptions[0].__notes__[0]
    assert done.runs == 1
    assert await world.finalizers() == [ONE, THREE]


@pytest.mark.acceptance("FW-G04")
async def test_one_that_is_not_done_stays_and_says_when_to_ask_again(world: World) -> None:
    """The shortest time of all counts."""
    deleted = await world.create(ONE, TWO, THREE, deleted=True)
    finalizers = registry(
        world.client, one=Cleanup(Result(requeue_after=30)), two=Cleanup(), three=Cleanup(Result(requeue_after=5))
    )

    outcome = await finalizers.finalize(deleted)

    assert outcome.requeue_after == 5
    assert await world.finalizers() == [ONE, THREE]


@pytest.mark.acceptance("FW-G04")
async def test_a_finalizer_that_somebody_else_has_set_meanwhile_is_not_lost(world: World) -> None:
    """An old picture of the object is refused with a conflict."""
    old = await world.create()
    await world.client.patch(
        CONFIGMAPS, world.name, {"metadata": {"finalizers": [THREE]}}, namespace=world.namespace
    )

    with pytest.raises(Conflict):
        await registry(world.client, one=Cleanup()).finalize(old)

    assert await world.finalizers() == [THREE]


@pytest.mark.acceptance("FW-G04")
async def test_an_object_that_has_gone_meanwhile_is_finalized(world: World) -> None:
    """Somebody else let it go: that is no error."""
    deleted = await world.create(ONE, deleted=True)
    await world.client.patch(CONFIGMAPS, world.name, {"metadata": {"finalizers": None}}, namespace=world.namespace)

    outcome = await registry(world.client, one=Cleanup()).finalize(deleted)

    assert outcome.deleting
    assert await world.gone()
