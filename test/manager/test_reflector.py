"""List and watch against a scripted server (behaviours A of the acceptance list)."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

import pytest

from manager.client import Client
from manager.informer import Added, Deleted, Event, Informer, Updated
from manager.reflector import Reflector
from manager.resources import CONFIGMAPS
from manager.testing.scripted import Script, config_map, failing, listing, watching


class Quick(random.Random):
    """Jitter of 0, so that a back-off takes its shortest time; whole numbers are as random as ever."""

    def random(self) -> float:
        return 0.0

    def getrandbits(self, k: int, /) -> int:
        return super().getrandbits(k)


async def until(condition: Callable[[], bool], seconds: float = 8.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)


class Running:
    """An informer whose reflector runs while the block does."""

    def __init__(self, client: Client, **options: Any) -> None:
        self.informer = Informer(client, CONFIGMAPS)
        self.events: list[Event] = []
        self.registration = self.informer.add_handler(self.events.append)
        self.informer._reflector = Reflector(client, CONFIGMAPS, self.informer, rng=Quick(1), **options)

    @property
    def names(self) -> set[str]:
        return {obj["metadata"]["name"] for obj in self.informer.store.list()}

    async def __aenter__(self) -> Running:
        self._task = asyncio.create_task(self.informer.run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


@pytest.mark.acceptance("FW-A01")
async def test_list_then_watch_keeps_the_store_true(client: Client, script: Script) -> None:
    """The watch starts at the list's version, and its events change the store."""
    script.lists = [listing("a", "b", rv="10")]
    changes = [
        ("ADDED", config_map("c", "11")),
        ("MODIFIED", config_map("a", "12", k="v")),
        ("DELETED", config_map("b", "13")),
    ]
    script.watches = [watching(*changes, hold=True)]
    async with Running(client) as run:
        await until(lambda: run.names == {"a", "c"})
        await until(lambda: len(run.events) == 5)

    assert script.queries(watch=True)[0]["resourceVersion"] == "10"
    assert script.queries(watch=False)[0]["resourceVersion"] == "0"
    assert [type(event) for event in run.events] == [Added, Added, Added, Updated, Deleted]
    assert run.informer.store.resource_version == "13"


async def test_fw_a02_errors_of_list_and_watch_are_retried(client: Client, script: Script) -> None:
    """A failing list and a failing watch only delay; the store ends right."""
    script.lists = [failing(500), listing("a"), listing("a", "b", rv="20")]
    script.watches = [failing(500), watching(hold=True)]
    async with Running(client) as run:
        await until(lambda: run.names == {"a", "b"})

    assert [query["resourceVersion"] for query in script.queries(watch=False)] == ["0", "0", "10"]


async def test_fw_a05_a06_429_at_watch_open_backs_off_without_a_list(client: Client, script: Script) -> None:
    """Too many requests: the same version is watched again, and nothing is listed."""
    script.lists = [listing("a", rv="10")]
    script.watches = [failing(429), watching(("ADDED", config_map("b", "11")), hold=True)]
    async with Running(client) as run:
        await until(lambda: run.names == {"a", "b"})

    assert len(script.queries(watch=False)) == 1
    assert [query["resourceVersion"] for query in script.queries(watch=True)] == ["10", "10"]


async def test_fw_a08_an_explicit_page_size_is_used_on_every_page(client: Client, script: Script) -> None:
    """Each page is asked for with the limit; continuations carry no version."""
    script.lists = [listing("a", cont="t"), listing("b", rv="11")]
    script.watches = [watching(hold=True)]
    async with Running(client, page_size=1) as run:
        await until(lambda: run.names == {"a", "b"})

    first, second = script.queries(watch=False)
    assert (first["limit"], second["limit"], second["continue"]) == ("1", "1", "t")
    assert "resourceVersion" not in second


