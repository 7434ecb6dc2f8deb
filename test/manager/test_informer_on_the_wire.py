"""The informer behind its reflector, against a scripted server in virtual time (behaviours B)."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from manager.client import Client
from manager.errors import ManagerError
from manager.informer import Added, Deleted, Event, Informer, Updated
from manager.meta import key
from manager.resources import CONFIGMAPS
from manager.testing.fed import Heard
from manager.testing.scripted import (
    Script,
    config_map,
    failing,
    listing,
    status_object,
    watching,
)
from manager.types import Obj

pytestmark = pytest.mark.looptime

EXPIRED = ("ERROR", status_object(410, "Expired"))


@asynccontextmanager
async def running(informer: Informer) -> AsyncIterator[None]:
    task = asyncio.create_task(informer.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(condition: Callable[[], bool], seconds: float = 600.0) -> None:
    """Virtual seconds."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


@pytest.mark.acceptance("FW-B01", "FW-B12")
async def test_a_watch_that_must_start_anew_yields_the_net_changes(client: Client, script: Script) -> None:
    """What changed unseen is told once: a deletion with the last known state, an addition, an update."""
    script.lists = [listing("a", "b", rv="10"), listing("b", "c", rv="20")]
    script.watches = [
        watching(("MODIFIED", config_map("a", "11")), EXPIRED),
        watching(("MODIFIED", config_map("b", "21")), hold=True),
    ]
    informer, heard = Informer(client, CONFIGMAPS), Heard()
    informer.add_handler(heard)
    async with running(informer):
        await until(lambda: len(heard.words) == 7)

    assert heard.words == [
        "initial a@1",
        "initial b@1",
        "updated a@1>a@11",
        "vanished a@11",
        "updated b@1>b@1",
        "added c@1",
        "updated b@1>b@21",
    ]


@pytest.mark.acceptance("FW-B08", "FW-B13")
async def test_a_transform_sees_each_object_once_and_before_anybody_else(client: Client, script: Script) -> None:
    """Handlers and readers only ever see its results, while lists, watches and resyncs go on; a failure of it
    costs that object and nothing else."""
    calls: list[str] = []
    untransformed: list[Event] = []

    def transform(obj: Obj) -> Obj:
        name = obj["metadata"]["name"]
        calls.append(f"{name}@{obj['metadata']['resourceVersion']}")
        if name == "bad":
            raise ValueError("no")
        obj["data"] = {"seen": name}
        return obj

    informer = Informer(client, CONFIGMAPS, transform=transform, resync_period=5)

    def check(event: Event) -> None:
        subjects = [event.old, event.new] if isinstance(event, Updated) else [event.obj]
        stored = informer.store.list()
        if any(obj["data"] != {"seen": obj["metadata"]["name"]} for obj in (*subjects, *stored)):
            untransformed.append(event)

    heard = Heard()
    informer.add_handler(check)
    informer.add_handler(heard)
    script.lists = [listing("a", "bad", rv="10"), listing("a", rv="20")]
    changes = (("ADDED", config_map("b", "11")), ("MODIFIED", config_map("bad", "12")))
    script.watches = [watching(*changes, EXPIRED, after=6), watching(hold=True)]
    async with running(informer):
        await until(lambda: "vanished b@11" in heard.words)
        await asyncio.sleep(11)

    assert untransformed == []
    assert calls == ["a@1", "bad@1", "b@11", "bad@12", "a@1"]
    assert sum(word == "updated a@1>a@1" for word in heard.words) >= 3  # resyncs, and the second list


@pytest.mark.acceptance("FW-B17")
async def test_the_error_handler_sees_what_goes_wrong(client: Client, script: Script) -> None:
    """Each failure of list and watch, as the framework's own error; and the informer goes on."""
    errors: list[Exception] = []
    script.lists = [failing(500, "InternalError", "out of order"), failing(403, "Forbidden"), listing("a")]
    script.watches = [failing(429, "TooManyRequests"), watching(hold=True)]
    informer = Informer(client, CONFIGMAPS, on_error=errors.append)
    async with running(informer):
        await until(lambda: len(script.queries(watch=True)) == 2)

    assert [getattr(error, "status", None) for error in errors] == [500, 403, 429]
    assert all(isinstance(error, ManagerError) for error in errors)


