"""The informer: what becomes of lists and changes (behaviours B of the acceptance list), fed by hand.

Where client-go has a delta queue between its reflector and its store, here the store changes, and every handler's
stream gets the events, in one synchronous step. What the queue's tests show is shown of that step and the streams.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from typing import Any

import pytest

from manager import debug
from manager.errors import InformerStopped, ManagerError, ReadBeforeSync
from manager.informer import Added, Deleted, Event, Informer, Updated
from manager.meta import key, uid
from manager.resources import CONFIGMAPS
from manager.scope import Scope
from manager.testing.fed import FedInformer, Heard, short
from manager.testing.scripted import config_map
from manager.types import Obj
from manager.watch import WatchEvent

pytestmark = pytest.mark.looptime


def cm(name: str, version: int, **data: str) -> Obj:
    return config_map(name, str(version), **data)


def informer(**options: Any) -> FedInformer:
    return FedInformer(CONFIGMAPS, **options)


# ------------------------------------------------------------------ lists


@pytest.mark.acceptance("FW-B01", "FW-B12")
async def test_a_list_tells_net_changes_deletions_first_and_then_in_its_own_order() -> None:
    """Vanished keys come with their last known state; the rest is added or updated, as the store knew it."""
    fed, heard = informer(), Heard()
    fed.add_handler(heard)
    async with fed.running():
        fed.listed(cm("a", 1), cm("b", 2), cm("c", 3))
        fed.modified(cm("b", 4))
        await fed.handlers_caught_up()
        heard.words.clear()
        fed.listed(cm("d", 6), cm("c", 3), cm("a", 5), version="9")
        await fed.handlers_caught_up()

    assert heard.words == ["vanished b@4", "added d@6", "updated c@3>c@3", "updated a@1>a@5"]
    assert fed.store.resource_version == "9"


@pytest.mark.acceptance("FW-B02")
async def test_what_vanishes_before_a_handler_heard_of_it_is_added_and_then_deleted() -> None:
    """A key that exists only in the streams is not forgotten: both events are there, in their order."""
    fed, heard = informer(), Heard()
    fed.add_handler(heard)
    async with fed.running():
        fed.listed(cm("a", 1))
        fed.added(cm("b", 2))
        fed.listed(cm("a", 1), version="3")
        assert heard.words == []  # nothing has been delivered yet
        await fed.handlers_caught_up()

    assert heard.words == ["initial a@1", "added b@2", "vanished b@2", "updated a@1>a@1"]


@pytest.mark.acceptance("FW-B06")
async def test_a_list_is_one_step_for_handlers_and_readers() -> None:
    """Every call of a handler finds the whole new list in the store, and nothing of the old one."""
    fed = informer()
    seen: list[set[str]] = []
    fed.add_handler(lambda _: seen.append(set(fed.store.keys())))
    async with fed.running():
        fed.listed(cm("a", 1), cm("b", 1))
        await fed.handlers_caught_up()
        fed.listed(cm("b", 2), cm("c", 2))
        await fed.handlers_caught_up()

    assert seen == [{"n/a", "n/b"}] * 2 + [{"n/b", "n/c"}] * 3


@pytest.mark.acceptance("FW-B12")
async def test_deleted_and_created_anew_unseen_is_an_update_whose_uids_differ() -> None:
    """Handlers that care can tell, and the store has the new one."""
    fed, heard = informer(), Heard()
    fed.add_handler(heard)
    async with fed.running():
        fed.listed(cm("a", 1))
        anew = cm("a", 5)
        anew["metadata"]["uid"] = "another"
        fed.listed(anew)
        await fed.handlers_caught_up()

    last = heard.events[-1]
    assert isinstance(last, Updated)
    assert (uid(last.old), uid(last.new)) == ("uid-a", "another")
    assert uid(fed.store.list()[0]) == "another"


async def test_an_item_twice_in_a_list_counts_once() -> None:
    """A server that repeats itself does no harm; the last one counts."""
    fed, heard = informer(), Heard()
    fed.add_handler(heard)
    async with fed.running():
        fed.listed(cm("a", 1), cm("a", 2))
        await fed.handlers_caught_up()

    assert heard.words == ["initial a@2"]


# ------------------------------------------------------------------ changes


@pytest.mark.acceptance("FW-B05")
async def test_changes_of_one_object_in_one_batch_are_each_told_and_never_merged() -> None:
    """However much arrives in one read, a handler hears each change of a key by itself, in order."""
    fed, heard = informer(), Heard()
    fed.add_handler(heard)
    async with fed.running():
        fed.listed()
        fed.apply(
            [
                WatchEvent("ADDED", cm("a", 1)),
                WatchEvent("ADDED", cm("b", 2)),
                WatchEvent("MODIFIED", cm("a", 3)),
                WatchEvent("DELETED", cm("a", 4)),
                WatchEvent("ADDED", cm("a", 5)),
            ]
        )
        await fed.handlers_caught_up()

    assert heard.words == ["added a@1", "added b@2", "updated a@1>a@3", "deleted a@4", "added a@5"]


@pytest.mark.acceptance("FW-B05")
async def test_a_broken_object_does_not_cost_the_rest_of_its_batch() -> None:
    """Without a name it is skipped; one that an index function chokes on is kept and told of."""
    fed, heard = informer(), Heard()
    fed.add_handler(heard)
    fed.add_index("k", lambda obj: [obj["data"]["k"]])
    broken: list[Obj] = [{"metadata": None}, {"kind": "ConfigMap"}, {"metadata": {"namespace": "n"}}]
    async with fed.running():
        fed.replace([cm("a", 1, k="x"), *broken], "1")
        fed.apply([WatchEvent("MODIFIED", obj) for obj in (*broken, cm("b", 2), cm("c", 3, k="x"))])
        await fed.handlers_caught_up()

    assert heard.words == ["initial a@1", "added b@2", "added c@3"]
    assert [short(obj) for obj in fed.store.by_index("k", "x")] == ["a@1", "c@3"]


@pytest.mark.acceptance("FW-B05")
async def test_a_long_backlog_leaves_the_loop_to_others_in_between() -> None:
    """A handler with thousands of events waiting does not hold up the rest of the process until they are done."""
    fed = informer()
    done = 0

    def count(_: Event) -> None:
        nonlocal done
        done += 1

    fed.add_handler(count)
    async with fed.running():
        fed.listed(*(cm(f"o{number}", number + 1) for number in range(3000)))
        seen = []
        while done < 3000:
            await asyncio.sleep(0)
            seen.append(done)

    steps = [after - before for before, after in itertools.pairwise(seen)]
    assert max(steps) <= 1000


async def test_a_deletion_is_told_even_of_what_was_never_seen() -> None:
    """The server says it is gone; whoever cleans up behind it wants to know."""
    fed, heard = informer(), Heard()
    fed.add_handler(heard)
    async with fed.running():
        fed.listed()
        fed.deleted(cm("a", 3))
        await fed.handlers_caught_up()

    assert heard.words == ["deleted a@3"]


@pytest.mark.acceptance("FW-B25")
async def test_the_key_of_what_is_gone_is_known_however_it_went() -> None:
    """A deletion that was seen, one that was not, and one of a cluster-scoped object all carry their object."""
    fed, heard = informer(), Heard()
    fed.add_handler(heard)
    scoped = cm("c", 1)
    del scoped["metadata"]["namespace"]
    async with fed.running():
        fed.listed(cm("a", 1), cm("b", 1), scoped)
        fed.deleted(cm("a", 2))
        fed.listed(version="9")
        await fed.handlers_caught_up()

    gone = [event for event in heard.events if isinstance(event, Deleted)]
    assert [(key(event.obj), event.stale) for event in gone] == [("n/a", False), ("n/b", True), ("c", True)]


@pytest.mark.acceptance("FW-B10")
async def test_the_store_version_moves_with_everything_that_is_learnt() -> None:
    """With additions, updates, deletions (of unknown objects too), bookmarks and lists."""
    fed = informer()
    reached = []
    async with fed.running():
        for step in (
            lambda: fed.listed(version="10"),
            lambda: fed.added(cm("a", 11)),
            lambda: fed.modified(cm("a", 12)),
            lambda: fed.deleted(cm("a", 13)),
            lambda: fed.deleted(cm("never-seen", 14)),
            lambda: fed.bookmark("20"),
            lambda: fed.listed(cm("a", 12), version="30"),
        ):
            step()
            reached.append(fed.store.resource_version)

    assert reached == ["10", "11", "12", "13", "14", "20", "30"]


@pytest.mark.acceptance("FW-B10")
async def test_with_several_scopes_the_store_is_as_far_as_the_slowest() -> None:
    """One that has not come to a version says that the store has not either; each namespace knows its own."""
    fed = informer(scopes=[Scope(namespace="a"), Scope(namespace="b"), Scope(without=("a", "b"))])
    a, b, others = fed._parts
    a.replace([], "10")
    b.replace([], "5")
    assert (fed.has_synced, fed.store.resource_version) == (False, "")
    others.replace([], "7")
    assert (fed.has_synced, fed.store.resource_version) == (True, "5")
    b.bookmark("12")

    assert fed.store.resource_version == "7"
    assert [fed.reached(namespace) for namespace in ("a", "b", "c")] == ["10", "12", "7"]


async def test_a_list_of_one_scope_leaves_the_other_scopes_alone() -> None:
    """What vanished from one namespace is told; what another scope brought stays."""
    fed, heard = informer(scopes=[Scope(namespace="n"), Scope(without=("n",))]), Heard()
    fed.add_handler(heard)
    ours, others = fed._parts
    elsewhere = cm("x", 1)
    elsewhere["metadata"]["namespace"] = "m"
    async with fed.running():
        ours.replace([cm("a", 1)], "1")
        others.replace([elsewhere], "1")
        ours.replace([cm("b", 2)], "2")
        await fed.handlers_caught_up()

    assert sorted(fed.store.keys()) == ["m/x", "n/b"]
    assert heard.words == ["initial a@1", "initial x@1", "vanished a@1", "added b@2"]


# ------------------------------------------------------------------ life


@pytest.mark.acceptance("FW-B20")
async def test_a_stopped_informer_takes_neither_handlers_nor_indexes_and_does_not_start_again() -> None:
    """Nothing would ever come from it, and its registrations say so to whoever waits for them."""
    fed = informer()
    waiting = fed.add_handler(lambda _: None)
    async with fed.running():
        pass

    assert fed.is_stopped
    with pytest.raises(InformerStopped):
        fed.add_handler(lambda _: None)
    with pytest.raises(InformerStopped):
        fed.add_index("x", lambda _: [])
    with pytest.raises(ManagerError, match="started before"):
        await fed.run()
    for wait in (waiting.wait_synced, fed.wait_synced, fed.progress):
        with pytest.raises(InformerStopped):
            await wait()


async def test_a_second_start_is_an_error() -> None:
    """And the first goes on."""
    fed, heard = informer(), Heard()
    fed.add_handler(heard)
    async with fed.running():
        with pytest.raises(ManagerError, match="started before"):
            await fed.run()
        fed.listed(cm("a", 1))
        await fed.handlers_caught_up()

    assert heard.words == ["initial a@1"]


@pytest.mark.acceptance("FW-B07")
async def test_stopping_wakes_everybody_who_waits() -> None:
    """A handler without events, one in the middle of a call, and waiters for sync, progress and handlers."""
    fed = informer()
    idle = fed.add_handler(lambda _: None)

    async def stuck(_: Event) -> None:
        await asyncio.Event().wait()

    busy = fed.add_handler(stuck)
    async with fed.running():
        fed.listed(cm("a", 1))
        await idle.wait_synced()
        waiters = [
            asyncio.create_task(wait()) for wait in (busy.wait_synced, fed.progress, fed.handlers_caught_up)
        ]
        await asyncio.sleep(1)
        assert not any(task.done() for task in waiters)
    async with asyncio.timeout(1):
        await asyncio.gather(*waiters, return_exceptions=True)

    assert (idle.backlog, busy.backlog) == (0, 0)


@pytest.mark.acceptance("FW-B14")
async def test_indexes_can_be_added_before_and_after_the_start() -> None:
    """Those that come later know what is there already; a clash is an error and changes nothing."""
    fed = informer()
    fed.add_index("before", lambda obj: [obj["data"]["k"]])
    async with fed.running():
        fed.listed(cm("a", 1, k="x"))
        fed.add_index("after", lambda obj: [obj["data"]["k"]])
        fed.added(cm("b", 2, k="x"))
        with pytest.raises(ValueError, match="already"):
            fed.add_index("before", lambda _: ["clash"])

    assert {name: len(fed.store.by_index(name, "x")) for name in ("before", "after")} == {"before": 2, "after": 2}


@pytest.mark.acceptance("FW-B11")
async def test_after_any_changes_the_store_is_the_source(seed: int) -> None:
    """Random lists and changes in random batches; the picture that a handler makes of them is right as well."""
    rng = random.Random(seed)
    fed = informer()
    picture: dict[str, str] = {}

    def follow(event: Event) -> None:
        match event:
            case Added(obj) | Updated(_, obj):
                picture[key(obj)] = obj["metadata"]["resourceVersion"]
            case Deleted(obj):
                picture.pop(key(obj), None)

    fed.add_handler(follow)
    source: dict[str, int] = {}
    version = 1
    async with fed.running():
        fed.listed()
        for _ in range(150):
            batch: list[WatchEvent] = []
            for _ in range(rng.randrange(1, 12)):
                version += 1
                name = f"o{rng.randrange(30)}"
                if name in source and rng.random() < 0.4:
                    del source[name]
                    batch.append(WatchEvent("DELETED", cm(name, version)))
                else:
                    kind = "MODIFIED" if name in source else "ADDED"
                    source[name] = version
                    batch.append(WatchEvent(kind, cm(name, version)))
            if rng.random() < 0.15:  # the watch broke, and a list tells what its events would have told
                fed.listed(*(cm(name, at) for name, at in source.items()), version=str(version))
            else:
                fed.apply(batch)
            if rng.random() < 0.3:
                await asyncio.sleep(0)
        await fed.handlers_caught_up()

    expected = {f"n/{name}": str(at) for name, at in source.items()}
    assert {key(obj): obj["metadata"]["resourceVersion"] for obj in fed.store.list()} == expected
    assert picture == expected


# ------------------------------------------------------------------ misuse, other shapes


async def test_a_store_that_is_read_before_its_first_list_says_so() -> None:
    """In debug mode: "not there" would be taken for the truth. Handlers of its own come later than the list."""
    fed = informer()
    found: list[int] = []
    fed.add_handler(lambda _: found.append(len(fed.store.list())))
    fed.add_index("x", lambda _: ["y"])
    async with fed.running():
        for read in (fed.store.list, lambda: fed.store.get("a", "n"), lambda: fed.store.by_index("x", "y")):
            with pytest.raises(ReadBeforeSync, match="configmaps"):
                read()
        fed.listed(cm("a", 1))
        await fed.handlers_caught_up()

    assert found == [1]


async def test_without_debug_mode_an_empty_store_is_just_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    """The guard costs nothing where it is not asked for."""
    monkeypatch.setenv(debug.ENV, "0")
    assert informer().store.list() == []


async def test_an_error_handler_can_be_replaced_before_the_start_only() -> None:
    """Later it would miss errors without anybody noticing."""
    fed = informer()
    fed.set_error_handler(lambda _: None)
    async with fed.running():
        with pytest.raises(ManagerError, match="started before"):
            fed.set_error_handler(lambda _: None)


def test_representations_tell_state_and_counts() -> None:
    """What a person needs who looks at a stuck process."""
    fed = informer()
    registration = fed.add_handler(lambda _: None)

    assert repr(fed) == "<Informer configmaps new <Store 0 objects at nothing yet> handlers=1>"
    assert repr(registration) == "<Registration configmaps synced=False queued=0>"
    assert isinstance(fed, Informer)
