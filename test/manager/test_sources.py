"""Sources over informers: what they pass on, when they are synced, what they need (E3, E5, E17, E18)."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from manager.cache import Cache, CacheNotSynced
from manager.client import Client
from manager.config import RestConfig
from manager.controller import Controller, ControllerDefaults
from manager.controller_metrics import ControllerMetrics, MetricFamilies
from manager.handlers import enqueue_self
from manager.informer import Added, Deleted, Event, EventHandler, Updated
from manager.predicates import generation_changed, on_object
from manager.queue import LOW_PRIORITY, PriorityQueue
from manager.resources import CONFIGMAPS, PODS
from manager.sources import InformerSource, KindSource, SourceError
from manager.types import Obj, Request, Result

pytestmark = pytest.mark.looptime

NOWHERE = RestConfig(server="http://127.0.0.1:1")


class Registered:
    """A handler's registration that is synced when the test says so."""

    def __init__(self) -> None:
        self.synced = asyncio.Event()

    async def wait_synced(self) -> None:
        await self.synced.wait()


class Informer:
    """An informer that tells what the test wants told."""

    def __init__(self) -> None:
        self.handlers: list[EventHandler] = []
        self.registrations: list[Registered] = []

    def __repr__(self) -> str:
        return "<Informer widgets>"

    def add_handler(self, handler: EventHandler, /) -> Registered:
        self.handlers.append(handler)
        self.registrations.append(Registered())
        return self.registrations[-1]

    def tell(self, *events: Event) -> None:
        for handler in self.handlers:
            for event in events:
                handler(event)


def obj(name: str, **metadata: Any) -> Obj:
    return {"metadata": {"name": name, "namespace": "n", **metadata}}


async def taken(queue: PriorityQueue[Request]) -> list[str]:
    return [(await queue.get())[0].name for _ in range(len(queue))]


@pytest.mark.acceptance("FW-E18")
async def test_every_event_of_an_informer_reaches_the_handler() -> None:
    """Additions, updates, deletions, and deletions that nobody saw, with their flag."""
    informer, seen = Informer(), []  # type: Informer, list[object]
    source = InformerSource(informer, lambda event, _: seen.append(event))
    await source.start(PriorityQueue())
    events = [Added(obj("a")), Updated(obj("a"), obj("a")), Deleted(obj("a")), Deleted(obj("b"), stale=True)]
    informer.tell(*events)

    assert seen == events


@pytest.mark.acceptance("FW-E18")
async def test_predicates_filter_each_sort_of_event() -> None:
    """All must agree; later ones are not asked after a refusal, and the handler hears nothing."""
    informer, queue = Informer(), PriorityQueue()  # type: Informer, PriorityQueue[Request]
    wanted = on_object(lambda found: bool(found["metadata"]["name"].startswith("yes")))
    await InformerSource(informer, enqueue_self, wanted, generation_changed).start(queue)
    informer.tell(
        *(Added(obj("yes-1")), Added(obj("no-1"))),
        Updated(obj("yes-2", resourceVersion="1", generation=1), obj("yes-2", resourceVersion="2", generation=2)),
        Updated(
            obj("yes-same", resourceVersion="1", generation=1), obj("yes-same", resourceVersion="2", generation=1)
        ),
        Updated(obj("no-2", generation=1), obj("no-2", generation=2)),
        *(Deleted(obj("yes-3"), stale=True), Deleted(obj("no-3"))),
    )

    assert await taken(queue) == ["yes-1", "yes-2", "yes-3"]


