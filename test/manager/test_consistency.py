"""Reading one's own writes: what a read of the cache waits for, by hand and in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from manager.consistency import Consistency
from manager.errors import InformerStopped, StaleCache
from manager.informer import Event
from manager.resources import CONFIGMAPS, NAMESPACES, PODS
from manager.scope import Scope
from manager.testing.fed import FedInformer
from manager.testing.scripted import config_map
from manager.types import Obj, Resource
from manager.writes import Write

pytestmark = pytest.mark.looptime


@dataclass
class World:
    """A cache's informer of ConfigMaps and what the client tells."""

    fed: FedInformer
    consistency: Consistency = field(default_factory=Consistency)

    def began(self, verb: str, name: str = "a", *, resource: Resource = CONFIGMAPS, **more: Any) -> object:
        return self.consistency.began(Write(verb, resource, "n" if resource.namespaced else "", name, **more))

    def wrote(self, verb: str, answer: Obj | None, **more: Any) -> None:
        """A whole write."""
        self.consistency.ended(self.began(verb, **more), answer)

    def read(
        self, name: str | None = "a", *, namespace: str | None = "n", timeout: float = 10
    ) -> asyncio.Task[None]:
        """A read that begins now."""
        pending = self.consistency.pending(self.fed, namespace, name)

        async def wait() -> None:
            if pending is not None:
                await self.consistency.catch_up(self.fed, pending, timeout)

        return asyncio.create_task(wait())

    async def waits(self, **how: Any) -> bool:
        """Whether a read that begins now has to wait."""
        task = self.read(**how)
        await asyncio.sleep(0.01)
        waiting = not task.done()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return waiting


def cm(version: int, name: str = "a", **meta: Any) -> Obj:
    obj = config_map(name, str(version))
    obj["metadata"] |= meta
    return obj


def status(uid: str = "") -> Obj:
    return {"kind": "Status", "apiVersion": "v1", "status": "Success", "details": {"uid": uid} if uid else {}}


@pytest.fixture
async def world() -> AsyncIterator[World]:
    """An informer that has listed ConfigMap ``a`` at version 10."""
    fed = FedInformer(CONFIGMAPS)
    made = World(fed)
    made.consistency.attach(fed)
    async with fed.running():
        fed.listed(cm(10))
        yield made


async def test_nothing_waits_when_nothing_was_written(world: World) -> None:
    """The usual case costs one look."""
    assert world.consistency.pending(world.fed, "n", "a") is None
    assert world.consistency.pending(world.fed, None, None) is None


@pytest.mark.parametrize("verb", ["create", "update", "patch", "apply"])
async def test_a_read_waits_for_the_answered_version(world: World, verb: str) -> None:
    """Until the watch has come to it, and not longer; reads of other objects do not wait, lists do."""
    world.wrote(verb, cm(20))
    assert await world.waits()
    assert await world.waits(name=None)
    assert not await world.waits(name="b")
    assert not await world.waits(name=None, namespace="m")
    world.fed.modified(cm(19))
    assert await world.waits()
    world.fed.modified(cm(20))

    assert not await world.waits()
    assert repr(world.consistency) == "<Consistency in flight=0 awaited=0>"


async def test_a_later_version_will_do(world: World) -> None:
    """Somebody else's change on top of ours, which the watch may tell alone."""
    world.wrote("patch", cm(20))
    read = world.read()
    await asyncio.sleep(1)
    world.fed.modified(cm(25))
    await asyncio.wait_for(read, 0.1)


async def test_the_highest_of_several_versions_counts(world: World) -> None:
    """Answers may come in any order."""
    first, second = world.began("patch"), world.began("patch")
    world.consistency.ended(second, cm(30))
    world.consistency.ended(first, cm(20))
    world.fed.modified(cm(20))
    assert await world.waits()
    world.fed.modified(cm(30))

    assert not await world.waits()


