"""The cache (behaviours C of the acceptance list): with a scripted server in virtual time, and on API servers."""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from manager import debug
from manager.cache import Cache
from manager.cache_options import ByResource, CacheOptions, Selection
from manager.client import Client
from manager.errors import (
    CacheError,
    CacheNotStarted,
    CacheNotSynced,
    IndexMissing,
    InformerStopped,
    ManagerError,
    NotCached,
    NotFound,
)
from manager.resources import CONFIGMAPS, NAMESPACES, SECRETS
from manager.synced import wait_for_sync
from manager.testing.fed import FedInformer, Heard
from manager.testing.scripted import Script, config_map, listing, watching
from manager.types import Obj

if TYPE_CHECKING:
    from conftest import Server


@asynccontextmanager
async def running(cache: Cache) -> AsyncIterator[Cache]:
    task = asyncio.create_task(cache.run())
    await asyncio.sleep(0)  # it has begun
    try:
        yield cache
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.005)


def names(objects: list[Obj]) -> list[str]:
    return [obj["metadata"]["name"] for obj in objects]


# ------------------------------------------------------------------ starting and stopping


@pytest.mark.looptime
@pytest.mark.acceptance("FW-C11")
async def test_a_second_start_is_an_error(client: Client) -> None:
    """While it runs and after it has ended."""
    cache = Cache(client)
    async with running(cache):
        with pytest.raises(ManagerError, match="started before"):
            await cache.run()
    with pytest.raises(ManagerError, match="started before"):
        await cache.run()


@pytest.mark.looptime
@pytest.mark.acceptance("FW-C12")
async def test_a_read_before_the_start_is_an_error(client: Client) -> None:
    """It would wait for something that nobody has started; after the end as well."""
    cache = Cache(client)
    with pytest.raises(CacheNotStarted, match="configmaps"):
        await cache.get(CONFIGMAPS, "a", "n")
    async with running(cache):
        pass
    with pytest.raises(CacheNotStarted, match="configmaps"):
        await cache.list(CONFIGMAPS)


@pytest.mark.looptime
@pytest.mark.acceptance("FW-C12")
async def test_readers_wait_for_the_first_list(client: Client, script: Script) -> None:
    """The first read of a kind starts its informer; all readers get an answer when the list has come."""
    release = asyncio.Event()
    answer = listing("a", "b")

    async def slowly(request: Any) -> Any:
        await release.wait()
        return await answer(request)

    script.lists = [slowly]
    script.watches = [watching(hold=True)]
    async with running(Cache(client)) as cache:
        readers = [asyncio.create_task(cache.get(CONFIGMAPS, name, "n")) for name in ("a", "b")]
        counter = asyncio.create_task(cache.list(CONFIGMAPS))
        await asyncio.sleep(5)
        assert not any(task.done() for task in (*readers, counter))
        release.set()
        assert names([await task for task in readers]) == ["a", "b"]
        assert len((await counter).items) == 2

    assert len(script.queries(watch=False)) == 1


@pytest.mark.looptime
@pytest.mark.acceptance("FW-C07")
async def test_a_waiting_read_can_be_cancelled_and_names_its_kind_when_its_time_is_up(client: Client) -> None:
    """The script has no list: the server hangs. The informer goes on for later readers."""
    async with running(Cache(client, CacheOptions(sync_timeout=30))) as cache:
        read = asyncio.create_task(cache.get(CONFIGMAPS, "a", "n"))
        await asyncio.sleep(1)
        read.cancel()
        with pytest.raises(asyncio.CancelledError):
            await read
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await cache.list(CONFIGMAPS)
        with pytest.raises(CacheNotSynced, match="configmaps within 30 s"):
            await cache.get(CONFIGMAPS, "a", "n")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await cache.informer(CONFIGMAPS).wait_synced()

    assert repr(cache) == "<Cache 1 informers>"


