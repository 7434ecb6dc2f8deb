"""Making an object be as a function wants it (FW-G02), on real API servers; and the difference that is written."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manager.client import Client
from manager.ensure import Ensured, Operation, Renamed, create_or_patch, create_or_update
from manager.errors import ApiError, Conflict, Forbidden, NotFound
from manager.patches import merge_patch, private_copy
from manager.resources import CONFIGMAPS, PODS
from manager.types import Obj, Resource
from manager.writes import Write

if TYPE_CHECKING:
    from conftest import Server

both = pytest.mark.parametrize("ensure", [create_or_update, create_or_patch])
Ensure = Callable[..., Awaitable[Ensured]]


class Spy(Client):
    """A client that counts its writes, and whose reads can be made to fail."""

    writes = 0
    read_error: Exception | None = None

    async def get(self, *args: Any, **options: Any) -> Obj:
        if self.read_error is not None:
            raise self.read_error
        return await super().get(*args, **options)

    def began(self, write: Write) -> None:
        self.writes += 1

    def ended(self, token: object, answer: Obj | None) -> None:
        pass


@dataclass
class World:
    """Room for one object on a server."""

    client: Spy
    namespace: str
    name: str

    async def get(self, resource: Resource = CONFIGMAPS) -> Obj:
        return await self.client.get(resource, self.name, self.namespace)

    async def ensure(self, how: Ensure, mutate: Callable[[Obj], None], resource: Resource = CONFIGMAPS) -> Ensured:
        return await how(self.client, resource, self.name, mutate, namespace=self.namespace)


@pytest.fixture
async def world(api_server: Server, namespace: str) -> AsyncIterator[World]:
    async with Spy(api_server.config) as client:
        client.write_observer = client
        yield World(client, namespace, f"c-{uuid.uuid4().hex[:8]}")


def colour(value: str) -> Callable[[Obj], None]:
    def mutate(obj: Obj) -> None:
        obj.setdefault("data", {})["colour"] = value

    return mutate


def pod(obj: Obj) -> None:
    obj["spec"] = {"containers": [{"name": "c", "image": "i"}]} | obj.get("spec", {})


def phase(obj: Obj) -> None:
    obj["status"] = {**obj.get("status", {}), "message": "written"}


def labelled(obj: Obj) -> None:
    obj["metadata"]["labels"] = {"tier": "web"}


@both
@pytest.mark.acceptance("FW-G02")
async def test_an_absent_object_is_created(world: World, ensure: Ensure) -> None:
    """The function is given an object that has its name, and the answer is the server's object."""
    made = await world.ensure(ensure, colour("red"))

    assert made.operation is Operation.CREATED
    assert made.obj == await world.get()
    assert made.obj["data"] == {"colour": "red"}


@both
@pytest.mark.acceptance("FW-G02")
async def test_an_object_that_differs_is_updated(world: World, ensure: Ensure) -> None:
    """Only what the function changed is changed: what others wrote stays."""
    await world.client.create(
        CONFIGMAPS,
        {"metadata": {"name": world.name, "namespace": world.namespace}, "data": {"colour": "red", "size": "s"}},
    )

    made = await world.ensure(ensure, colour("blue"))

    assert made.operation == "updated"
    assert (await world.get())["data"] == {"colour": "blue", "size": "s"}


@both
@pytest.mark.acceptance("FW-G02")
async def test_an_object_that_is_as_wanted_is_not_written(world: World, ensure: Ensure) -> None:
    """Not even with a request that would change nothing."""
    await world.ensure(ensure, colour("red"))
    world.client.writes = 0

    made = await world.ensure(ensure, colour("red"))

    assert made.operation == "unchanged"
    assert made.obj == await world.get()
    assert world.client.writes == 0


@both
@pytest.mark.acceptance("FW-G02")
@pytest.mark.parametrize("there", [False, True])
@pytest.mark.parametrize("field", ["name", "namespace"])
async def test_the_function_may_not_rename(world: World, ensure: Ensure, there: bool, field: str) -> None:
    """Name and namespace alike, whether the object is there or not; nothing is written."""
    if there:
        await world.ensure(ensure, colour("red"))
    world.client.writes = 0

    def rename(obj: Obj) -> None:
        obj["metadata"][field] = "other"

    with pytest.raises(Renamed, match="other"):
        await world.ensure(ensure, rename)
    assert world.client.writes == 0


@both
@pytest.mark.acceptance("FW-G02")
async def test_a_read_that_fails_ends_it(world: World, ensure: Ensure) -> None:
    """Anything but NotFound: nothing may be created on a guess."""
    world.client.read_error = Forbidden(403)

    with pytest.raises(Forbidden):
        await world.ensure(ensure, colour("red"))
    world.client.read_error = None
    with pytest.raises(NotFound):
        await world.get()


