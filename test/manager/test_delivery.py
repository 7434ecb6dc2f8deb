"""Handlers of an informer: what each of them hears, when it is synced, and how it leaves (behaviours B)."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from manager.errors import ManagerError
from manager.informer import Added, Deleted, Event, Updated
from manager.meta import key
from manager.resources import CONFIGMAPS
from manager.testing.fed import FedInformer, Heard, short
from manager.testing.scripted import config_map
from manager.types import Obj

pytestmark = pytest.mark.looptime


def cm(name: str, version: int, **data: str) -> Obj:
    return config_map(name, str(version), **data)


def informer(**options: Any) -> FedInformer:
    return FedInformer(CONFIGMAPS, **options)


# ------------------------------------------------------------------ synced


@pytest.mark.acceptance("FW-B03")
@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ([], (False, False)),
        (["list"], (True, True)),
        (["list a b"], (True, True)),
        (["add a"], (True, True)),
        (["delete a"], (True, True)),
        (["list a b", "delete a"], (True, True)),
        (["bookmark"], (False, False)),
    ],
    ids=lambda value: "+".join(value) or "nothing" if isinstance(value, list) else "",
)
async def test_synced_after_the_first_list_or_change(said: list[str], expected: tuple[bool, bool]) -> None:
    """The informer once its store is filled, by an empty list too; the handler when it has dealt with that."""
    fed = informer()
    registration = fed.add_handler(lambda _: None)
    async with fed.running():
        for word in said:
            verb, *names = word.split()
            objects = [cm(name, 1) for name in names]
            match verb:
                case "list":
                    fed.listed(*objects)
                case "add":
                    fed.added(*objects)
                case "delete":
                    fed.deleted(*objects)
                case "bookmark":
                    fed.bookmark("7")
        assert (fed.has_synced, registration.has_synced) == (expected[0], False)
        await asyncio.sleep(0.01)
        assert (fed.has_synced, registration.has_synced) == expected


@pytest.mark.acceptance("FW-B23")
async def test_a_handler_is_synced_after_processing_not_after_delivery() -> None:
    """While the last initial event is being worked on it is not; later events do not matter."""
    fed = informer()
    gate = asyncio.Semaphore(0)

    async def slow(_: Event) -> None:
        await gate.acquire()

    registration = fed.add_handler(slow)
    async with fed.running():
        fed.listed(cm("a", 1), cm("b", 1))
        fed.modified(cm("a", 2))
        for _ in range(2):
            await asyncio.sleep(0.01)
            assert fed.has_synced
            assert not registration.has_synced
            gate.release()
        await registration.wait_synced()
        assert registration.backlog == 1


@pytest.mark.acceptance("FW-B23")
async def test_a_handler_of_an_empty_collection_is_synced_with_its_list() -> None:
    """There is nothing to process, and still it is not synced before the list came."""
    fed = informer()
    registration = fed.add_handler(lambda _: None)
    async with fed.running():
        await asyncio.sleep(0.01)
        assert not registration.has_synced
        fed.listed()
        await registration.wait_synced()


@pytest.mark.acceptance("FW-B23", "FW-B21")
async def test_a_handler_that_fails_on_initial_events_is_synced_all_the_same() -> None:
    """A controller must not wait for ever for the one event that its handler cannot bear."""
    fed = informer()

    def failing(_: Event) -> None:
        raise ValueError("no")

    registration = fed.add_handler(failing)
    async with fed.running():
        fed.listed(cm("a", 1))
        await registration.wait_synced()


# ------------------------------------------------------------------ handlers


@pytest.mark.acceptance("FW-B18")
async def test_a_late_handler_misses_and_doubles_nothing() -> None:
    """It hears of the store as its initial list, and then of exactly what comes after."""
    fed = informer()
    async with fed.running():
        fed.listed(cm("a", 1), cm("b", 2))
        fed.modified(cm("a", 3))
        late = Heard()
        registration = fed.add_handler(late)
        fed.modified(cm("b", 4))
        assert not registration.has_synced
        await registration.wait_synced()
        await fed.handlers_caught_up()

    assert late.words == ["initial a@3", "initial b@2", "updated b@2>b@4"]


@pytest.mark.acceptance("FW-B18")
async def test_removal_stops_deliveries_at_once() -> None:
    """What is in the stream is dropped, in the middle of a batch too; the others hear on. Twice does no harm."""
    fed, stays = informer(), Heard()
    heard: list[Event] = []

    def leaves(event: Event) -> None:
        heard.append(event)
        fed.remove_handler(registration)

    registration = fed.add_handler(leaves)
    fed.add_handler(stays)
    async with fed.running():
        fed.listed(cm("a", 1), cm("b", 2))
        await fed.handlers_caught_up()
        fed.modified(cm("a", 3))
        fed.remove_handler(registration)
        await fed.handlers_caught_up()

    assert len(heard) == 1
    assert stays.words == ["initial a@1", "initial b@2", "updated a@1>a@3"]


@pytest.mark.acceptance("FW-B18")
async def test_one_function_registered_twice_hears_twice_and_is_removed_once() -> None:
    """Registrations are told apart, not functions."""
    fed, heard = informer(), Heard()
    fed.add_handler(heard)
    second = fed.add_handler(heard)
    async with fed.running():
        fed.listed(cm("a", 1))
        await fed.handlers_caught_up()
        assert heard.words == ["initial a@1"] * 2
        fed.remove_handler(second)
        fed.modified(cm("a", 2))
        await fed.handlers_caught_up()

    assert heard.words[2:] == ["updated a@1>a@2"]


@pytest.mark.acceptance("FW-B18")
async def test_a_slow_handler_delays_nobody_and_loses_nothing() -> None:
    """Each handler has a stream of its own, without a limit."""
    fed, quick = informer(), Heard()
    slow: list[Event] = []

    async def handler(event: Event) -> None:
        await asyncio.sleep(1)
        slow.append(event)

    fed.add_handler(handler)
    fed.add_handler(quick)
    async with fed.running():
        fed.listed(*(cm(f"o{number}", number + 1) for number in range(50)))
        await asyncio.sleep(0.5)
        assert (len(quick.events), len(slow)) == (50, 0)
        await asyncio.sleep(50)

    assert slow == quick.events


@pytest.mark.acceptance("FW-B19")
async def test_handlers_come_and_go_under_traffic(seed: int) -> None:
    """Whoever is there hears a coherent story: what it was told adds up to what the store held when it left."""
    rng = random.Random(seed)
    fed = informer()
    present: list[tuple[Any, dict[str, Obj], list[str]]] = []

    def handler(picture: dict[str, Obj], errors: list[str]) -> Any:
        def handle(event: Event) -> None:
            match event:
                case Added(obj):
                    if key(obj) in picture:
                        errors.append(f"added twice: {key(obj)}")
                    picture[key(obj)] = obj
                case Updated(old, new):
                    if picture.get(key(old)) != old:
                        errors.append(f"missed something about {key(old)}")
                    picture[key(new)] = new
                case Deleted(obj):
                    if picture.pop(key(obj), None) is None:
                        errors.append(f"deleted unseen: {key(obj)}")

        return handle

    async with fed.running():
        fed.listed()
        source: dict[str, Obj] = {}
        for version in range(2, 400):
            name = rng.choice("abcdefghij")
            if name in source and rng.random() < 0.4:
                source.pop(name)
                fed.deleted(cm(name, version))
            else:
                source[name] = cm(name, version)
                fed.added(cm(name, version))
            if rng.random() < 0.2:
                picture: dict[str, Obj] = {}
                errors: list[str] = []
                present.append((fed.add_handler(handler(picture, errors)), picture, errors))
            if present and rng.random() < 0.15:
                registration, picture, errors = present.pop(rng.randrange(len(present)))
                if rng.random() < 0.5:
                    await fed.shut_down_handler(registration)
                else:
                    fed.remove_handler(registration)
                assert errors == []
            if rng.random() < 0.3:
                await asyncio.sleep(0)
        await fed.handlers_caught_up()
        expected = {key(obj): obj for obj in fed.store.list()}

    assert {name: obj["metadata"]["resourceVersion"] for name, obj in source.items()} == {
        obj["metadata"]["name"]: obj["metadata"]["resourceVersion"] for obj in expected.values()
    }
    for _, picture, errors in present:
        assert errors == []
        assert picture == expected


@pytest.mark.acceptance("FW-B21")
async def test_after_a_handler_has_raised_the_next_event_follows(caplog: pytest.LogCaptureFixture) -> None:
    """In functions and coroutine functions; the failure is logged with its traceback."""
    fed = informer()
    heard: list[str] = []

    def failing(event: Event) -> None:
        assert isinstance(event, Added)
        heard.append(f"f {short(event.obj)}")
        raise ValueError("the handler's own bug")

    async def failing_later(event: Event) -> None:
        await asyncio.sleep(0)
        assert isinstance(event, Added)
        heard.append(f"c {short(event.obj)}")
        raise ValueError("the handler's own bug")

    fed.add_handler(failing)
    fed.add_handler(failing_later)
    async with fed.running():
        fed.listed(cm("a", 1), cm("b", 1))
        await fed.handlers_caught_up()

    assert sorted(heard) == ["c a@1", "c b@1", "f a@1", "f b@1"]
    assert len([record for record in caplog.records if record.exc_info]) == 4


@pytest.mark.acceptance("FW-B22")
async def test_shutting_a_handler_down_waits_for_its_call() -> None:
    """The call that has begun ends, no other begins, and then the shutdown returns."""
    fed = informer()
    story: list[str] = []

    async def slow(event: Event) -> None:
        assert isinstance(event, Added)
        story.append(f"begins {short(event.obj)}")
        await asyncio.sleep(5)
        story.append("ends")

    registration = fed.add_handler(slow)
    async with fed.running():
        fed.listed(cm("a", 1), cm("b", 1))
        await asyncio.sleep(1)
        await fed.shut_down_handler(registration)
        story.append("shut down")
        await asyncio.sleep(20)

    assert story == ["begins a@1", "ends", "shut down"]


@pytest.mark.acceptance("FW-B22")
@pytest.mark.parametrize("when", ["before the start", "idle", "stopped", "twice"])
async def test_shutting_a_handler_down_never_hangs(when: str) -> None:
    """Whatever state the handler and its informer are in."""
    fed = informer()
    registration = fed.add_handler(lambda _: None)
    if when == "before the start":
        await fed.shut_down_handler(registration)
    async with fed.running():
        fed.listed()
        await asyncio.sleep(0.01)
        if when in ("idle", "twice"):
            await fed.shut_down_handler(registration)
    if when in ("stopped", "twice"):
        await fed.shut_down_handler(registration)


@pytest.mark.acceptance("FW-B22")
async def test_a_handler_cannot_wait_for_its_own_end() -> None:
    """It is told so, instead of hanging."""
    fed = informer()
    errors: list[Exception] = []

    async def handler(_: Event) -> None:
        try:
            await fed.shut_down_handler(registration)
        except ManagerError as error:
            errors.append(error)

    registration = fed.add_handler(handler)
    async with fed.running():
        fed.listed(cm("a", 1), cm("b", 1))
        await asyncio.sleep(0.01)

    assert len(errors) == 1


# ------------------------------------------------------------------ resyncs


@pytest.mark.acceptance("FW-B15")
async def test_each_handler_gets_its_own_resyncs_only() -> None:
    """Every two, every three seconds, and never; as updates that change nothing."""
    fed = informer()
    handlers = {period: Heard() for period in (2.0, 3.0, 0.0)}
    for period, heard in handlers.items():
        fed.add_handler(heard, resync_period=period)
    async with fed.running():
        fed.listed(cm("a", 1))
        await asyncio.sleep(0.5)
        for _ in range(6):  # as the reflector does, at the shortest period asked for
            await asyncio.sleep(1)
            fed.resync()
        await fed.handlers_caught_up()

    resyncs = {period: heard.words.count("updated a@1>a@1") for period, heard in handlers.items()}
    assert resyncs == {2.0: 3, 3.0: 2, 0.0: 0}


@pytest.mark.acceptance("FW-B15")
async def test_the_shortest_period_asked_for_before_the_start_is_the_informers() -> None:
    """Below one second is one second; after the start nobody gets less than the informer's, or any without one."""
    fed = informer(resync_period=3600)
    assert fed.add_handler(lambda _: None).resync_period == 3600
    assert fed.add_handler(lambda _: None, resync_period=0).resync_period == 0
    assert fed.add_handler(lambda _: None, resync_period=60).resync_period == 60
    assert fed.add_handler(lambda _: None, resync_period=0.01).resync_period == 1
    assert fed._check_period == 1
    slow, none = informer(resync_period=10), informer()
    async with slow.running(), none.running():
        assert slow.add_handler(lambda _: None, resync_period=2).resync_period == 10
        assert slow.add_handler(lambda _: None, resync_period=20).resync_period == 20
        assert none.add_handler(lambda _: None, resync_period=2).resync_period == 0