@pytest.mark.looptime
@pytest.mark.acceptance("FW-B27")
async def test_several_syncs_are_waited_for_together_and_the_missing_are_named() -> None:
    """Informers and registrations alike; cancelling the wait harms nothing."""
    ready, late = FedInformer(CONFIGMAPS), FedInformer(SECRETS)
    registration = late.add_handler(lambda _: None)
    async with ready.running(), late.running():
        ready.listed()
        with pytest.raises(CacheNotSynced, match="could not list secrets, secrets within 5 s"):
            await wait_for_sync([ready, late, registration], 5)
        waiting = asyncio.create_task(wait_for_sync([ready, late, registration], None))
        await asyncio.sleep(1)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        late.listed()
        await wait_for_sync([ready, late, registration], 5)
        never = FedInformer(CONFIGMAPS)
        asyncio.get_running_loop().call_later(1, never.stop)
        with pytest.raises(InformerStopped, match="configmaps"):
            await wait_for_sync([ready, never], None)


@pytest.mark.looptime
@pytest.mark.acceptance("FW-C08")
async def test_an_informer_can_be_removed_and_asked_for_again(client: Client, script: Script) -> None:
    """The old one ends, with its handlers; the next reader gets a new one with a new list, and known indexes."""
    script.lists = [listing("a"), listing("b", rv="20")]
    script.watches = [watching(hold=True), watching(hold=True)]
    async with running(Cache(client)) as cache:
        cache.index_field(CONFIGMAPS, "data.k", lambda obj: [obj["data"].get("k", "")])
        first = cache.informer(CONFIGMAPS)
        registration = first.add_handler(lambda _: None)
        assert names((await cache.list(CONFIGMAPS)).items) == ["a"]
        cache.remove_informer(CONFIGMAPS)
        await first.wait_stopped()
        second = cache.informer(CONFIGMAPS)
        assert names((await cache.list(CONFIGMAPS, field_selector="data.k=")).items) == ["b"]

    assert first is not second
    assert (first.is_stopped, registration.backlog) == (True, 0)


@pytest.mark.looptime
@pytest.mark.acceptance("FW-C08")
async def test_an_informer_that_is_removed_before_it_ran_wakes_its_waiters(client: Client) -> None:
    """Before the cache runs, at the moment it is made, and where there is none."""
    cache = Cache(client)
    early = cache.informer(CONFIGMAPS)
    cache.remove_informer(CONFIGMAPS)
    with pytest.raises(InformerStopped):
        await early.wait_synced()
    async with running(cache):
        late = cache.informer(CONFIGMAPS)
        cache.remove_informer(CONFIGMAPS)
        cache.remove_informer(CONFIGMAPS)
        with pytest.raises(InformerStopped):
            await late.wait_synced()
        await asyncio.sleep(1)
        assert repr(cache) == "<Cache 0 informers>"


@pytest.mark.looptime
async def test_the_same_question_has_the_same_informer(client: Client) -> None:
    """However a selector is written; another selector, namespace or form of object is another collection."""
    cache = Cache(client)
    one = cache.informer(CONFIGMAPS, label_selector="a==b")

    assert cache.informer(CONFIGMAPS, label_selector="a = b") is one
    others = [
        cache.informer(CONFIGMAPS),
        cache.informer(CONFIGMAPS, label_selector="a=b", namespace="n"),
        cache.informer(CONFIGMAPS, field_selector="metadata.name=a"),
        cache.informer(CONFIGMAPS, metadata_only=True),
        cache.informer(SECRETS),
    ]
    assert len({one, *others}) == 6


@pytest.mark.looptime
async def test_resyncs_are_spread_around_the_sync_period(client: Client, seed: int) -> None:
    """Ten hours, ten per cent either way, so that informers do not resync together; 0 is none."""
    cache = Cache(client, rng=random.Random(seed))
    kinds = [cache.informer(CONFIGMAPS, label_selector=f"n={number}") for number in range(20)]
    periods = {informer.add_handler(lambda _: None).resync_period for informer in kinds}

    assert len(periods) == 20
    assert 32_400 <= min(periods) < max(periods) <= 39_600
    never = Cache(client, CacheOptions(sync_period=0)).informer(CONFIGMAPS)
    assert never.add_handler(lambda _: None).resync_period == 0


@pytest.mark.looptime
@pytest.mark.acceptance("FW-B17")
async def test_the_caches_error_handler_hears_of_all_kinds(client: Client) -> None:
    """With the resource, so that one handler can tell them apart; the scripted server refuses what it does not
    know, and hangs on lists."""
    heard: list[tuple[str, str]] = []
    async with Client(client.config) as nobody:
        await nobody.close()
        cache = Cache(
            nobody, on_error=lambda resource, error: heard.append((resource.plural, type(error).__name__))
        )
        cache.informer(CONFIGMAPS)
        cache.informer(SECRETS)
        async with running(cache):
            await asyncio.sleep(1)

    assert {("configmaps", "ConnectionFailed"), ("secrets", "ConnectionFailed")} <= set(heard)


