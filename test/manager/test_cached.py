"""The client that reads from the cache: what comes from where (behaviour G11), and own writes on API servers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from manager.cache import Cache
from manager.cache_options import CacheOptions, Selection
from manager.cached import CachedClient
from manager.client import Client
from manager.consistency import Consistency
from manager.errors import NotFound, StaleCache
from manager.manager import Manager
from manager.resources import CONFIGMAPS, SECRETS
from manager.testing.scripted import Script, listing, watching
from manager.types import Resource
from manager.writes import Write

if TYPE_CHECKING:
    from conftest import Server


@asynccontextmanager
async def running(cache: Cache) -> AsyncIterator[None]:
    task = asyncio.create_task(cache.run())
    await asyncio.sleep(0)  # it has begun
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


# ------------------------------------------------------------------ what comes from where


@pytest.mark.looptime
@pytest.mark.acceptance("FW-G11")
async def test_reads_come_from_the_cache_but_for_kinds_that_are_excluded(client: Client, script: Script) -> None:
    """An excluded kind is asked for each time, whatever version of it is named, and never watched."""
    script.lists = [listing("a"), listing("x"), listing("y")]
    script.watches = [watching(hold=True)]
    cache = Cache(client)
    cached = CachedClient(client, cache, uncached=[SECRETS])
    other_version = Resource("", "v2", "secrets", "Secret")
    async with running(cache):
        for _ in range(3):
            assert [obj["metadata"]["name"] for obj in (await cached.list(CONFIGMAPS)).items] == ["a"]
            assert (await cached.get(CONFIGMAPS, "a", "n"))["metadata"]["name"] == "a"
        assert [obj["metadata"]["name"] for obj in (await cached.list(SECRETS)).items] == ["x"]
        assert [obj["metadata"]["name"] for obj in (await cached.list(other_version)).items] == ["y"]

    assert [cached.is_cached(kind) for kind in (CONFIGMAPS, SECRETS, other_version)] == [True, False, False]
    assert len(script.queries(watch=False)) == 3
    assert len(script.queries(watch=True)) == 1


@pytest.mark.looptime
@pytest.mark.acceptance("FW-G11")
async def test_a_read_at_a_version_is_the_servers(client: Client, script: Script) -> None:
    """The cache holds one version only."""
    script.lists = [listing("x")]
    cached = CachedClient(client, Cache(client))
    found = await cached.list(CONFIGMAPS, resource_version="0")

    assert len(found.items) == 1
    assert script.queries(watch=False)[0]["resourceVersion"] == "0"


@pytest.mark.looptime
@pytest.mark.acceptance("FW-G11")
async def test_a_managers_client_reads_from_the_managers_cache(script: Script) -> None:
    """And its direct client does not; both are one connection to the server."""
    from manager.config import RestConfig

    manager = Manager(RestConfig(server=script.url), metrics_bind="0", health_bind="0")
    script.lists = [listing("a"), listing("b")]
    script.watches = [watching(hold=True)]
    async with running(manager.cache):
        cached = await manager.client.list(CONFIGMAPS)
        live = await manager.live.list(CONFIGMAPS)
    await manager.live.close()

    assert [obj["metadata"]["name"] for obj in (*cached.items, *live.items)] == ["a", "b"]
    assert manager.client.config is manager.live.config


# ------------------------------------------------------------------ own writes, on API servers


@pytest.fixture
async def cached(api_server: Server, namespace: str) -> AsyncIterator[CachedClient]:
    """A cached client of a fresh namespace, whose watch is in order."""
    consistency = Consistency()
    async with Client(api_server.config, write_observer=consistency) as live:
        options = CacheOptions(default_namespaces={namespace: Selection()}, stale_timeout=5)
        cache = Cache(live, options, consistency=consistency)
        async with running(cache):
            yield CachedClient(live, cache)


async def test_what_was_written_is_read(cached: CachedClient, namespace: str) -> None:
    """Created, changed, deleted and created anew: each read shows the write before it, never an older state."""
    await cached.list(CONFIGMAPS)  # the informer runs
    for round_ in range(5):
        made = await cached.create(
            CONFIGMAPS, {"metadata": {"name": "a"}, "data": {"k": "0"}}, namespace=namespace
        )
        assert (await cached.get(CONFIGMAPS, "a", namespace))["metadata"]["uid"] == made["metadata"]["uid"]
        for value in "123":
            await cached.patch(CONFIGMAPS, "a", {"data": {"k": value}}, namespace=namespace)
            found = await cached.list(CONFIGMAPS, namespace)
            assert [obj["data"]["k"] for obj in found.items if obj["metadata"]["name"] == "a"] == [value], round_
        await cached.delete(CONFIGMAPS, "a", namespace)
        with pytest.raises(NotFound):
            await cached.get(CONFIGMAPS, "a", namespace)


async def test_a_list_shows_all_of_many_writes_at_once(cached: CachedClient, namespace: str) -> None:
    """Whatever order they were answered in."""
    await cached.list(CONFIGMAPS)
    async with asyncio.TaskGroup() as tasks:
        for number in range(30):
            obj = {"metadata": {"name": f"o{number}"}}
            tasks.create_task(cached.create(CONFIGMAPS, obj, namespace=namespace))
    found = {obj["metadata"]["name"] for obj in (await cached.list(CONFIGMAPS, namespace)).items}

    assert {f"o{number}" for number in range(30)} <= found


async def test_the_first_read_of_a_kind_shows_what_was_written_before_it(
    cached: CachedClient, namespace: str
) -> None:
    """Its list may come from a watch cache that lags behind."""
    for number in range(3):
        await cached.create(SECRETS, {"metadata": {"name": f"s{number}"}}, namespace=namespace)

    assert (await cached.get(SECRETS, "s2", namespace))["metadata"]["name"] == "s2"


async def test_a_read_need_not_wait(cached: CachedClient, namespace: str) -> None:
    """Per call; it gets what the cache has at this moment. A cache that hangs behind makes waiting reads fail."""
    await cached.list(CONFIGMAPS)
    made = await cached.create(CONFIGMAPS, {"metadata": {"name": "a"}}, namespace=namespace)
    assert (await cached.get(CONFIGMAPS, "a", namespace))["metadata"] is not None
    ahead = {"metadata": {**made["metadata"], "resourceVersion": "99999999999"}}
    cached.cache.consistency.ended(
        cached.cache.consistency.began(Write("patch", CONFIGMAPS, namespace, "a")), ahead
    )
    found = await cached.get(CONFIGMAPS, "a", namespace, consistent=False)
    listed = await cached.list(CONFIGMAPS, namespace, consistent=False)

    assert found["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]
    assert any(obj is found for obj in listed.items)
    with pytest.raises(StaleCache, match=f"{namespace}/a"):
        async with asyncio.timeout(20):
            cached.cache.options = CacheOptions(stale_timeout=0.05)
            await cached.get(CONFIGMAPS, "a", namespace)
