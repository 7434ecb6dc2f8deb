"""Filling and following a collection on real servers: one that streams lists, one that refuses to, and ours."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import TYPE_CHECKING, Any

import pytest

from manager.client import Client, ObjectList
from manager.errors import ApiError
from manager.streamedlist import INITIAL_EVENTS_END
from manager.types import Obj, Resource
from manager.watch import WatchEvent

if TYPE_CHECKING:
    from conftest import Reflecting, Server

Make = type["Reflecting"]


def real_in_the_long_run(test: Callable[..., Any]) -> Callable[..., Any]:
    """For tests in which the real servers themselves wait for seconds."""
    if os.environ.get("KAITO_SOAK"):
        return test
    return pytest.mark.embedded_only("the real servers take 3 s and more: KAITO_SOAK=1")(test)


class Spy(Client):
    """A client that notes what the server was asked, and which marks of streamed lists it sent."""

    def __init__(self, server: Server) -> None:
        super().__init__(server.config)
        self.asked: list[str] = []
        self.marks: list[str] = []

    async def list_page(self, *args: Any, **options: Any) -> ObjectList:
        self.asked.append("list")
        return await super().list_page(*args, **options)

    def watch_batches(self, *args: Any, **options: Any) -> AsyncGenerator[list[WatchEvent], None]:
        self.asked.append("stream" if options.get("send_initial_events") else "watch")
        return self._noting(super().watch_batches(*args, **options))

    async def _noting(
        self, batches: AsyncGenerator[list[WatchEvent], None]
    ) -> AsyncGenerator[list[WatchEvent], None]:
        try:
            async for events in batches:
                for event in events:
                    metadata = event.object["metadata"]
                    if event.type == "BOOKMARK" and INITIAL_EVENTS_END in metadata.get("annotations", {}):
                        self.marks.append(metadata["resourceVersion"])
                yield events
        finally:
            await batches.aclose()


@pytest.fixture
async def spy(crd_server: Server) -> AsyncIterator[Spy]:
    """See the class."""
    async with Spy(crd_server) as opened:
        yield opened


def widget(name: str, **spec: str) -> Obj:
    return {"metadata": {"name": name}, "spec": spec}


@pytest.mark.acceptance("FW-A01", "FW-A23")
async def test_a_collection_is_filled_by_the_best_way_that_the_server_knows(
    crd_server: Server, spy: Spy, widgets: Resource, namespace: str, reflecting: Make
) -> None:
    """Where lists are streamed there is no list request, and the stream goes on as the watch; 1.20 refuses the
    stream and is listed. Afterwards every change arrives, whichever way it was."""
    for name in ("a", "b"):
        await spy.create(widgets, widget(name), namespace=namespace)
    async with reflecting(spy, widgets, namespace=namespace) as run:
        await run.until_names("a", "b")
        await spy.create(widgets, widget("c"), namespace=namespace)
        await spy.patch(widgets, "a", {"spec": {"size": "large"}}, namespace=namespace)
        await spy.delete(widgets, "b", namespace)
        await run.until_names("a", "c")
        await run.until(lambda: run.mirror.objects[f"{namespace}/a"]["spec"].get("size") == "large")
        found = await spy.list(widgets, namespace)

        assert {obj["metadata"]["name"]: obj for obj in found.items} == {
            obj["metadata"]["name"]: obj for obj in run.mirror.objects.values()
        }
        assert [call[0] for call in run.mirror.calls] == ["replace", "ADDED", "MODIFIED", "DELETED"]
        assert run.errors == []
    if crd_server.kind == "real":
        assert (spy.asked[:3], spy.marks) == (["stream", "list", "watch"], [])
    else:
        assert (spy.asked[:1], len(spy.marks)) == (["stream"], 1)
        assert run.reflector.lists == 0


async def test_an_old_server_refuses_to_stream_a_list(
    crd_server: Server, spy: Spy, widgets: Resource, namespace: str
) -> None:
    """1.20 answers 422, which says that it is not to be asked again; the others answer with a stream."""
    batches = spy.watch_batches(widgets, namespace, send_initial_events=True, timeout_seconds=5)
    try:
        if crd_server.kind == "real":
            with pytest.raises(ApiError) as refused:
                await anext(batches)
            assert refused.value.status == 422
        else:
            assert (await anext(batches))[-1].type == "BOOKMARK"
    finally:
        await batches.aclose()


async def test_an_empty_collection_is_filled_at_once(
    spy: Spy, widgets: Resource, namespace: str, reflecting: Make
) -> None:
    """The mark of an empty stream, or an empty list, comes without any change having to happen."""
    async with reflecting(spy, widgets, namespace=namespace) as run:
        await run.until(lambda: run.mirror.calls == [("replace", "")], 5)


async def test_metadata_alone_is_kept_under_the_true_kind(
    spy: Spy, widgets: Resource, namespace: str, reflecting: Make
) -> None:
    """Both by a stream or a list, and by the watch."""
    await spy.create(widgets, widget("a", secret="x"), namespace=namespace)
    async with reflecting(spy, widgets, namespace=namespace, metadata_only=True) as run:
        await run.until_names("a")
        await spy.create(widgets, widget("b", secret="x"), namespace=namespace)
        await run.until_names("a", "b")

        for obj in run.mirror.objects.values():
            assert set(obj) == {"apiVersion", "kind", "metadata"}
            assert (obj["apiVersion"], obj["kind"]) == ("framework.test/v1", "Widget")
        assert run.errors == []


async def test_a_later_filling_starts_from_the_version_reached(
    crd_server: Server, spy: Spy, widgets: Resource, namespace: str, reflecting: Make
) -> None:
    """A second filling asks for a state at least as new, and the server answers it with all that is there."""
    await spy.create(widgets, widget("a"), namespace=namespace)
    async with reflecting(spy, widgets, namespace=namespace) as run:
        await run.until_names("a")
        reached = run.reflector.resource_version
    await spy.create(widgets, widget("b"), namespace=namespace)
    async with reflecting(spy, widgets, namespace=namespace) as run:
        run.reflector._version = reached
        await run.until_names("a", "b")

    assert int(run.reflector.resource_version) >= int(reached)
    assert run.errors == []


async def test_selectors_narrow_what_is_streamed(
    spy: Spy, widgets: Resource, namespace: str, reflecting: Make
) -> None:
    """An object that begins to match is added, one that no longer does is deleted."""
    await spy.create(widgets, {"metadata": {"name": "a", "labels": {"x": "y"}}}, namespace=namespace)
    await spy.create(widgets, widget("b"), namespace=namespace)
    async with reflecting(spy, widgets, namespace=namespace, label_selector="x=y") as run:
        await run.until_names("a")
        await spy.patch(widgets, "b", {"metadata": {"labels": {"x": "y"}}}, namespace=namespace)
        await run.until_names("a", "b")
        await spy.patch(widgets, "a", {"metadata": {"labels": {"x": None}}}, namespace=namespace)
        await run.until_names("b")


async def test_many_objects_are_streamed_whole(
    spy: Spy, widgets: Resource, namespace: str, reflecting: Make
) -> None:
    """Several hundred objects, more than one page and more than one read, none lost."""
    names = [f"w{number}" for number in range(600)]
    for start in range(0, 600, 50):
        await asyncio.gather(
            *(
                spy.create(widgets, widget(name, text="x" * 500), namespace=namespace)
                for name in names[start:][:50]
            )
        )
    async with reflecting(spy, widgets, namespace=namespace) as run:
        await run.until_names(*names)

        assert [call[0] for call in run.mirror.calls] == ["replace"]


@real_in_the_long_run
@pytest.mark.acceptance("FW-A14", "FW-A23")
async def test_a_version_of_the_future_is_given_up(
    crd_server: Server, spy: Spy, widgets: Resource, namespace: str, reflecting: Make
) -> None:
    """A server that was restored from a backup: its own way to say "too large" leads to what it has, at once.

    The real servers themselves wait about 3 s for a version to come before they say so, so they are asked in the
    long run alone.
    """
    await spy.create(widgets, widget("a"), namespace=namespace)
    run = reflecting(spy, widgets, namespace=namespace)
    run.reflector._version = "999999999"
    async with run:
        await run.until_names("a")

        assert int(run.reflector.resource_version) < 999999999
        assert run.errors == []
    way = ["stream", "list", "list", "watch"] if crd_server.kind == "real" else ["stream", "stream"]
    assert spy.asked[: len(way)] == way