# ------------------------------------------------------------------ what is read


@pytest.mark.looptime
@pytest.mark.acceptance("FW-C06")
async def test_with_the_fail_option_only_what_somebody_watches_can_be_read(client: Client, script: Script) -> None:
    """No informer is started by a read; those that were asked for answer."""
    script.lists = [listing("a")]
    script.watches = [watching(hold=True)]
    async with running(Cache(client, CacheOptions(fail_on_missing_informer=True))) as cache:
        for read in (cache.list(CONFIGMAPS), cache.get(CONFIGMAPS, "a", "n")):
            with pytest.raises(NotCached, match="configmaps"):
                await read
        assert repr(cache) == "<Cache 0 informers>"
        cache.informer(CONFIGMAPS)
        assert names((await cache.list(CONFIGMAPS)).items) == ["a"]


@pytest.mark.looptime
@pytest.mark.acceptance("FW-C01")
@pytest.mark.parametrize("checks", ["0", "1"])
async def test_reads_give_the_shared_object_or_a_copy_of_ones_own(
    client: Client, script: Script, monkeypatch: pytest.MonkeyPatch, checks: str
) -> None:
    """All readers get the same object by default; a copy is plain, may be changed, and nobody else notices."""
    monkeypatch.setenv(debug.ENV, checks)
    script.lists = [listing("a")]
    script.watches = [watching(hold=True)]
    async with running(Cache(client)) as cache:
        shared = await cache.get(CONFIGMAPS, "a", "n")
        assert await cache.get(CONFIGMAPS, "a", "n") is shared
        assert (await cache.list(CONFIGMAPS)).items[0] is shared
        for own in (
            await cache.get(CONFIGMAPS, "a", "n", copy=True),
            (await cache.list(CONFIGMAPS, copy=True)).items[0],
        ):
            assert own == shared
            own["metadata"]["labels"] = {"changed": "yes"}
            assert type(own["metadata"]) is dict

        assert "labels" not in (await cache.get(CONFIGMAPS, "a", "n"))["metadata"]


@pytest.mark.looptime
@pytest.mark.acceptance("FW-C02")
async def test_a_limit_is_honoured_and_a_continuation_refused(client: Client, script: Script) -> None:
    """A list that ended at its limit says so; the token leads nowhere."""
    script.lists = [listing("a", "b", "c")]
    script.watches = [watching(hold=True)]
    async with running(Cache(client)) as cache:
        some = await cache.list(CONFIGMAPS, limit=2)
        everything = await cache.list(CONFIGMAPS, limit=3)
        assert (names(some.items), some.continue_token) == (["a", "b"], "continue-not-supported")
        assert (names(everything.items), everything.continue_token) == (["a", "b", "c"], "")
        assert everything.resource_version == "10"
        with pytest.raises(CacheError, match="cannot be continued"):
            await cache.list(CONFIGMAPS, continue_token=some.continue_token)


@pytest.mark.looptime
async def test_what_is_not_there_is_not_found_as_from_a_server(client: Client, script: Script) -> None:
    """The same error with the same words, so that callers need not know where they read."""
    script.lists = [listing("a")]
    script.watches = [watching(hold=True)]
    async with running(Cache(client)) as cache:
        with pytest.raises(NotFound, match='configmaps "b" not found') as caught:
            await cache.get(CONFIGMAPS, "b", "n")
        with pytest.raises(NotFound):
            await cache.get(CONFIGMAPS, "a", "another")

    assert (caught.value.status, caught.value.reason) == (404, "NotFound")


