"""From a change to keys: self, owners, mapped ones, and their priorities (behaviours E18-E22)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from manager.changes import Change, Generic
from manager.handlers import Funcs, Handler, Queue, enqueue_mapped, enqueue_owner, enqueue_self
from manager.informer import Added, Deleted, Updated
from manager.queue import LOW_PRIORITY, PriorityQueue
from manager.resources import DEPLOYMENTS, NODES
from manager.types import Obj, Request

pytestmark = pytest.mark.looptime


async def keys_of(handler: Handler, *changes: Change) -> list[tuple[Request, int]]:
    """What a handler puts into the queue, with priorities, in order."""
    queue: Queue = PriorityQueue()
    for change in changes:
        handler(change, queue)
    return [await queue.get() for _ in range(len(queue))]


def obj(name: str = "a", namespace: str = "n", rv: str = "1", **metadata: Any) -> Obj:
    return {"metadata": {"name": name, "namespace": namespace, "resourceVersion": rv, **metadata}}


def reference(name: str, kind: str = "Deployment", api: Any = "apps/v1", *, controller: bool = True) -> Obj:
    return {"apiVersion": api, "kind": kind, "name": name, "uid": f"uid-{name}", "controller": controller}


def owned(*references: Obj, rv: str = "1") -> Obj:
    return obj("child", rv=rv, ownerReferences=[*references])


def all_changes(one: Obj) -> list[Change]:
    newer = {"metadata": {**one["metadata"], "resourceVersion": "2"}}
    return [Added(one), Updated(one, newer), Deleted(one), Generic(one)]


# ---------------------------------------------------------------------- self


@pytest.mark.acceptance("FW-E18")
@pytest.mark.parametrize("change", all_changes(obj()), ids=lambda change: type(change).__name__)
async def test_an_object_is_enqueued_under_its_own_key(change: Change) -> None:
    """For every sort of change, once."""
    assert await keys_of(enqueue_self, change) == [(Request("n", "a"), 0)]


async def test_a_cluster_scoped_object_has_no_namespace_in_its_key() -> None:
    """Neither an absent nor an empty one."""
    changes = [Added({"metadata": {"name": "a"}}), Added({"metadata": {"name": "b", "namespace": None}})]

    assert await keys_of(enqueue_self, *changes) == [(Request("", "a"), 0), (Request("", "b"), 0)]


# ---------------------------------------------------------------------- owners


@pytest.mark.acceptance("FW-E19")
@pytest.mark.parametrize("change", all_changes(owned(reference("d"))), ids=lambda change: type(change).__name__)
async def test_the_owner_of_an_object_is_enqueued(change: Change) -> None:
    """In the namespace of the object, once, for every sort of change."""
    assert await keys_of(enqueue_owner(DEPLOYMENTS), change) == [(Request("n", "d"), 0)]


@pytest.mark.acceptance("FW-E19")
async def test_on_update_both_sides_owners_are_enqueued() -> None:
    """An object that moves from one owner to another concerns both."""
    change = Updated(owned(reference("old")), owned(reference("new"), rv="2"))

    assert await keys_of(enqueue_owner(DEPLOYMENTS), change) == [
        (Request("n", "old"), 0),
        (Request("n", "new"), 0),
    ]


@pytest.mark.acceptance("FW-E19")
async def test_an_owner_is_enqueued_once_per_change() -> None:
    """However often it is named: by both sides, or twice in one list."""
    added: list[Request] = []

    class Counting(PriorityQueue[Request]):
        def add(self, item: Request, **options: Any) -> None:
            added.append(item)

    twice = owned(reference("d"), reference("d", api="apps/v1beta1"))
    enqueue_owner(DEPLOYMENTS)(Updated(twice, owned(reference("d"), rv="2")), Counting())

    assert added == [Request("n", "d")]


@pytest.mark.acceptance("FW-E19")
async def test_owners_are_matched_by_group_and_kind_whatever_the_version() -> None:
    """Another group or kind is somebody else's; what is no apiVersion is nobody's."""
    found = await keys_of(
        enqueue_owner(DEPLOYMENTS),
        *(Added(owned(reference(name, kind, api))) for name, kind, api in (
            ("same", "Deployment", "apps/v1"),
            ("version", "Deployment", "apps/v1beta2"),
            ("group", "Deployment", "extensions/v1beta1"),
            ("core", "Deployment", "v1"),
            ("kind", "ReplicaSet", "apps/v1"),
            ("bad", "Deployment", "apps/v1/v2"),
            ("none", "Deployment", None),
        )),
    )  # fmt: skip

    assert [request.name for request, _ in found] == ["same", "version"]


@pytest.mark.acceptance("FW-E19")
async def test_a_cluster_scoped_owner_has_no_namespace_in_its_key() -> None:
    """Although the object that it owns has one."""
    change = Added(owned(reference("node", "Node", "v1")))

    assert await keys_of(enqueue_owner(NODES), change) == [(Request("", "node"), 0)]


@pytest.mark.acceptance("FW-E19")
@pytest.mark.parametrize(("controller_only", "names"), [(True, ["boss"]), (False, ["one", "boss", "two"])])
async def test_only_the_controller_where_asked_for(controller_only: bool, names: list[str]) -> None:
    """Else every owner of the kind."""
    child = owned(reference("one", controller=False), reference("boss"), reference("two", controller=False))
    found = await keys_of(enqueue_owner(DEPLOYMENTS, controller_only=controller_only), Added(child))

    assert [request.name for request, _ in found] == names


@pytest.mark.acceptance("FW-E19")
@pytest.mark.parametrize("references", [None, []], ids=["absent", "empty"])
async def test_an_object_without_owners_concerns_nobody(references: Any) -> None:
    """It makes no work."""
    assert await keys_of(enqueue_owner(DEPLOYMENTS), Added(obj(ownerReferences=references))) == []


# ---------------------------------------------------------------------- mapped


def two_of(found: Obj) -> Iterable[Request]:
    name = found["metadata"]["name"]
    yield Request("n", f"{name}-1")
    yield Request("n", f"{name}-2")


@pytest.mark.acceptance("FW-E20")
async def test_a_function_is_applied_to_the_object() -> None:
    """All keys that it gives, each once."""
    for change in (Added(obj()), Deleted(obj()), Generic(obj())):
        found = await keys_of(enqueue_mapped(lambda o: [*two_of(o), *two_of(o)]), change)
        assert [request.name for request, _ in found] == ["a-1", "a-2"]


@pytest.mark.acceptance("FW-E20")
async def test_on_update_the_function_is_applied_to_both_states() -> None:
    """Keys that both give come once."""
    handler = enqueue_mapped(lambda o: [Request("n", "both"), *two_of(o)])
    found = await keys_of(handler, Updated(obj("old"), obj("new", rv="2")))

    assert [request.name for request, _ in found] == ["both", "old-1", "old-2", "new-1", "new-2"]


# ---------------------------------------------------------------------- priorities


@pytest.mark.acceptance("FW-E21")
@pytest.mark.parametrize(
    ("handler", "key"),
    [
        (enqueue_self, Request("n", "child")),
        (enqueue_owner(DEPLOYMENTS), Request("n", "d")),
        (enqueue_mapped(lambda _: [Request("n", "m")]), Request("n", "m")),
    ],
    ids=["self", "owner", "mapped"],
)
async def test_only_what_says_nothing_new_gets_a_low_priority(handler: Handler, key: Request) -> None:
    """Additions of an initial list and updates to the same resource version; a restart's flood waits for live
    changes."""
    first, later = owned(reference("d")), owned(reference("d"), rv="2")

    for change, priority in (
        (Added(first, initial=True), LOW_PRIORITY),
        (Updated(first, owned(reference("d"))), LOW_PRIORITY),
        (Added(first), 0),
        (Updated(first, later), 0),
        (Deleted(first), 0),
        (Deleted(first, stale=True), 0),
        (Generic(first), 0),
    ):
        assert await keys_of(handler, change) == [(key, priority)]


@pytest.mark.acceptance("FW-E21")
async def test_a_live_change_raises_what_came_with_the_initial_list() -> None:
    """The key that the flood brought and a live change needs is worked on with the live ones."""
    queue: Queue = PriorityQueue()
    for change in (
        Added(obj("a"), initial=True),
        Added(obj("b"), initial=True),
        Updated(obj("b"), obj("b", rv="2")),
    ):
        enqueue_self(change, queue)

    assert [(await queue.get())[0].name for _ in range(2)] == ["b", "a"]


# ---------------------------------------------------------------------- mistakes


@pytest.mark.acceptance("FW-E22", "FW-E18")
@pytest.mark.parametrize("nothing", [None, {}], ids=["none", "empty"])
@pytest.mark.parametrize(
    "handler",
    [enqueue_self, enqueue_owner(DEPLOYMENTS), enqueue_mapped(lambda _: [Request("n", "m")])],
    ids=["self", "owner", "mapped"],
)
async def test_a_change_without_an_object_does_nothing(
    handler: Handler, nothing: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged; on an update the state that is there counts."""
    assert await keys_of(handler, Added(nothing), Deleted(nothing, stale=True), Generic(nothing)) == []
    assert caplog.text.count("ignored") == 3
    assert len(await keys_of(handler, Updated(nothing, owned(reference("d"), rv="2")))) == 1


@pytest.mark.acceptance("FW-E18")
@pytest.mark.parametrize(
    "junk", [{"kind": "Pod"}, {"metadata": None}, {"metadata": {}}, {"metadata": {"name": ""}}]
)
async def test_an_object_without_a_name_is_ignored(junk: Obj, caplog: pytest.LogCaptureFixture) -> None:
    """A tombstone of something that is no object makes no key."""
    assert await keys_of(enqueue_self, Deleted(junk, stale=True)) == []
    assert await keys_of(enqueue_owner(DEPLOYMENTS), Deleted(junk, stale=True)) == []
    assert "without a named object ignored" in caplog.text


async def test_one_function_per_sort_of_change() -> None:
    """Each gets its own sort; sorts without a function are ignored."""
    seen: list[Change] = []
    handler = Funcs(added=lambda c, _: seen.append(c), updated=lambda c, _: seen.append(c))
    rest = Funcs(deleted=lambda c, _: seen.append(c), generic=lambda c, _: seen.append(c))
    changes = all_changes(obj())
    await keys_of(handler, *changes)
    assert seen == changes[:2]
    await keys_of(rest, *changes)

    assert seen == changes
