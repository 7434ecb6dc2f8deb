"""What an informer tells its handlers, against a scripted server (behaviours B of the acceptance list)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from manager.client import Client
from manager.informer import Added, Deleted, Event, Informer
from manager.resources import CONFIGMAPS
from manager.testing.scripted import Script, listing, watching


async def until(condition: Callable[[], bool], seconds: float = 8.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)


class Running:
    """An informer whose reflector runs while the block does."""

    def __init__(self, client: Client) -> None:
        self.informer = Informer(client, CONFIGMAPS)
        self.events: list[Event] = []
        self.registration = self.informer.add_handler(self.events.append)

    @property
    def names(self) -> set[str]:
        return {obj["metadata"]["name"] for obj in self.informer.store.list()}

    async def __aenter__(self) -> Running:
        self._task = asyncio.create_task(self.informer.run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


@pytest.mark.acceptance("FW-B01")
async def test_a_list_tells_deletions_that_nobody_saw(client: Client, script: Script) -> None:
    """What vanished while nobody watched is told as a stale deletion with its last known state."""
    gone = {"kind": "Status", "code": 410, "reason": "Expired"}
    script.lists = [listing("a", "b", rv="10"), listing("b", rv="20")]
    script.watches = [watching(("ERROR", gone)), watching(hold=True)]
    async with Running(client) as run:
        await until(lambda: run.names == {"b"})
        await until(lambda: len(run.events) == 4)

    deleted = [event for event in run.events if isinstance(event, Deleted)]
    assert [(event.obj["metadata"]["name"], event.stale) for event in deleted] == [("a", True)]


@pytest.mark.acceptance("FW-B18")
async def test_a_late_handler_hears_of_everything_that_is_there(client: Client, script: Script) -> None:
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


@pytest.mark.acceptance("FW-B21")
async def test_a_handler_that_raises_hears_of_the_next_event(
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