@pytest.mark.looptime
@pytest.mark.acceptance("FW-C05")
async def test_fields_are_found_by_their_indexes(client: Client, script: Script) -> None:
    """One or several, in one namespace or in all; without an index, or for more than equality, it is an error."""

    def objects(_: Any) -> list[Obj]:
        made = [
            config_map("a", "1", color="red", size="s"),
            config_map("b", "1", color="red", size="l"),
            config_map("c", "1", color="blue", size="l"),
            config_map("d", "1", color="red", size="l"),
        ]
        made[3]["metadata"]["namespace"] = "m"
        return made

    script.lists = [_answering(objects)]
    script.watches = [watching(hold=True)]
    async with running(Cache(client)) as cache:
        cache.index_field(CONFIGMAPS, "data.color", lambda obj: [obj["data"]["color"]])
        await cache.list(CONFIGMAPS)
        cache.index_field(CONFIGMAPS, "data.size", lambda obj: [obj["data"]["size"]])  # after the start as well

        async def found(selector: str, namespace: str | None = None, **more: Any) -> list[str]:
            return names((await cache.list(CONFIGMAPS, namespace, field_selector=selector, **more)).items)

        assert await found("data.color=red") == ["a", "b", "d"]
        assert await found("data.color=red", "n") == ["a", "b"]
        assert await found("data.color=red,data.size=l", "n") == ["b"]
        assert await found("data.color=green") == []
        assert await found("data.color=red", limit=1) == ["a"]
        for selector in ("data.shape=round", "data.color!=red", "data.color=red,data.shape=round"):
            with pytest.raises(IndexMissing, match="data"):
                await found(selector)
        with pytest.raises(ValueError, match="already"):
            cache.index_field(CONFIGMAPS, "data.color", lambda _: [])


def _answering(objects: Callable[[Any], list[Obj]]) -> Any:
    from aiohttp import web

    async def handle(request: Any) -> Any:
        body = {"kind": "ConfigMapList", "metadata": {"resourceVersion": "10"}, "items": objects(request)}
        return web.json_response(body)

    return handle


@pytest.mark.looptime
@pytest.mark.acceptance("FW-C12")
async def test_indexing_neither_waits_nor_starts_anything(client: Client) -> None:
    """Before the start, and while the first list hangs."""
    cache = Cache(client)
    cache.index_field(CONFIGMAPS, "data.a", lambda obj: [obj["data"]["a"]])
    async with running(cache):
        cache.index_field(CONFIGMAPS, "data.b", lambda obj: [obj["data"]["b"]])
        assert repr(cache) == "<Cache 0 informers>"
        informer = cache.informer(CONFIGMAPS)
        cache.index_field(CONFIGMAPS, "data.c", lambda obj: [obj["data"]["c"]])
        await asyncio.sleep(1)

    assert not informer.has_synced
    assert all(informer.store.has_index(f"field:data.{name}") for name in "abc")


@pytest.mark.looptime
@pytest.mark.acceptance("FW-C09")
async def test_a_namespace_that_is_not_cached_is_an_error_and_not_empty(client: Client, script: Script) -> None:
    """For gets, lists and informers; "nothing there" would be taken for the truth."""
    script.lists = [listing("a")]
    script.watches = [watching(hold=True)]
    async with running(Cache(client, CacheOptions(default_namespaces={"n": Selection()}))) as cache:
        assert names((await cache.list(CONFIGMAPS)).items) == ["a"]
        for read in (cache.get(CONFIGMAPS, "a", "m"), cache.list(CONFIGMAPS, "m")):
            with pytest.raises(
                NotCached, match="configmaps of namespace m are not in this cache, only those of n"
            ):
                await read
        with pytest.raises(NotCached):
            cache.informer(CONFIGMAPS, namespace="m")

    assert script.asked[0].query.get("fieldSelector") is None


@pytest.mark.looptime
async def test_a_read_uses_the_narrower_informer_that_is_there(client: Client, script: Script) -> None:
    """Who watches one namespace of a kind does not pay for all when it reads there."""
    script.lists = [listing("a")]
    script.watches = [watching(hold=True)]
    async with running(Cache(client)) as cache:
        cache.informer(CONFIGMAPS, namespace="n")
        assert (await cache.get(CONFIGMAPS, "a", "n"))["metadata"]["name"] == "a"
        assert names((await cache.list(CONFIGMAPS, "n")).items) == ["a"]

    assert len(script.queries(watch=False)) == 1


# ------------------------------------------------------------------ on API servers


@pytest.fixture
async def spaces(api_server: Server) -> AsyncIterator[tuple[Client, str, str]]:
    """A client and two fresh namespaces, ``<one>`` and ``<two>``."""
    unique = uuid.uuid4().hex[:8]
    one, two = f"one-{unique}", f"two-{unique}"
    async with Client(api_server.config) as client:
        for name in (one, two):
            await client.create(NAMESPACES, {"metadata": {"name": name}})
        yield client, one, two
        for name in (one, two):
            await client.delete(NAMESPACES, name)