async def test_fw_a11_a_restart_lists_at_the_last_version(client: Client, script: Script) -> None:
    """After an ERROR event the list is asked for at the version reached, never again at "0"."""
    script.lists = [listing("a", rv="10"), listing("a", "b", rv="12")]
    gone = {"kind": "Status", "code": 410, "reason": "Expired"}
    script.watches = [
        watching(("MODIFIED", config_map("a", "11")), ("ERROR", gone)),
        watching(hold=True),
    ]
    async with Running(client) as run:
        await until(lambda: run.names == {"a", "b"})

    assert [query["resourceVersion"] for query in script.queries(watch=False)] == ["0", "11"]
    assert "limit" not in script.queries(watch=False)[1]  # FW-A09: a limit would bypass the watch cache


@pytest.mark.parametrize(
    "refusal",
    [
        failing(410, "Expired"),
        failing(504, "Timeout", "Too large resource version: 99, current: 10"),
    ],
    ids=["fw_a12_expired", "fw_a14_too_large"],
)
async def test_an_unusable_version_is_listed_anew_at_once(client: Client, script: Script, refusal: Any) -> None:
    """Expired, or too large: one more list without a version, without delay."""
    script.lists = [refusal, listing("a", rv="20")]
    script.watches = [watching(hold=True)]
    async with Running(client) as run:
        await until(lambda: run.names == {"a"}, 0.7)  # below the shortest back-off

    assert "resourceVersion" not in script.queries(watch=False)[1]


async def test_fw_a13_an_expired_continue_token_leads_to_a_full_list(client: Client, script: Script) -> None:
    """410 on a later page: everything is asked for once, without pages."""
    script.lists = [listing("a", cont="t"), failing(410, "Expired"), listing("a", "b", rv="30")]
    script.watches = [watching(hold=True)]
    async with Running(client) as run:
        await until(lambda: run.names == {"a", "b"})

    assert "limit" not in script.queries(watch=False)[2]


async def test_fw_a15_watch_timeouts_are_spread_over_five_to_ten_minutes(client: Client, script: Script) -> None:
    """timeoutSeconds lies between 300 and 600."""
    script.lists = [listing("a")]
    script.watches = [watching(("MODIFIED", config_map("a", str(20 + i)))) for i in range(5)] + [
        watching(hold=True)
    ]
    async with Running(client):
        await until(lambda: len(script.queries(watch=True)) >= 6)

    timeouts = [int(query["timeoutSeconds"]) for query in script.queries(watch=True)]
    assert all(300 <= timeout <= 600 for timeout in timeouts)
    assert len(set(timeouts)) > 1


