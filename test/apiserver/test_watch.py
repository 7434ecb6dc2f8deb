"""Watches, on both API servers where the real one is not too old for it."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import looptime
import pytest

from kaito.local.apiserver.handlers import Handlers
from kaito.local.apiserver.registry import builtin_types
from kaito.local.apiserver.selection import Selection
from kaito.local.apiserver.server import ApiServer
from kaito.local.apiserver.storage import Storage
from kaito.local.apiserver.watches import Watch
from manager.client import Client, WatchEvent
from manager.errors import ApiError, Gone
from manager.resources import CONFIGMAPS
from manager.types import Obj


def config(name: str, labels: dict[str, str] | None = None, **data: str) -> Obj:
    return {"metadata": {"name": name, "labels": labels or {}}, "data": data}


@asynccontextmanager
async def closing(watch: AsyncIterator[WatchEvent]) -> AsyncIterator[AsyncIterator[WatchEvent]]:
    """End the request with the block, not when the garbage collector comes by."""
    try:
        yield watch
    finally:
        await watch.aclose()  # type: ignore[attr-defined]


def brief(event: WatchEvent) -> tuple[str, str, str | None]:
    return event.type, event.object["metadata"]["name"], (event.object.get("data") or {}).get("v")


async def take(watch: AsyncIterator[WatchEvent], count: int) -> list[WatchEvent]:
    found: list[WatchEvent] = []
    async with asyncio.timeout(10), closing(watch) as events:
        async for event in events:
            if event.type != "BOOKMARK" and not event.object["metadata"]["name"].startswith("kube-"):
                found.append(event)
                if len(found) == count:
                    break
    return found


@pytest.fixture
async def api(api_server: Any) -> AsyncIterator[Client]:
    async with Client(api_server.config, field_manager="test") as connected:
        yield connected


async def test_changes_after_a_revision_come_in_order(api: Client, namespace: str) -> None:
    """A watch from a list's revision delivers every later change once, old ones first, then as they happen."""
    start = (await api.list(CONFIGMAPS, namespace)).resource_version
    await api.create(CONFIGMAPS, config("a", v="1"), namespace=namespace)
    await api.patch(CONFIGMAPS, "a", {"data": {"v": "2"}}, namespace=namespace)
    watch = api.watch(CONFIGMAPS, namespace, resource_version=start)
    past = await take(watch, 2)
    watch = api.watch(CONFIGMAPS, namespace, resource_version=past[-1].object["metadata"]["resourceVersion"])
    live = asyncio.create_task(take(watch, 2))
    await asyncio.sleep(0.1)
    await api.create(CONFIGMAPS, config("b", v="1"), namespace=namespace)
    await api.delete(CONFIGMAPS, "a", namespace)
    seen = past + await live

    assert [brief(event) for event in seen] == [
        ("ADDED", "a", "1"),
        ("MODIFIED", "a", "2"),
        ("ADDED", "b", "1"),
        ("DELETED", "a", "2"),
    ]
    revisions = [int(event.object["metadata"]["resourceVersion"]) for event in seen]
    assert revisions == sorted(set(revisions))


async def test_a_selector_sees_objects_come_and_go(api: Client, namespace: str) -> None:
    """An object that begins to match is ADDED, one that stops is DELETED, others stay unseen."""
    start = (await api.list(CONFIGMAPS, namespace)).resource_version
    await api.create(CONFIGMAPS, config("a", v="1"), namespace=namespace)
    for color in ("red", "blue"):
        await api.patch(CONFIGMAPS, "a", {"metadata": {"labels": {"color": color}}}, namespace=namespace)
    await api.create(CONFIGMAPS, config("b", {"color": "red"}, v="1"), namespace=namespace)
    await api.delete(CONFIGMAPS, "b", namespace)
    watch = api.watch(CONFIGMAPS, namespace, resource_version=start, label_selector="color=red")

    assert [brief(event) for event in await take(watch, 4)] == [
        ("ADDED", "a", "1"),
        ("DELETED", "a", "1"),
        ("ADDED", "b", "1"),
        ("DELETED", "b", "1"),
    ]