def labelled(*pairs: str) -> Selection:
    return Selection(label_selector=",".join(pairs))


@pytest.mark.acceptance("FW-C03", "FW-C04")
async def test_a_cache_holds_what_its_options_select(spaces: tuple[Client, str, str]) -> None:
    """Selectors on labels and fields, of the kind, of the namespace and in general; each row is a cache."""
    client, one, two = spaces
    for number, space in (("1", one), ("2", two), ("3", two), ("4", one), ("5", one), ("6", two)):
        labels = {"number": number} | ({"common": "yes"} if number in "34" else {})
        obj = {"metadata": {"name": f"cm-{number}", "labels": labels}}
        await client.create(CONFIGMAPS, obj, namespace=space)

    def kind(**options: Any) -> CacheOptions:
        return CacheOptions(by_resource={CONFIGMAPS: ByResource(**options)})

    def default(namespaces: dict[str, Selection] | None = None, **options: Any) -> CacheOptions:
        return CacheOptions(default=Selection(**options), default_namespaces=namespaces)

    nothing = labelled("no=thing")
    rows: dict[str, tuple[CacheOptions, str]] = {
        "nothing selected": (CacheOptions(), "123456"),
        "field of kind, one": (kind(field_selector="metadata.name=cm-2"), "2"),
        "field by default, one": (default(field_selector="metadata.name=cm-2"), "2"),
        "field of kind, several": (kind(field_selector=f"metadata.namespace={two}"), "236"),
        "field by default, several": (default(field_selector=f"metadata.namespace={two}"), "236"),
        "field of kind, none": (kind(field_selector="metadata.namespace=new"), ""),
        "field by default, none": (default(field_selector="metadata.namespace=new"), ""),
        "label of kind, one": (kind(label_selector="number=4"), "4"),
        "label by default, one": (default(label_selector="number=4"), "4"),
        "label of kind, several": (kind(label_selector="common=yes"), "34"),
        "label by default, several": (default(label_selector="common=yes"), "34"),
        "label of kind, none": (kind(label_selector="new=label"), ""),
        "label by default, none": (default(label_selector="new=label"), ""),
        "label and field of kind": (
            kind(label_selector="common=yes", field_selector=f"metadata.namespace={two}"),
            "3",
        ),
        "label and field by default": (
            default(label_selector="common=yes", field_selector=f"metadata.namespace={two}"),
            "3",
        ),
        "empty label of kind over default, in a namespace": (
            CacheOptions(
                by_resource={CONFIGMAPS: ByResource(label_selector="")},
                default_namespaces={one: Selection()},
                default=nothing,
            ),
            "145",
        ),
        "label by default, in a namespace": (default({two: Selection()}, label_selector="common=yes"), "3"),
        "field of kind in a namespace": (
            kind(namespaces={two: Selection(field_selector="metadata.name=cm-2")}),
            "2",
        ),
        "field of kind in a namespace, none": (
            kind(namespaces={two: Selection(field_selector="metadata.name=cm-1")}),
            "",
        ),
        "field of a default namespace": (default({two: Selection(field_selector="metadata.name=cm-2")}), "2"),
        "field of a default namespace, none": (default({two: Selection(field_selector="metadata.name=cm-1")}), ""),
        "label of kind in a namespace": (kind(namespaces={two: labelled("number=2")}), "2"),
        "label of kind in a namespace, none": (kind(namespaces={two: labelled("number=1")}), ""),
        "label of a default namespace": (default({two: labelled("number=2")}), "2"),
        "label of a default namespace, none": (default({two: labelled("number=1")}), ""),
        "all namespaces by default": (default({"": Selection()}), "123456"),
        "all namespaces of kind": (kind(namespaces={"": Selection()}), "123456"),
        "all others by default": (default({"": Selection(), one: nothing}), "236"),
        "all others of kind": (kind(namespaces={"": Selection(), one: nothing}), "236"),
        "two namespaces": (default({one: Selection(), two: labelled("common=yes")}), "1345"),
    }

    async def held(options: CacheOptions) -> str:
        async with running(Cache(client, options)) as cache:
            found = (await cache.list(CONFIGMAPS)).items
        return "".join(
            sorted(obj["metadata"]["name"][3:] for obj in found if obj["metadata"]["namespace"] in (one, two))
        )

    answers = await asyncio.gather(*(held(options) for options, _ in rows.values()))

    assert dict(zip(rows, answers, strict=True)) == {row: expected for row, (_, expected) in rows.items()}