@both
@pytest.mark.acceptance("FW-G02")
async def test_what_the_function_raises_ends_it(world: World, ensure: Ensure) -> None:
    """Nothing is written."""

    def fail(obj: Obj) -> None:
        obj["data"] = {}
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await world.ensure(ensure, fail)
    assert world.client.writes == 0


@pytest.mark.acceptance("FW-G02")
async def test_an_update_does_not_overwrite_what_it_has_not_seen(world: World) -> None:
    """A change between the read and the write is a conflict, as with a PUT."""
    await world.ensure(create_or_update, colour("red"))
    stale = await world.get()
    await world.ensure(create_or_update, colour("green"))

    async def old(*_: Any, **__: Any) -> Obj:
        return stale

    world.client.get = old  # type: ignore[method-assign]
    with pytest.raises(Conflict):
        await world.ensure(create_or_update, colour("blue"))


@pytest.mark.acceptance("FW-G02")
@pytest.mark.parametrize(
    ("changes", "operation"),
    [
        ((phase,), "updatedStatusOnly"),
        ((labelled, phase), "updatedStatus"),
        ((labelled,), "updated"),
        ((), "unchanged"),
    ],
)
async def test_object_and_status_are_patched_each_where_it_lives(
    world: World, changes: tuple[Callable[[Obj], None], ...], operation: str
) -> None:
    """And each only when it differs."""
    await world.ensure(create_or_patch, pod, PODS)
    world.client.writes = 0

    def mutate(obj: Obj) -> None:
        for change in changes:
            change(obj)

    made = await world.ensure(create_or_patch, mutate, PODS)

    found = await world.get(PODS)
    assert made.operation == operation
    assert made.obj == found
    assert world.client.writes == len(changes)
    assert (found.get("status", {}).get("message") == "written") is (phase in changes)
    assert (found["metadata"].get("labels") == {"tier": "web"}) is (labelled in changes)


@pytest.mark.acceptance("FW-G02")
async def test_an_object_is_created_with_its_status(world: World) -> None:
    """The first write leaves a status out, where there is a subresource; a second one makes it so."""

    def mutate(obj: Obj) -> None:
        pod(obj)
        phase(obj)

    made = await world.ensure(create_or_patch, mutate, PODS)

    assert made.operation == "created"
    assert (await world.get(PODS))["status"]["message"] == "written"


async def test_a_creation_that_lost_the_race_is_told(world: World) -> None:
    """A cache that does not have the object yet leads to AlreadyExists, not to a second object."""
    await world.ensure(create_or_update, colour("red"))
    world.client.read_error = NotFound(404)

    with pytest.raises(ApiError) as caught:
        await world.ensure(create_or_update, colour("blue"))
    assert caught.value.reason == "AlreadyExists"


# ------------------------------------------------------------------ the difference

VALUES = st.recursive(
    st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.dictionaries(st.sampled_from("abcd"), VALUES, max_size=4)


def merged(target: Any, patch: Any) -> Any:
    """RFC 7386, section 2."""
    if not isinstance(patch, dict):
        return patch
    target = dict(target) if isinstance(target, dict) else {}
    for field, value in patch.items():
        if value is None:
            target.pop(field, None)
        else:
            target[field] = merged(target.get(field), value)
    return target


@given(before=OBJECTS, after=OBJECTS)
def test_the_patch_makes_one_state_into_the_other(before: Obj, after: Obj) -> None:
    """Whatever the two are; as JSON, where true is not 1."""
    assert repr(sorted_(merged(before, merge_patch(before, after)))) == repr(sorted_(after))


def sorted_(value: Any) -> Any:
    if isinstance(value, dict):
        return {field: sorted_(value[field]) for field in sorted(value)}
    return [sorted_(item) for item in value] if isinstance(value, list) else value


def test_equal_states_need_no_patch_and_none_is_absence() -> None:
    """A field set to None is removed if it was there, and nothing otherwise, at any depth."""
    state = {"a": {"b": [1, {"c": 2}]}, "d": "e"}

    assert merge_patch(state, private_copy(state)) == {}
    assert merge_patch({"a": {}}, {"a": {"x": None}, "y": None}) == {}
    assert merge_patch({"a": 1}, {"a": None}) == {"a": None}
    assert merge_patch({}, {"a": {"b": None, "c": 1}}) == {"a": {"c": 1}}


def test_true_is_not_one() -> None:
    """Python says so, JSON does not; at any depth. The order of fields is no difference."""
    assert merge_patch({"a": True, "b": [1]}, {"a": 1, "b": [True]}) == {"a": 1, "b": [True]}
    assert merge_patch({"a": [{"x": 1, "y": 2}]}, {"a": [{"y": 2, "x": 1}]}) == {}


def test_a_private_copy_shares_nothing() -> None:
    """Its owner may change it at any depth."""
    state: Obj = {"a": {"b": [1]}}
    private_copy(state)["a"]["b"].append(2)

    assert state == {"a": {"b": [1]}}