async def test_a_watch_without_revision_begins_with_what_is_there(api: Client, namespace: str) -> None:
    """No revision, or 0, means: the present objects as ADDED, then the changes."""
    await api.create(CONFIGMAPS, config("a", v="1"), namespace=namespace)
    for revision in (None, "0"):
        watch = api.watch(CONFIGMAPS, namespace, resource_version=revision)
        assert [brief(event) for event in await take(watch, 1)] == [("ADDED", "a", "1")]


async def test_a_watch_ends_when_it_said_it_would(api: Client, namespace: str) -> None:
    """timeoutSeconds ends the stream normally."""
    async with asyncio.timeout(5):
        events = [event async for event in api.watch(CONFIGMAPS, namespace, timeout_seconds=1)]

    assert all(event.type in ("ADDED", "BOOKMARK") for event in events)


async def test_a_watch_of_one_namespace_sees_only_its_own(api: Client, namespace: str) -> None:
    """A watch of one namespace is told of no other."""
    start = (await api.list(CONFIGMAPS, namespace)).resource_version
    await api.create(CONFIGMAPS, config(f"x-{namespace}"), namespace="default")
    await api.create(CONFIGMAPS, config("mine"), namespace=namespace)
    seen = await take(api.watch(CONFIGMAPS, namespace, resource_version=start), 1)
    await api.delete(CONFIGMAPS, f"x-{namespace}", "default")

    assert seen[0].object["metadata"]["name"] == "mine"


# ---------------------------------------------------------------------- the embedded server alone


