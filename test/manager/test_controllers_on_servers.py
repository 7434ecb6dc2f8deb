"""Controllers at work against real list and watch (behaviours E15, E17, E25, E26)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client import CollectorRegistry

from manager.builder import ControllerBuilder
from manager.cache import Cache, CacheNotSynced
from manager.changes import Change
from manager.client import Client
from manager.controller import Controller, ControllerDefaults
from manager.controller_metrics import ControllerMetrics, MetricFamilies
from manager.errors import NotFound
from manager.handlers import enqueue_self
from manager.informer import Added, Deleted, Updated
from manager.leader import LeaderElection
from manager.manager import Manager
from manager.predicates import labels_changed, matches, subject
from manager.resources import CONFIGMAPS, CRDS, LEASES, SECRETS, SERVICEACCOUNTS
from manager.sources import KindSource
from manager.types import Obj, Request, Resource, Result

if TYPE_CHECKING:
    from conftest import Server


class Noting:
    """A reconciler that notes which keys of its namespace it was asked to look at."""

    def __init__(self, namespace: str) -> None:
        self.namespace = namespace
        self.names: list[str] = []

    async def reconcile(self, request: Request) -> Result:
        if request.namespace == self.namespace:
            self.names.append(request.name)
        return Result()

    async def has(self, *names: str) -> None:
        """Wait until these were looked at."""
        await until(lambda: {*names} <= {*self.names})


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not true():
            await asyncio.sleep(0.005)


@asynccontextmanager
async def running(manager: Manager) -> AsyncIterator[None]:
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(manager.run(stop))
        try:
            yield
        finally:
            stop.set()


def manager_of(server: Server, **options: Any) -> Manager:
    return Manager(
        server.config, metrics_bind="0", controller=ControllerDefaults(skip_name_validation=True), **options
    )


def named(name: str, **metadata: Any) -> Obj:
    return {"metadata": {"name": name, **metadata}}


def owner_of(owner: Obj, *, controller: bool) -> Obj:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
        "controller": controller,
    }


# ---------------------------------------------------------------------- the kind source


@pytest.mark.acceptance("FW-E17")
async def test_a_kind_source_tells_of_creations_updates_and_deletions(api_server: Server, namespace: str) -> None:
    """What was there first, then each change, with old and new state."""
    seen: list[Change] = []
    async with Client(api_server.config) as client:
        await client.create(CONFIGMAPS, named("before"), namespace=namespace)
        cache = Cache(client)
        source = KindSource(cache, CONFIGMAPS, lambda change, _: seen.append(change), namespace=namespace)
        caching = asyncio.create_task(cache.run())
        controller = controller_of(Noting(namespace), source)
        await controller.warmup()
        await client.create(CONFIGMAPS, named("a"), namespace=namespace)
        await until(lambda: "a" in [subject(change)["metadata"]["name"] for change in seen])
        await client.patch(CONFIGMAPS, "a", {"data": {"x": "1"}}, namespace=namespace)
        await until(lambda: isinstance(seen[-1], Updated))
        await client.delete(CONFIGMAPS, "a", namespace)
        await until(lambda: isinstance(seen[-1], Deleted))
        caching.cancel()
        await asyncio.wait({caching})

    assert [(type(change), subject(change)["metadata"]["name"]) for change in seen] == [
        (Added, "before"), (Added, "a"), (Updated, "a"), (Deleted, "a"),
    ]  # fmt: skip
    assert isinstance(seen[0], Added)
    assert isinstance(seen[1], Added)
    assert isinstance(seen[2], Updated)
    assert (seen[0].initial, seen[1].initial) == (True, False)
    assert ("data" in seen[2].old, seen[2].new["data"]) == (False, {"x": "1"})


def controller_of(reconciler: Noting, source: KindSource, **options: Any) -> Controller:
    return Controller(
        "on-servers",
        reconciler,
        [source],
        metrics=ControllerMetrics(MetricFamilies(CollectorRegistry()), "on-servers"),
        options=ControllerDefaults(skip_name_validation=True, **options),
    )


@pytest.mark.acceptance("FW-E17", "FW-E03")
async def test_a_kind_whose_crd_is_missing_ends_the_controller(api_server: Server, namespace: str) -> None:
    """After the time for sources, with an error that names the kind and the remedy."""
    widgets = Resource(f"{namespace}.example.com", "v1", "widgets", "Widget")
    async with Client(api_server.config) as client:
        cache = Cache(client)
        source = KindSource(cache, widgets, enqueue_self)
        caching = asyncio.create_task(cache.run())
        with pytest.raises(CacheNotSynced, match=r"waited 0.2 s for widgets .*is its CRD installed"):
            await controller_of(Noting(namespace), source, cache_sync_timeout=0.2).run()
        caching.cancel()
        await asyncio.wait({caching})


@pytest.mark.acceptance("FW-E17")
async def test_a_kind_whose_crd_comes_late_is_found(
    api_server: Server, namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The controller waits for it, and then works."""
    group = f"{namespace}.example.com"
    widgets = Resource(group, "v1", "widgets", "Widget")
    crd = {
        "metadata": {"name": f"widgets.{group}"},
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {"plural": "widgets", "singular": "widget", "kind": "Widget", "listKind": "WidgetList"},
            "versions": [
                {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": {"type": "object"}}}
            ],
        },
    }
    async with Client(api_server.config) as client:
        cache, reconciler = Cache(client), Noting(namespace)
        controller = controller_of(reconciler, KindSource(cache, widgets, enqueue_self))
        tasks = {asyncio.create_task(cache.run()), asyncio.create_task(controller.run())}
        await until(lambda: "resource=widgets" in caplog.text)  # it was tried in vain
        await client.create(CRDS, crd)
        try:
            await until_created(client, widgets, namespace)
            await reconciler.has("w")
        finally:
            await client.delete(CRDS, f"widgets.{group}")
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def until_created(client: Client, resource: Resource, namespace: str) -> None:
    async with asyncio.timeout(20):
        while True:
            try:
                await client.create(resource, named("w"), namespace=namespace)
                return
            except NotFound:  # served a moment after the CRD was accepted
                await asyncio.sleep(0.02)