@pytest.mark.acceptance("FW-B04", "FW-B06")
async def test_a_resync_tells_nothing_older_than_what_is_in_the_stream() -> None:
    """It comes behind a waiting update and shows the state after it, all objects at one moment."""
    fed, heard = informer(), Heard()
    fed.add_handler(heard, resync_period=1)
    async with fed.running():
        fed.listed(cm("a", 1), cm("b", 1))
        await asyncio.sleep(5)
        fed.modified(cm("a", 2))
        fed.resync()
        fed.modified(cm("b", 3))
        await fed.handlers_caught_up()

    assert heard.words[2:] == ["updated a@1>a@2", "updated a@2>a@2", "updated b@1>b@1", "updated b@1>b@3"]


@pytest.mark.acceptance("FW-B08")
async def test_resyncs_and_stale_deletions_show_objects_as_they_were_kept() -> None:
    """They are the kept objects themselves, which no transform sees a second time."""
    fed, heard = informer(), Heard()
    fed.add_handler(heard, resync_period=1)
    async with fed.running():
        fed.listed(cm("a", 1))
        await asyncio.sleep(2)
        kept = fed.store.list()[0]
        fed.resync()
        fed.listed(version="2")
        await fed.handlers_caught_up()

    again, gone = heard.events[1:]
    assert isinstance(again, Updated)
    assert isinstance(gone, Deleted)
    assert again.old is again.new is gone.obj is kept