async def test_fw_a16_bookmarks_move_the_version_and_the_store(client: Client, script: Script) -> None:
    """After a bookmark and a normal end the next watch starts at the bookmark."""
    script.lists = [listing("a", rv="10")]
    bookmark = {"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"resourceVersion": "77"}}
    script.watches = [watching(("BOOKMARK", bookmark)), watching(hold=True)]
    async with Running(client) as run:
        await until(lambda: len(script.queries(watch=True)) == 2)

    assert script.queries(watch=True)[1]["resourceVersion"] == "77"
    assert run.informer.store.resource_version == "77"
    assert script.queries(watch=True)[0]["allowWatchBookmarks"] == "true"


async def test_fw_a20_a_wrong_event_is_skipped_and_an_empty_short_watch_is_an_error(
    client: Client, script: Script
) -> None:
    """An object of another kind changes nothing; a watch that ends at once with nothing leads to a list."""
    script.lists = [listing("a", rv="10"), listing("a", "z", rv="11")]
    wrong = {"kind": "Secret", "apiVersion": "v1", "metadata": {"name": "x", "resourceVersion": "99"}}
    script.watches = [watching(("ADDED", wrong)), watching(), watching(hold=True)]
    async with Running(client) as run:
        await until(lambda: run.names == {"a", "z"})

    assert script.queries(watch=True)[1]["resourceVersion"] == "10"


async def test_fw_b01_a_list_tells_deletions_that_nobody_saw(client: Client, script: Script) -> None:
    """What vanished while nobody watched is told as a stale deletion with its last known state."""
    gone = {"kind": "Status", "code": 410, "reason": "Expired"}
    script.lists = [listing("a", "b", rv="10"), listing("b", rv="20")]
    script.watches = [watching(("ERROR", gone)), watching(hold=True)]
    async with Running(client) as run:
        await until(lambda: run.names == {"b"})
        await until(lambda: len(run.events) == 4)

    deleted = [event for event in run.events if isinstance(event, Deleted)]
    assert [(event.obj["metadata"]["name"], event.stale) for event in deleted] == [("a", True)]


async def test_fw_b18_a_late_handler_hears_of_everything_that_is_there(client: Client, script: Script) -> None:
    """It gets the store as an initial list, and is synced once it has dealt with it."""
    script.lists = [listing("a", "b")]
    script.watches = [watching(hold=True)]
    async with Running(client) as run:
        await until(lambda: run.informer.has_synced)
        late: list[Event] = []
        registration = run.informer.add_handler(late.append)
        assert not registration.has_synced
        await registration.wait_synced()

    assert [isinstance(event, Added) and event.initial for event in late] == [True, True]


async def test_fw_b21_a_handler_that_raises_hears_of_the_next_event(
    client: Client, script: Script, caplog: pytest.LogCaptureFixture
) -> None:
    """The event is skipped and logged, the stream goes on."""
    script.lists = [listing("a", "b")]
    script.watches = [watching(hold=True)]
    heard = []

    def handler(event: Event) -> None:
        heard.append(event)
        if len(heard) == 1:
            raise ValueError("the handler's own bug")

    run = Running(client)
    registration = run.informer.add_handler(handler)
    async with run:
        await registration.wait_synced()

    assert len(heard) == 2
    assert "event handler failed" in caplog.text


async def test_a_silent_watch_is_given_up_and_carried_on(
    client: Client, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A half-open connection is noticed by its silence; the next watch starts at the version reached."""
    monkeypatch.setitem(Client.watch_batches.__kwdefaults__, "silence", 0.2)
    script.lists = [listing("a", rv="10")]
    script.watches = [
        watching(("ADDED", config_map("b", "11")), hold=True),
        watching(("ADDED", config_map("c", "12")), hold=True),
    ]
    async with Running(client) as run:
        await until(lambda: run.names == {"a", "b", "c"})

    assert [query["resourceVersion"] for query in script.queries(watch=True)][:2] == ["10", "11"]
    assert len(script.queries(watch=False)) == 1


async def test_a_server_that_always_says_expired_is_not_listed_in_a_loop(client: Client, script: Script) -> None:
    """Between two lists lies the back-off, whoever is to blame for the 410."""
    script.lists = [listing("a") for _ in range(50)]
    script.watches = [failing(410, "Expired") for _ in range(50)]
    async with Running(client):
        await asyncio.sleep(1.5)

    assert len(script.queries(watch=False)) == 2


async def test_an_event_without_metadata_is_skipped(client: Client, script: Script) -> None:
    """Nonsense of the right kind changes nothing, and the events after it count."""
    script.lists = [listing("a", rv="10")]
    nonsense: Any = {"kind": "ConfigMap", "apiVersion": "v1"}
    script.watches = [watching(("ADDED", nonsense), ("ADDED", config_map("b", "11")), hold=True)]
    async with Running(client) as run:
        await until(lambda: run.names == {"a", "b"})


async def test_fw_a19_stopping_is_prompt(client: Client, script: Script) -> None:
    """A watch that is open, and a list that hangs, end at once with the reflector."""
    script.watches = [watching(hold=True)]
    for lists in ([], [listing("a")]):
        script.lists = [*lists]
        began = asyncio.get_running_loop().time()
        async with Running(client):
            await asyncio.sleep(0.1)
        assert asyncio.get_running_loop().time() - began < 0.5


async def test_a_silent_watch_is_opened_anew_at_once_from_where_it_was(
    client: Client, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Silence beyond the limit costs neither a list nor a pause, however often it happens."""
    monkeypatch.setitem(Client.watch_batches.__kwdefaults__, "silence", 0.05)
    script.lists = [listing("a", rv="10")]
    script.watches = [watching(hold=True)] * 6
    async with Running(client):
        await until(lambda: len(script.queries(watch=True)) == 6, 0.75)  # one back-off alone takes 0.8 s

    assert {query["resourceVersion"] for query in script.queries(watch=True)} == {"10"}
    assert len(script.queries(watch=False)) == 1