# ---------------------------------------------------------------------- the builder


@pytest.mark.acceptance("FW-E25")
@pytest.mark.parametrize("every", [False, True], ids=["controller", "every-owner"])
async def test_owned_objects_lead_to_their_owners(api_server: Server, namespace: str, every: bool) -> None:
    """To the controller, or to each owner; an object without one leads nowhere."""
    manager, reconciler = manager_of(api_server), Noting(namespace)
    ControllerBuilder(manager).for_(CONFIGMAPS).owns(SECRETS, match_every_owner=every).build(reconciler)
    async with Client(api_server.config) as client, running(manager):
        boss = await client.create(CONFIGMAPS, named("boss"), namespace=namespace)
        other = await client.create(CONFIGMAPS, named("other"), namespace=namespace)
        await reconciler.has("boss", "other")
        reconciler.names.clear()
        owners = [owner_of(other, controller=False), owner_of(boss, controller=True)]
        await client.create(SECRETS, named("free"), namespace=namespace)
        await client.create(SECRETS, named("owned", ownerReferences=owners), namespace=namespace)
        await reconciler.has("boss", *(["other"] if every else []))
        await client.create(CONFIGMAPS, named("last"), namespace=namespace)
        await reconciler.has("last")

    found = [name for name in reconciler.names if name in ("boss", "other", "free", "owned")]
    assert found == (["other", "boss"] if every else ["boss"])