async def test_initial_events_end_with_a_marked_bookmark(client: Client) -> None:
    """sendInitialEvents streams the present objects and then says, with their revision, that this was all."""
    for name in ("a", "b"):
        await client.create(CONFIGMAPS, config(name), namespace="default")
    current = (await client.list(CONFIGMAPS, "default")).resource_version
    seen: list[WatchEvent] = []
    async with closing(client.watch(CONFIGMAPS, "default", send_initial_events=True)) as events:
        async for event in events:
            seen.append(event)
            if event.type == "BOOKMARK":
                break

    assert [event.type for event in seen] == ["ADDED", "ADDED", "BOOKMARK"]
    assert seen[-1].object["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}
    assert seen[-1].object["metadata"]["resourceVersion"] == current


async def test_bookmarks_move_a_quiet_watch_on(client: Client) -> None:
    """A watch of a quiet resource learns the revision that other resources have reached."""
    start = (await client.list(CONFIGMAPS, "default")).resource_version
    watch = client.watch(CONFIGMAPS, "default", resource_version=start)
    first = asyncio.ensure_future(anext(watch))
    other = await client.create(CONFIGMAPS, config("elsewhere"), namespace="kube-system")
    revision = int(other["metadata"]["resourceVersion"])
    async with asyncio.timeout(5):
        bookmark = await first
        while int(bookmark.object["metadata"]["resourceVersion"]) < revision:
            bookmark = await anext(watch)
    await watch.aclose()  # type: ignore[attr-defined]

    assert bookmark.type == "BOOKMARK"
    assert "annotations" not in bookmark.object["metadata"]


async def test_history_that_is_gone_is_a_410(client: Client) -> None:
    """A watch from a revision of the future (of another database) is told to list again."""
    with pytest.raises(Gone) as gone:
        async for _ in client.watch(CONFIGMAPS, "default", resource_version="999999"):
            pass
    assert gone.value.reason == "Expired"


async def test_option_combinations_are_checked(client: Client) -> None:
    """sendInitialEvents without its companions is refused."""
    path = CONFIGMAPS.path("default")
    for query in (
        {"watch": True, "sendInitialEvents": True},
        {"watch": True, "resourceVersionMatch": "NotOlderThan"},
        {"watch": True, "sendInitialEvents": True, "resourceVersionMatch": "Exact", "allowWatchBookmarks": True},
    ):
        with pytest.raises(ApiError) as refused:
            await client.request("GET", path, query=query)
        assert refused.value.status == 422


async def test_a_client_that_hangs_up_frees_its_watch(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Closing the connection of an idle watch ends it on the server too."""
    seen: set[Any] = set()
    original = Handlers._watch

    async def remember(self: Handlers, call: Any) -> Any:
        seen.add(self)
        return await original(self, call)

    monkeypatch.setattr(Handlers, "_watch", remember)
    watch = client.watch(CONFIGMAPS, "default", allow_bookmarks=False)
    pending = asyncio.ensure_future(anext(watch))
    await asyncio.sleep(0.1)
    handlers = seen.pop()
    assert handlers.open_watches == 1
    pending.cancel()
    await asyncio.gather(pending, return_exceptions=True)
    await watch.aclose()  # type: ignore[attr-defined]
    async with asyncio.timeout(5):
        while handlers.open_watches:
            await asyncio.sleep(0.01)


async def test_stopping_the_server_ends_watches_at_once(tmp_path: Any) -> None:
    """A stop does not wait for watchers, and they see a normal end."""
    loop = asyncio.get_running_loop()
    async with ApiServer(tmp_path) as server:
        client = Client(server.rest_config())
        reader = asyncio.create_task(take(client.watch(CONFIGMAPS), 1))
        await asyncio.sleep(0.1)
        started = loop.time()
    assert loop.time() - started < 1.0
    assert await reader == []
    await client.close()


async def test_many_watchers_see_the_same_order(client: Client) -> None:
    """Every watcher sees every change, in the order of revisions."""
    start = (await client.list(CONFIGMAPS, "default")).resource_version
    readers = [
        asyncio.create_task(take(client.watch(CONFIGMAPS, "default", resource_version=start), 40))
        for _ in range(10)
    ]
    await asyncio.gather(
        *(client.create(CONFIGMAPS, config(f"c{number}"), namespace="default") for number in range(40))
    )
    results = [[brief(event) for event in await reader] for reader in readers]

    assert len(set(map(tuple, results))) == 1
    assert len(results[0]) == 40


@pytest.mark.parametrize("bookmarks", [False, True])
def test_a_watch_asks_the_clock_once_for_its_end(tmp_path: Path, bookmarks: bool) -> None:
    """A loop may call a timer a tick early: whoever then waits for the rest stops virtual time for ever."""
    timers = 0

    async def events() -> list[str]:
        loop = asyncio.get_running_loop()
        call_at = loop.call_at

        def counted(*args: Any, **options: Any) -> asyncio.TimerHandle:
            nonlocal timers
            timers += 1
            assert timers < 20, "it waits again and again"
            return call_at(*args, **options)

        loop.call_at = counted  # type: ignore[method-assign]
        [configs] = [kind for kind in builtin_types() if kind.plural == "configmaps"]
        storage = Storage(tmp_path / "state.db")
        with Watch(
            storage,
            configs,
            "default",
            Selection(),
            revision=None,
            bookmark_every=math.nextafter(200.0, math.inf),
            bookmarks=bookmarks,
            initial_end=False,
            deadline=math.nextafter(300.0, math.inf),
            stop=asyncio.Event(),
            prepare=_nothing,
        ) as watch:
            found = [event.type async for batch in watch.events() for event in batch]
        storage.close()
        return found

    with asyncio.Runner(loop_factory=lambda: looptime.new_event_loop(start=0.0, noop_cycles=4)) as runner:
        found = runner.run(events())

    assert found == (["BOOKMARK"] * 2 if bookmarks else [])


async def _nothing(*_: Any) -> None:
    """There is nothing to convert."""