async def test_a_read_waits_for_a_write_that_began_before_it(world: World) -> None:
    """For its answer, and then for the version; a write that begins later does not concern it."""
    token = world.began("patch")
    read = world.read()
    await asyncio.sleep(1)
    later = world.began("patch")
    world.consistency.ended(token, cm(20))
    await asyncio.sleep(1)
    assert not read.done()
    world.fed.modified(cm(20))
    await asyncio.sleep(0.01)

    assert read.done()
    world.consistency.ended(later, None)


async def test_a_version_that_the_cache_has_passed_before_the_answer_is_not_waited_for(world: World) -> None:
    """The watch is often faster than the answer."""
    token = world.began("patch")
    world.fed.modified(cm(20))
    world.consistency.ended(token, cm(20))

    assert not await world.waits()


async def test_a_failed_write_is_forgotten(world: World) -> None:
    """Whoever waited for its answer goes on."""
    token = world.began("delete")
    read = world.read()
    await asyncio.sleep(1)
    world.consistency.ended(token, None)
    await asyncio.wait_for(read, 0.1)

    assert not await world.waits()


@pytest.mark.parametrize(
    "answer", [status("uid-a"), status(), cm(10)], ids=["Status", "Status without uid", "object"]
)
async def test_a_deletion_is_waited_for_until_that_object_is_gone(world: World, answer: Obj) -> None:
    """Whatever form the answer has; unrelated progress is not enough."""
    world.wrote("delete", answer)
    world.fed.bookmark("50")
    assert await world.waits()
    assert await world.waits(name=None)
    world.fed.deleted(cm(60))

    assert not await world.waits()


async def test_a_namesake_of_the_deleted_object_is_not_mistaken_for_it(world: World) -> None:
    """A list that shows another uid shows that the deleted one is gone."""
    world.wrote("delete", status("uid-a"))
    world.fed.listed(cm(60, uid="another"))

    assert not await world.waits()


@pytest.mark.parametrize(
    "held", [{"finalizers": ["x/y"]}, {"deletionGracePeriodSeconds": 30}], ids=["finalizer", "grace period"]
)
async def test_a_deletion_that_something_holds_up_is_a_change_like_any_other(world: World, held: Any) -> None:
    """The read waits for the mark of deletion, not for the end."""
    marked = cm(20, deletionTimestamp="2024-01-01T00:00:00Z", **held)
    world.wrote("delete", marked)
    assert await world.waits()
    world.fed.modified(marked)

    assert not await world.waits()


async def test_taking_the_last_finalizer_of_a_deleted_object_ends_it(world: World) -> None:
    """The answer to that patch is the object's last state, whose version the cache may have passed already."""
    world.fed.modified(cm(20, deletionTimestamp="2024-01-01T00:00:00Z", finalizers=["x/y"]))
    world.wrote("patch", cm(20, deletionTimestamp="2024-01-01T00:00:00Z"))
    assert await world.waits()
    world.fed.deleted(cm(21))

    assert not await world.waits()


async def test_a_namespace_lives_on_with_the_finalizers_of_its_spec() -> None:
    """Its deletion is a change like any other."""
    fed = FedInformer(NAMESPACES)
    world = World(fed)
    world.consistency.attach(fed)
    marked = {
        "kind": "Namespace",
        "metadata": {
            "name": "a",
            "uid": "u",
            "resourceVersion": "20",
            "deletionTimestamp": "2024-01-01T00:00:00Z",
        },
        "spec": {"finalizers": ["kubernetes"]},
    }
    async with fed.running():
        fed.listed(version="10")
        world.wrote("delete", marked, resource=NAMESPACES)
        assert await world.waits(namespace=None)
        fed.added(marked)
        assert not await world.waits(namespace=None)


async def test_what_was_created_and_deleted_before_the_cache_saw_it_is_not_read(world: World) -> None:
    """Not there yet is not taken for gone: the late news of its creation would bring it back."""
    world.wrote("create", cm(20, name="b"), name="b")
    world.wrote("delete", status("uid-b"), name="b")
    read = world.read("b")
    await asyncio.sleep(1)
    assert not read.done()
    world.fed.added(cm(20, name="b"))
    await asyncio.sleep(1)
    assert not read.done()
    world.fed.deleted(cm(21, name="b"))
    await asyncio.wait_for(read, 0.1)