@pytest.mark.acceptance("FW-C04", "FW-B10")
async def test_an_informer_of_several_namespaces_is_one_to_its_users(spaces: tuple[Client, str, str]) -> None:
    """One store, one stream of events, indexes over all; each namespace is followed."""
    client, one, two = spaces
    namespaces = {one: Selection(), two: Selection(), "": labelled(f"of={one}")}
    async with running(Cache(client, CacheOptions(default_namespaces=namespaces))) as cache:
        informer, heard = cache.informer(CONFIGMAPS), Heard()
        informer.add_index("size", lambda obj: [(obj.get("data") or {}).get("size", "")])
        await informer.add_handler(heard).wait_synced()
        heard.events.clear()
        for space in (one, two):
            await client.create(
                CONFIGMAPS, {"metadata": {"name": f"in-{space}"}, "data": {"size": one}}, namespace=space
            )
        await until(lambda: len(informer.store.by_index("size", one)) == 2)
        await client.delete(CONFIGMAPS, f"in-{two}", two)
        await until(lambda: len(informer.store.by_index("size", one)) == 1)
        await informer.handlers_caught_up()
        found = await cache.list(CONFIGMAPS, two)

    assert f"in-{two}" not in names(found.items)
    ours = [
        type(event).__name__ for event in heard.events if f"in-{one}" in str(event) or f"in-{two}" in str(event)
    ]
    assert ours == ["Added", "Added", "Deleted"]


@pytest.mark.acceptance("FW-C05")
async def test_cluster_scoped_objects_are_indexed_and_unchanged_by_it(spaces: tuple[Client, str, str]) -> None:
    """An index sees the object without a namespace, and the object is as the server sent it."""
    client, one, two = spaces
    async with running(Cache(client)) as cache:
        cache.index_field(NAMESPACES, "metadata.name", lambda obj: [obj["metadata"]["name"]])
        cache.index_field(NAMESPACES, "status.phase", lambda obj: [obj["status"]["phase"]])
        found = (await cache.list(NAMESPACES, field_selector=f"metadata.name={one}")).items
        both = (await cache.list(NAMESPACES, field_selector=f"status.phase=Active,metadata.name={two}")).items
        cached = await cache.get(NAMESPACES, one)
        live = await client.get(NAMESPACES, one)

    live["metadata"].pop("managedFields", None)
    assert (names(found), names(both)) == ([one], [two])
    assert cached == live
    assert "namespace" not in cached["metadata"]


@pytest.mark.acceptance("FW-C10")
async def test_cached_objects_have_no_managed_fields_unless_they_are_wanted(
    spaces: tuple[Client, str, str],
) -> None:
    """The default transform strips them; another one can keep them, for a kind or for all."""
    client, one, _ = spaces
    await client.create(CONFIGMAPS, {"metadata": {"name": "a"}, "data": {"k": "v"}}, namespace=one)
    keep = CacheOptions(default=Selection(transform=lambda obj: obj))
    found = []
    for options in (CacheOptions(), keep):
        async with running(Cache(client, options)) as cache:
            found.append(await cache.get(CONFIGMAPS, "a", one))

    assert ["managedFields" in obj["metadata"] for obj in found] == [False, True]
    assert found[0]["data"] == {"k": "v"}


async def test_metadata_only_informers_hold_metadata_only(spaces: tuple[Client, str, str]) -> None:
    """Beside a full one of the same kind; with the object's true kind."""
    client, one, _ = spaces
    await client.create(CONFIGMAPS, {"metadata": {"name": "a"}, "data": {"k": "v"}}, namespace=one)
    async with running(Cache(client, CacheOptions(default_namespaces={one: Selection()}))) as cache:
        partial = await cache.get(CONFIGMAPS, "a", one, metadata_only=True)
        full = await cache.get(CONFIGMAPS, "a", one)
        assert repr(cache) == "<Cache 2 informers>"

    assert set(partial) == {"apiVersion", "kind", "metadata"}
    assert (partial["kind"], partial["metadata"]) == ("ConfigMap", full["metadata"])
    assert full["data"] == {"k": "v"}