@pytest.mark.acceptance("FW-B15")
async def test_resyncs_come_from_the_reflectors_clock(client: Client, script: Script) -> None:
    """At the shortest period that a handler asked for."""
    script.lists = [listing("a")]
    script.watches = [watching(hold=True)]
    informer, often, seldom = Informer(client, CONFIGMAPS), Heard(), Heard()
    informer.add_handler(often, resync_period=10)
    informer.add_handler(seldom, resync_period=25)
    async with running(informer):
        await informer.wait_synced()
        await asyncio.sleep(65)

    assert (len(often.words), len(seldom.words)) == (1 + 6, 1 + 2)


class Source:
    """A collection with a history, served as lists and watches that break at random."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.objects: dict[str, Obj] = {}
        self.history: list[tuple[int, str, Obj]] = []
        self.version = 10
        self.quiet = False  # from now on nothing breaks
        self.changed = asyncio.Event()

    def change(self) -> None:
        self.version += 1
        name = f"o{self.rng.randrange(12)}"
        obj = config_map(name, str(self.version))
        if name in self.objects and self.rng.random() < 0.4:
            obj["metadata"]["uid"] = self.objects.pop(name)["metadata"]["uid"]
            self.history.append((self.version, "DELETED", obj))
        else:
            known = self.objects.get(name)
            obj["metadata"]["uid"] = known["metadata"]["uid"] if known else f"uid-{self.version}"
            self.objects[name] = obj
            self.history.append((self.version, "MODIFIED" if known else "ADDED", obj))
        self.changed.set()

    async def list(self, _: web.Request) -> web.StreamResponse:
        if not self.quiet and self.rng.random() < 0.2:
            raise web.HTTPInternalServerError
        metadata = {"resourceVersion": str(self.version)}
        items = [*self.objects.values()]
        return web.json_response({"kind": "ConfigMapList", "metadata": metadata, "items": items})

    async def watch(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        reached = int(request.query["resourceVersion"])
        while True:
            news = [entry for entry in self.history if entry[0] > reached]
            if not self.quiet and news:
                fate = self.rng.random()
                if fate < 0.15:
                    self.history.clear()  # what happened meanwhile can only be learnt from a list
                    await self._line(response, *EXPIRED)
                    return response
                if fate < 0.3:
                    return response
                news = news[: self.rng.randrange(1, 6)]
            for version, kind, obj in news:
                await self._line(response, kind, obj)
                reached = version
            if not news:
                self.changed.clear()
                await self.changed.wait()

    async def _line(self, response: web.StreamResponse, kind: str, obj: Any) -> None:
        await response.write(json.dumps({"type": kind, "object": obj}).encode() + b"\n")


@pytest.mark.acceptance("FW-B16", "FW-B11")
async def test_however_the_watch_is_disrupted_each_handler_ends_with_the_truth(
    client: Client, script: Script, seed: int
) -> None:
    """A handler that was there from the start, and one that came in the middle, each hear a coherent story of
    additions, updates and deletions that adds up to the source."""
    rng = random.Random(seed)
    source = Source(rng)
    script.lists = [source.list] * 1000
    script.watches = [source.watch] * 1000
    informer = Informer(client, CONFIGMAPS, rng=random.Random(seed), on_error=lambda _: None)
    pictures: list[dict[str, Obj]] = []
    broken: list[str] = []

    def follow() -> Callable[[Event], None]:
        picture: dict[str, Obj] = {}
        pictures.append(picture)

        def handle(event: Event) -> None:
            match event:
                case Added(obj):
                    if key(obj) in picture:
                        broken.append(f"{key(obj)} added, though known")
                    picture[key(obj)] = obj
                case Updated(old, new):
                    if picture.get(key(old)) is not old:
                        broken.append(f"{key(old)} updated from another state than the last that was told")
                    picture[key(new)] = new
                case Deleted(obj):
                    if picture.pop(key(obj), None) is None:
                        broken.append(f"{key(obj)} deleted, though unknown")

        return handle

    informer.add_handler(follow())
    async with running(informer):
        for number in range(120):
            for _ in range(rng.randrange(4)):
                source.change()
            await asyncio.sleep(rng.random())
            if number == 60:
                informer.add_handler(follow())
        source.quiet = True
        source.change()
        expected = {f"n/{name}": obj["metadata"]["resourceVersion"] for name, obj in source.objects.items()}
        await until(lambda: informer.has_synced and _versions(informer.store.list()) == expected)
        await informer.handlers_caught_up()

    assert broken == []
    assert [_versions([*picture.values()]) for picture in pictures] == [expected, expected]


def _versions(objects: list[Obj]) -> dict[str, str]:
    return {key(obj): obj["metadata"]["resourceVersion"] for obj in objects}