async def test_a_name_that_the_server_made_is_waited_for_by_lists_at_once_and_by_name_later(world: World) -> None:
    """While the request is under way nobody can ask for it by name."""
    token = world.began("create", name="")
    assert await world.waits(name=None)
    assert not await world.waits(name="a-x7k2p")
    world.consistency.ended(token, cm(20, name="a-x7k2p"))

    assert await world.waits(name="a-x7k2p")


@pytest.mark.parametrize(
    "answer",
    [
        {"kind": "Status", "status": "Success"},
        {"kind": "TokenRequest", "metadata": {"name": "a"}, "status": {}},
        {"kind": "Eviction", "metadata": {"name": "a"}},
    ],
    ids=["binding", "token", "eviction"],
)
async def test_an_answer_without_a_version_is_not_waited_for(world: World, answer: Obj) -> None:
    """It is not the object, and says nothing about it."""
    world.wrote("create", answer, subresource="x")

    assert not await world.waits()
    assert not await world.waits(name=None)


async def test_a_dry_run_is_not_waited_for(world: World) -> None:
    """It changed nothing."""
    world.wrote("patch", cm(20), dry_run=True)

    assert not await world.waits()


async def test_another_kind_is_not_waited_for(world: World) -> None:
    """Each kind has a watch, and versions, of its own; the versions of one kind are the same objects."""
    world.wrote("patch", cm(20), resource=PODS)
    assert not await world.waits()
    world.wrote("patch", cm(20), resource=Resource("", "v2", "configmaps", "ConfigMap"))

    assert await world.waits()


async def test_an_object_that_leaves_the_selector_is_waited_for_until_the_version_passes(world: World) -> None:
    """By a bookmark, or by any later event of another object."""
    world.wrote("patch", cm(20))
    read = world.read()
    world.fed.bookmark("20")
    await asyncio.wait_for(read, 0.1)
    world.wrote("patch", cm(30))
    read = world.read()
    world.fed.added(cm(31, name="b"))
    await asyncio.wait_for(read, 0.1)


async def test_reads_wait_for_handlers_too(world: World) -> None:
    """What handlers keep beside the store is as new as the store; other handlers' later events do not count."""
    gate = asyncio.Event()

    async def slow(_: Event) -> None:
        await gate.wait()

    registration = world.fed.add_handler(slow)
    gate.set()
    await registration.wait_synced()
    gate.clear()
    world.wrote("patch", cm(20))
    world.fed.modified(cm(20))
    assert await world.waits()
    assert await world.waits(name=None)
    gate.set()

    assert not await world.waits()


async def test_a_handler_may_read_its_own_kind(world: World) -> None:
    """It does not wait for itself."""
    answers: list[str] = []

    async def reads(_: Event) -> None:
        pending = world.consistency.pending(world.fed, "n", "a")
        if pending is not None:
            await world.consistency.catch_up(world.fed, pending, 1)
        answers.append("read")

    registration = world.fed.add_handler(reads)
    await registration.wait_synced()
    world.wrote("patch", cm(20))
    world.fed.modified(cm(20))
    await asyncio.sleep(0.1)

    assert answers == ["read", "read"]


async def test_a_cache_that_does_not_catch_up_in_time_says_so(world: World) -> None:
    """With its kind, how far it is and what is missing; the next read waits again."""
    world.wrote("patch", cm(20))
    began = asyncio.get_running_loop().time()
    with pytest.raises(StaleCache, match="configmaps, at 10, has not caught up with own writes within 3 s: n/a"):
        await world.read(timeout=3)

    assert asyncio.get_running_loop().time() - began == pytest.approx(3)
    assert await world.waits()


