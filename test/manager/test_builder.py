"""Declaring controllers: what the builder accepts, what it makes of it, what it refuses (behaviours E24-E26)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import pytest

from manager.builder import BuilderError, ControllerBuilder
from manager.changes import Generic
from manager.channel import Channel, ChannelSource
from manager.config import RestConfig
from manager.controller import ControllerDefaults
from manager.errors import ManagerError
from manager.handlers import enqueue_self
from manager.informer import Added, Event, EventHandler, Updated
from manager.manager import Manager
from manager.queue import PriorityQueue
from manager.ratelimit import ItemFastSlow
from manager.resources import CONFIGMAPS, DEPLOYMENTS, PODS, SECRETS
from manager.types import Obj, Request, Resource, Result

pytestmark = pytest.mark.looptime

NOWHERE = RestConfig(server="http://127.0.0.1:1")


class Synced:
    async def wait_synced(self) -> None:
        """At once."""


class Informer:
    """An informer that tells what the test wants told."""

    def __init__(self) -> None:
        self.handlers: list[EventHandler] = []

    def add_handler(self, handler: EventHandler, /) -> Synced:
        self.handlers.append(handler)
        return Synced()

    def tell(self, *events: Event) -> None:
        for handler in self.handlers:
            for event in events:
                handler(event)


class Caching:
    """A cache of such informers, by kind; a metadata-only one is another one."""

    def __init__(self) -> None:
        self.informers: dict[tuple[Resource, bool], Informer] = {}

    def informer(self, resource: Resource, *, metadata_only: bool = False) -> Informer:
        return self.informers.setdefault((resource, metadata_only), Informer())

    def tell(self, resource: Resource, *events: Event) -> None:
        self.informers[resource, False].tell(*events)


class Nothing:
    async def reconcile(self, request: Request) -> Result:
        return Result()


def manager(**defaults: Any) -> Manager:
    """A manager that is never started, with informers of ours."""
    made = Manager(
        NOWHERE, metrics_bind="0", controller=ControllerDefaults(**{"skip_name_validation": True, **defaults})
    )
    made.cache = Caching()  # type: ignore[assignment]
    return made


def idle(name: str, *, of: Manager) -> ControllerBuilder:
    """A controller that nobody tells anything."""
    return ControllerBuilder(of, name).watches_raw_source(ChannelSource(Channel(), enqueue_self))


def obj(name: str, **metadata: Any) -> Obj:
    return {"metadata": {"name": name, "namespace": "n", **metadata}}


def child(name: str, *owners: tuple[str, bool]) -> Obj:
    references = [
        {"apiVersion": "apps/v1", "kind": "Deployment", "name": owner, "uid": owner, "controller": controller}
        for owner, controller in owners
    ]
    return obj(name, ownerReferences=references)


async def names(queue: PriorityQueue[Request]) -> list[str]:
    return [(await queue.get())[0].name for _ in range(len(queue))]


# ---------------------------------------------------------------------- refusals


@pytest.mark.acceptance("FW-E24")
async def test_for_may_be_called_once() -> None:
    """A controller reconciles one kind."""
    with pytest.raises(BuilderError, match="for_ may be called only once"):
        ControllerBuilder(manager()).for_(PODS).for_(DEPLOYMENTS)


@pytest.mark.acceptance("FW-E24")
async def test_owns_needs_for() -> None:
    """Whose owners would they be? Their order does not matter."""
    with pytest.raises(BuilderError, match="owns needs for_"):
        ControllerBuilder(manager(), "c").owns(PODS).build(Nothing())

    assert ControllerBuilder(manager()).owns(PODS).for_(DEPLOYMENTS).build(Nothing()).name == "deployment"


@pytest.mark.acceptance("FW-E24")
async def test_a_controller_must_watch_something() -> None:
    """A raw source alone is enough."""
    with pytest.raises(BuilderError, match="c watches nothing"):
        ControllerBuilder(manager(), "c").build(Nothing())

    source = ChannelSource(Channel(), enqueue_self)
    assert ControllerBuilder(manager(), "c").watches_raw_source(source).build(Nothing()).name == "c"


@pytest.mark.acceptance("FW-E24")
async def test_a_controller_without_a_kind_needs_a_name() -> None:
    """With one the name is the kind in lower case, unless it is named."""
    with pytest.raises(BuilderError, match="needs a name"):
        ControllerBuilder(manager()).watches(PODS, lambda _: []).build(Nothing())

    assert ControllerBuilder(manager()).watches(PODS, lambda _: []).named("x").build(Nothing()).name == "x"
    assert ControllerBuilder(manager()).for_(DEPLOYMENTS).build(Nothing()).name == "deployment"
    assert ControllerBuilder(manager(), "y").for_(DEPLOYMENTS).build(Nothing()).name == "y"


@pytest.mark.acceptance("FW-E24")
async def test_a_name_is_unique_in_the_process() -> None:
    """Also across managers, unless the check is skipped for the one or by default."""
    first = ControllerBuilder(manager(skip_name_validation=False)).for_(SECRETS).build(Nothing())
    again = ControllerBuilder(manager(skip_name_validation=False)).for_(SECRETS)
    with pytest.raises(ManagerError, match="named secret in this process already"):
        again.build(Nothing())

    assert again.options(skip_name_validation=True).build(Nothing()).name == first.name


async def test_a_name_is_free_when_its_manager_has_ended() -> None:
    """Also if the controller never ran, as on a standby that was stopped."""
    first = Manager(NOWHERE, metrics_bind="0")
    held = idle("held", of=first).build(Nothing())
    with pytest.raises(ManagerError, match="named held"):
        idle("held", of=Manager(NOWHERE, metrics_bind="0")).build(Nothing())
    stop = asyncio.Event()
    stop.set()
    await first.run(stop)

    assert idle("held", of=Manager(NOWHERE, metrics_bind="0")).build(Nothing()) is not held


# ---------------------------------------------------------------------- what concerns whom


async def started(builder: ControllerBuilder) -> PriorityQueue[Request]:
    controller = builder.build(Nothing())
    await controller.warmup()
    return controller.queue


@pytest.mark.acceptance("FW-E25")
@pytest.mark.parametrize(
    ("every", "expected"),
    [(False, ["self", "boss"]), (True, ["self", "boss", "other"])],
    ids=["controller", "every"],
)
async def test_owns_leads_to_the_controller_owner_or_to_every_one(every: bool, expected: list[str]) -> None:
    """An object of the kind itself leads to its own key."""
    made = manager()
    queue = await started(ControllerBuilder(made).for_(DEPLOYMENTS).owns(PODS, match_every_owner=every))
    made.cache.tell(DEPLOYMENTS, Added(obj("self")))  # type: ignore[attr-defined]
    made.cache.tell(PODS, Added(child("p", ("boss", True), ("other", False))))  # type: ignore[attr-defined]

    assert await names(queue) == expected


@pytest.mark.acceptance("FW-E25")
async def test_kinds_can_be_watched_by_their_metadata_alone() -> None:
    """For, owns and watches ask the cache for the metadata-only informer, and map its events alike."""
    made = manager()

    def mapped(found: Obj) -> Iterable[Request]:
        yield Request("n", f"of-{found['metadata']['name']}")

    queue = await started(
        ControllerBuilder(made)
        .for_(DEPLOYMENTS, only_metadata=True)
        .owns(PODS, only_metadata=True)
        .watches_metadata(CONFIGMAPS, mapped)
        .watches(SECRETS, mapped)
    )
    informers = made.cache.informers  # type: ignore[attr-defined]
    assert [*informers] == [(DEPLOYMENTS, True), (PODS, True), (CONFIGMAPS, True), (SECRETS, False)]
    informers[DEPLOYMENTS, True].tell(Added(obj("self")))
    informers[PODS, True].tell(Added(child("p", ("boss", True))))
    informers[CONFIGMAPS, True].tell(Added(obj("map")))

    assert await names(queue) == ["self", "boss", "of-map"]


@pytest.mark.acceptance("FW-E26")
async def test_predicates_apply_to_their_watch_and_filters_to_all_but_raw_sources() -> None:
    """A predicate of one watch is never asked about another kind; a global filter is asked about each."""
    made, asked = manager(), {"for": [], "owns": [], "watch": [], "all": []}  # type: Manager, dict[str, list[str]]

    def noting(where: str, refuse: str) -> Any:
        def predicate(event: Event) -> bool:
            assert isinstance(event, Added)
            name = event.obj["metadata"]["name"]
            asked[where].append(name)
            return bool(name != refuse)

        return predicate

    channel = Channel()
    queue = await started(
        ControllerBuilder(made)
        .for_(DEPLOYMENTS, noting("for", "d-no"))
        .owns(PODS, noting("owns", "p-no"))
        .watches(CONFIGMAPS, lambda o: [Request("n", o["metadata"]["name"])], noting("watch", "c-no"))
        .watches_raw_source(ChannelSource(channel, enqueue_self))
        .with_event_filter(noting("all", "none"))
        .with_event_filter(noting("all", "d-never"))
    )
    for name in ("d", "d-no", "d-never"):
        made.cache.tell(DEPLOYMENTS, Added(obj(name)))  # type: ignore[attr-defined]
    for name in ("p", "p-no"):
        made.cache.tell(PODS, Added(child(name, (f"of-{name}", True))))  # type: ignore[attr-defined]
    for name in ("c", "c-no"):
        made.cache.tell(CONFIGMAPS, Added(obj(name)))  # type: ignore[attr-defined]
    await channel.send(obj("none"))
    await asyncio.sleep(1)

    assert await names(queue) == ["d", "of-p", "c", "none"]
    assert asked["for"] == ["d", "d-no"]
    assert asked["owns"] == ["p", "p-no"]
    assert asked["watch"] == ["c", "c-no"]
    assert asked["all"] == [name for name in ("d", "d-no", "d-never", "p", "p-no", "c", "c-no") for _ in range(2)]


async def test_predicates_of_any_change_serve_informers_and_channels_alike() -> None:
    """A custom one may be for one of them only."""
    made = manager()
    seen: list[str] = []

    def only_updates(event: Event) -> bool:
        return isinstance(event, Updated)

    def only_hints(change: Generic) -> bool:
        seen.append(change.obj["metadata"]["name"])
        return True

    channel = Channel()
    source = ChannelSource(channel, enqueue_self, only_hints)
    queue = await started(ControllerBuilder(made).for_(PODS, only_updates).watches_raw_source(source))
    made.cache.tell(PODS, Added(obj("a")), Updated(obj("b"), obj("b")))  # type: ignore[attr-defined]
    await channel.send(obj("c"))
    await asyncio.sleep(1)

    assert await names(queue) == ["c", "b"]  # the update changes nothing, and waits for what is new
    assert seen == ["c"]


# ---------------------------------------------------------------------- options


async def test_options_come_from_the_controller_then_its_kind_then_the_manager() -> None:
    """The number of workers as the example."""
    made = manager(max_concurrent=2, group_kind_concurrency={"Deployment.apps": 5, "Pod": 3})

    def workers(builder: ControllerBuilder) -> float | None:
        name = builder.build(Nothing()).name
        return made.metrics.get_sample_value("controller_runtime_max_concurrent_reconciles", {"controller": name})

    assert workers(ControllerBuilder(made, "own").for_(DEPLOYMENTS).options(max_concurrent=9)) == 9
    assert workers(ControllerBuilder(made, "kind").for_(DEPLOYMENTS)) == 5
    assert workers(ControllerBuilder(made, "core").for_(PODS)) == 3
    assert workers(ControllerBuilder(made, "other").for_(SECRETS)) == 2
    assert workers(ControllerBuilder(made, "no kind").watches(PODS, lambda _: [])) == 2


async def test_the_managers_rate_limiter_is_a_factory() -> None:
    """Each controller gets a limiter of its own, or another sort where it says so."""
    made = manager(rate_limiter=lambda: ItemFastSlow(1, 2, 3))
    builders = [ControllerBuilder(made, name).for_(PODS) for name in "abc"]
    builders[2].options(rate_limiter=lambda: ItemFastSlow(5, 5, 5))
    queues = [builder.build(Nothing()).queue for builder in builders]
    loop, at = asyncio.get_running_loop(), []  # type: asyncio.AbstractEventLoop, list[float]
    start = loop.time()
    for queue in queues:
        queue.add(Request("n", "a"), rate_limited=True)
    for queue in queues:
        await queue.get()
        at.append(round(loop.time() - start, 3))

    assert at == [1, 1, 5]
    assert [queue.failures(Request("n", "a")) for queue in queues] == [1, 1, 1]