@pytest.mark.acceptance("FW-E05")
async def test_a_controller_waits_for_the_handler_not_for_the_store() -> None:
    """Keys of the initial list are in the queue, and still nothing is reconciled until the handler is through."""
    informer, runs = Informer(), []  # type: Informer, list[Request]

    class Reconciler:
        async def reconcile(self, request: Request) -> Result:
            runs.append(request)
            return Result()

    controller = Controller(
        "sources-test",
        Reconciler(),
        [InformerSource(informer, enqueue_self)],
        metrics=ControllerMetrics(MetricFamilies(CollectorRegistry()), "sources-test"),
        options=ControllerDefaults(skip_name_validation=True),
    )
    task = asyncio.create_task(controller.run())
    await asyncio.sleep(1)
    informer.tell(Added(obj("a"), initial=True))
    await asyncio.sleep(30)
    assert (len(controller.queue), runs) == (1, [])
    informer.registrations[0].synced.set()
    await asyncio.sleep(1)
    assert runs == [Request("n", "a")]
    task.cancel()
    await asyncio.wait({task})


@pytest.mark.acceptance("FW-E17")
@pytest.mark.parametrize(
    ("missing", "words"), [("cache", "needs a cache"), ("kind", "needs a kind"), ("handler", "needs a handler")]
)
async def test_a_kind_source_needs_cache_kind_and_handler(missing: str, words: str) -> None:
    """The mistake is told where it is made, by name."""
    async with Client(NOWHERE) as client:
        parts: dict[str, Any] = {"cache": Cache(client), "kind": PODS, "handler": enqueue_self, missing: None}
        with pytest.raises(SourceError, match=words):
            KindSource(parts["cache"], parts["kind"], parts["handler"])


@pytest.mark.acceptance("FW-E17")
async def test_an_informer_source_needs_an_informer() -> None:
    """The same for an informer of one's own."""
    with pytest.raises(SourceError, match="needs an informer"):
        InformerSource(None, enqueue_self)


@pytest.mark.acceptance("FW-E25")
async def test_a_kind_source_asks_for_what_it_should_see() -> None:
    """Scope and projection are passed to the cache, and only where they were given."""
    asked: list[dict[str, Any]] = []

    class Caching:
        def informer(self, resource: object, **scope: Any) -> Informer:
            asked.append({"resource": resource, **scope})
            return Informer()

    cache: Any = Caching()
    KindSource(cache, PODS, enqueue_self)
    KindSource(cache, PODS, enqueue_self, namespace="n", label_selector="a=b", metadata_only=True)

    assert asked[0] == {"resource": PODS}
    assert asked[1] == {"resource": PODS, "namespace": "n", "label_selector": "a=b", "metadata_only": True}


@pytest.mark.acceptance("FW-E17", "FW-E03")
async def test_a_kind_that_is_not_served_is_tried_until_the_time_is_up() -> None:
    """The informer keeps trying; then the controller ends with an error that names the kind."""
    loop = asyncio.get_running_loop()
    async with Client(NOWHERE) as client:
        cache = Cache(client)
        source = KindSource(cache, CONFIGMAPS, enqueue_self)
        controller = Controller(
            "kind-test",
            NeverCalled(),
            [source],
            metrics=ControllerMetrics(MetricFamilies(CollectorRegistry()), "kind-test"),
            options=ControllerDefaults(skip_name_validation=True),
        )
        running, start = asyncio.create_task(cache.run()), loop.time()
        with pytest.raises(CacheNotSynced, match=r"kind-test waited 120 s for configmaps \(v1 ConfigMap\)"):
            await controller.run()
        assert loop.time() - start == pytest.approx(120, abs=1)
        running.cancel()
        await asyncio.wait({running})


class NeverCalled:
    """A reconciler that must not be reached."""

    async def reconcile(self, request: Request) -> Result:
        raise AssertionError(f"reconciled {request}")


async def test_resyncs_and_initial_lists_are_down_ranked_through_a_source() -> None:
    """The priority that the handler gives arrives in the queue."""
    informer, queue = Informer(), PriorityQueue()  # type: Informer, PriorityQueue[Request]
    await InformerSource(informer, enqueue_self).start(queue)
    informer.tell(Added(obj("a", resourceVersion="1"), initial=True))

    assert await queue.get() == (Request("n", "a"), LOW_PRIORITY)