async def test_a_write_that_is_not_answered_in_time_makes_its_readers_give_up(world: World) -> None:
    """The deadline holds for the answer as well."""
    token = world.began("patch")
    with pytest.raises(StaleCache, match="the answer to patch n/a"):
        await world.read(timeout=3)
    world.consistency.ended(token, None)


async def test_an_informer_that_ends_is_not_waited_for() -> None:
    """The read fails at once instead of at its deadline."""
    fed = FedInformer(CONFIGMAPS)
    world = World(fed)
    async with fed.running():
        fed.listed(cm(10))
        world.wrote("patch", cm(20))
        read = world.read()
        await asyncio.sleep(1)
        assert not read.done()
    with pytest.raises(InformerStopped):
        await read


async def test_a_reader_that_is_cancelled_leaves_the_others_waiting(world: World) -> None:
    """Readers of one write share it, not their fate."""
    token = world.began("patch")
    first, second = world.read(), world.read()
    await asyncio.sleep(1)
    first.cancel()
    await asyncio.sleep(1)
    assert (first.cancelled(), second.done()) == (True, False)
    world.consistency.ended(token, cm(20))
    await asyncio.sleep(0)
    world.fed.modified(cm(20))
    await asyncio.wait_for(second, 0.1)


@pytest.mark.parametrize("how", ["equal object", "equal progress", "never"])
async def test_versions_that_are_no_numbers_are_waited_for_until_seen_and_once_at_most(
    world: World, how: str
) -> None:
    """Order is unknown, so one that was passed unseen must not make the kind unreadable for ever."""
    answer = cm(0)
    answer["metadata"]["resourceVersion"] = "v-two"
    world.wrote("patch", answer)
    assert await world.waits()
    if how == "equal object":
        world.fed.apply_to_part(world.fed._parts[0], [])
        world.fed.modified({**answer})
        world.fed.bookmark("v-three")
    elif how == "equal progress":
        world.fed.bookmark("v-two")
    else:
        with pytest.raises(StaleCache):
            await world.read(timeout=3)

    assert not await world.waits()


async def test_each_namespace_is_as_far_as_its_own_watch() -> None:
    """With a list and watch per namespace, the progress of one says nothing about another."""
    fed = FedInformer(CONFIGMAPS, scopes=[Scope(namespace="m"), Scope(namespace="n")])
    world = World(fed)
    world.consistency.attach(fed)
    m, n = fed._parts
    async with fed.running():
        m.replace([], "10")
        n.replace([], "10")
        world.wrote("create", cm(20))
        m.bookmark("99")
        assert await world.waits()
        assert await world.waits(namespace=None, name=None)
        assert not await world.waits(namespace="m", name=None)
        n.apply([])
        n.bookmark("20")
        assert not await world.waits(namespace=None, name=None)


async def test_what_nobody_reads_is_not_kept_for_ever(world: World) -> None:
    """What the cache shows is forgotten; where nobody watches, many writes become one version for all reads."""
    for version in range(100, 1000):
        world.wrote("create", cm(version, name=f"o{version}"), name=f"o{version}")
        world.fed.added(cm(version, name=f"o{version}"))
        await world.fed.handlers_caught_up()
    seen = world.consistency._record(CONFIGMAPS)
    assert len(seen.demands) <= 64

    for version in range(5000):
        pod = {
            "kind": "Pod",
            "metadata": {"name": f"p{version}", "namespace": "n", "resourceVersion": str(version)},
        }
        world.wrote("create", pod, name=f"p{version}", resource=PODS)
    unseen = world.consistency._record(PODS)
    assert len(unseen.demands) <= 2000
    late = FedInformer(PODS)
    world.consistency.attach(late)
    async with late.running():
        late.listed(version="4000")
        pending = world.consistency.pending(late, "n", "p0")
        assert pending is None or [demand.version for demand in pending.demands.values()] == [unseen.floor]
        late.bookmark("5000")
        if pending is not None:
            await world.consistency.catch_up(late, pending, 1)

    assert (unseen.floor, len(unseen.demands)) == ("", 0)