@pytest.mark.acceptance("FW-E25")
async def test_kinds_are_watched_by_their_metadata_alone(api_server: Server, namespace: str) -> None:
    """For, owns and watches: events lead to the same keys, and neither cache nor handlers see the rest."""
    manager, reconciler, mapped = manager_of(api_server), Noting(namespace), []  # type: Manager, Noting, list[Obj]

    def mapping(obj: Obj) -> list[Request]:
        mapped.append(obj)
        return [Request(obj["metadata"]["namespace"], f"from-{obj['metadata']['name']}")]

    (
        ControllerBuilder(manager)
        .for_(CONFIGMAPS, only_metadata=True)
        .owns(SECRETS, only_metadata=True)
        .watches_metadata(SERVICEACCOUNTS, mapping)
        .build(reconciler)
    )
    async with Client(api_server.config) as client, running(manager):
        boss = await client.create(CONFIGMAPS, {**named("boss"), "data": {"x": "y"}}, namespace=namespace)
        await reconciler.has("boss")
        reconciler.names.clear()
        owned = named("owned", ownerReferences=[owner_of(boss, controller=True)])
        await client.create(SECRETS, {**owned, "data": {"x": "eQ=="}}, namespace=namespace)
        await reconciler.has("boss")
        account = {**named("account"), "automountServiceAccountToken": False}
        await client.create(SERVICEACCOUNTS, account, namespace=namespace)
        await reconciler.has("from-account")
        cached = [
            manager.cache.informer(kind, metadata_only=True).store.get(name, namespace)
            for kind, name in ((CONFIGMAPS, "boss"), (SECRETS, "owned"))
        ]

    for obj in [*cached, *mapped]:
        assert obj is not None
        assert {*obj} == {"apiVersion", "kind", "metadata"}
    assert [obj["kind"] for obj in cached if obj] == ["ConfigMap", "Secret"]


@pytest.mark.acceptance("FW-E26")
async def test_predicates_of_one_watch_leave_the_others_alone(api_server: Server, namespace: str) -> None:
    """Only labelled ConfigMaps, only Secrets whose labels change, every ServiceAccount; a filter over all."""
    manager, reconciler = manager_of(api_server), Noting(namespace)
    (
        ControllerBuilder(manager, "predicates")
        .for_(CONFIGMAPS, matches("wanted=yes"))
        .watches(SECRETS, itself, lambda event: isinstance(event, Updated), labels_changed)
        .watches(SERVICEACCOUNTS, itself)
        .with_event_filter(lambda event: not subject(event)["metadata"]["name"].startswith("hidden"))
        .build(reconciler)
    )
    async with Client(api_server.config) as client, running(manager):
        await until(lambda: manager.elected.is_set())
        for name, labels in (("map-no", {}), ("map-yes", {"wanted": "yes"}), ("hidden-map", {"wanted": "yes"})):
            await client.create(CONFIGMAPS, named(name, labels=labels), namespace=namespace)
        for name in ("secret-data", "secret-labels", "hidden-secret"):
            await client.create(SECRETS, named(name), namespace=namespace)
        await client.patch(SECRETS, "secret-data", {"data": {"a": "Yg=="}}, namespace=namespace)
        for name in ("secret-labels", "hidden-secret"):
            await client.patch(SECRETS, name, {"metadata": {"labels": {"a": "b"}}}, namespace=namespace)
        for name in ("hidden-account", "account"):
            await client.create(SERVICEACCOUNTS, named(name), namespace=namespace)
        await reconciler.has("map-yes", "secret-labels", "account")

    assert {*reconciler.names} == {"map-yes", "secret-labels", "account"}


def itself(obj: Obj) -> list[Request]:
    return [Request(obj["metadata"]["namespace"], obj["metadata"]["name"])]


# ---------------------------------------------------------------------- warm-up


@pytest.mark.acceptance("FW-E15")
async def test_a_standby_that_warms_up_has_its_keys_before_it_leads(api_server: Server, namespace: str) -> None:
    """Sources are started while a rival leads, nothing is reconciled; when the rival goes, the work begins."""
    election = LeaderElection("l", namespace, "me", lease_duration=3.0, renew_deadline=2.0, retry_period=0.1)
    manager, reconciler = manager_of(api_server, leader_election=election), Noting(namespace)
    warm = ControllerBuilder(manager, "warm").for_(CONFIGMAPS).options(warmup=True).build(reconciler)
    cold = ControllerBuilder(manager, "cold").for_(CONFIGMAPS).build(Noting(namespace))
    async with Client(api_server.config) as client:
        await client.create(CONFIGMAPS, named("a"), namespace=namespace)
        rival = {"holderIdentity": "rival", "leaseDurationSeconds": 60}
        await client.create(LEASES, {**named("l"), "spec": rival}, namespace=namespace)
        async with running(manager):
            await until(lambda: len(warm.queue) > 0)
            assert (reconciler.names, len(cold.queue)) == ([], 0)
            await client.patch(LEASES, "l", {"spec": {"holderIdentity": ""}}, namespace=namespace)
            await reconciler.has("a")

    assert reconciler.names.count("a") == 1
