"""The adapter manager over a scripted engine: rollouts, failures, restarts, leases; real registries and files."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.resources import files
from pathlib import Path

import pytest
from aiohttp.test_utils import TestServer
from prometheus_client import CollectorRegistry

from api.adapters import AdapterList, AdapterState, ObservedAdapter, WantedAdapter
from inference_server.adapters.artifact import AdapterFacts
from inference_server.adapters.decide import Artifact, Failure, LoadedSet, Observation, Planned, decide
from inference_server.adapters.limits import Limits
from inference_server.adapters.manager import AdapterManager, Pace
from inference_server.adapters.setup import make_manager
from inference_server.adapters.wanted import ListFile, ListInvalid, Source, parse_list, source_of
from inference_server.oci.backoff import Backoff
from inference_server.protocol import UnknownAdapter
from inference_server.settings import ServeSettings
from inference_server.testing.adapters import linear_shapes, write_adapter
from inference_server.testing.images import archive, artifact, files_of, image
from kaito.local.registry.server import make_registry
from kaito.local.registry.storage import Storage

MODEL = Path(str(files("kaito.local"))) / "models" / "tiny-phi3"
SHAPES = linear_shapes(MODEL)
QUICK = Pace(poll=0.01, passing=Backoff(first=0.02, most=0.05), lasting=Backoff(first=0.02, most=0.05))


class World:
    """A list, folders with adapters, and managers over the scripted engine."""

    def __init__(self, root: Path, engine) -> None:
        self.root = root
        self.engine = engine
        self.list = root / "list" / "adapters.json"
        self.list.parent.mkdir()

    def adapter(self, name: str, seed: int = 1, **more) -> Path:
        return write_adapter(self.root / name, seed, SHAPES, **more)

    def want(self, revision: str, **adapters) -> None:
        """Each adapter as a source or as (source, strength): a folder, or an image's reference."""
        entries = []
        for name, given in adapters.items():
            source, strength = given if isinstance(given, tuple) else (given, 1.0)
            kind = "path" if isinstance(source, Path) else "image"
            entries.append({"name": name, kind: str(source), "strength": strength})
        draft = self.list.with_name("draft")
        draft.write_text(json.dumps({"revision": revision, "adapters": entries}))
        draft.replace(self.list)

    def manager(self, **settings) -> AdapterManager:
        made = make_manager(
            self.engine,
            ServeSettings(
                model=str(MODEL), preset="tiny", adapters=self.list.parent, cache=self.root / "cache", **settings
            ),
            registry=CollectorRegistry(),
            pace=QUICK,
        )
        assert made is not None
        return made

    @asynccontextmanager
    async def serving(self, **settings) -> AsyncIterator[AdapterManager]:
        manager = self.manager(**settings)
        await manager.start()
        try:
            yield manager
        finally:
            await manager.stop()


@pytest.fixture
def world(tmp_path, engine) -> World:
    return World(tmp_path, engine)


async def until(check) -> None:
    async with asyncio.timeout(20):
        while not check():
            await asyncio.sleep(0.005)


def entry(manager: AdapterManager, name: str) -> ObservedAdapter:
    missing = ObservedAdapter(name=name, state=AdapterState.PULLING)
    return {found.name: found for found in manager.observed().adapters}.get(name, missing)


def failed(manager: AdapterManager, name: str) -> bool:
    return entry(manager, name).state is AdapterState.FAILED


# ------------------------------------------------------------------ choosing


async def test_a_request_gets_all_none_or_the_one_it_names(world, engine):
    """Absent: the combination; empty: the base model; a name: that one; strength 0 is the base model too."""
    world.want("1", a=world.adapter("a"), b=(world.adapter("b", 2), 0.5), off=(world.adapter("c", 3), 0.0))
    async with world.serving() as manager:
        assert manager.observed().revision == "1"
        assert manager.names() == ("a", "b", "off")
        with manager.choose(None) as both, manager.choose("a") as a, manager.choose("b") as b:
            assert len({both.slot, a.slot, b.slot}) == 3
            assert both.slot.rank == 8
            assert {slot.name for slot in (both.slot, a.slot, b.slot)} == set(engine.adapters)
        assert manager.choose("").slot is None
        assert manager.choose("off").slot is None
        with pytest.raises(UnknownAdapter, match=r"no adapter 'style'; those there: a, b, off"):
            manager.choose("style")


async def test_one_adapter_alone_is_what_all_of_them_are(world, engine):
    """No slot is made for a combination of one."""
    world.want("1", a=world.adapter("a"))
    async with world.serving() as manager:
        assert manager.choose(None).slot == manager.choose("a").slot
        assert len(engine.adapters) == 1


async def test_no_list_and_an_empty_list_are_the_base_model(world):
    """Without anything wanted the server is ready at once, and unknown names say that there is none."""
    async with world.serving() as manager:
        assert manager.choose(None).slot is None
        with pytest.raises(UnknownAdapter, match="there is none"):
            manager.choose("a")
        world.want("1", a=world.adapter("a"))
        await until(lambda: manager.observed().revision == "1")
        world.want("2")
        await until(lambda: manager.observed().revision == "2" and not world.engine.adapters)


# ------------------------------------------------------------------ rollouts


async def test_a_request_keeps_its_slot_until_it_is_over(world, engine):
    """After a switch the old slot stays loaded, with its files, while one request uses it, and goes after it."""
    world.want("1", a=world.adapter("a"))
    async with world.serving() as manager:
        choice = manager.choose("a")
        world.want("2", b=world.adapter("b", 2))
        await until(lambda: manager.observed().revision == "2")
        old = choice.slot
        assert old.name in engine.adapters
        assert entry(manager, "a").state is AdapterState.UNLOADING
        assert (old.path / "adapter_model.safetensors").exists()
        choice.release()
        choice.release()  # twice is once
        await until(lambda: old.name not in engine.adapters)
        assert [found.name for found in manager.observed().adapters] == ["b"]
        assert manager.choose("b").slot.id > old.id


async def test_another_strength_loads_that_adapter_only(world, engine):
    """Slots whose content stays the same are used again; a changed one gets a new id."""
    a, b = world.adapter("a"), world.adapter("b", 2)
    world.want("1", a=a, b=b)
    async with world.serving() as manager:
        before = {name: manager.choose(name).slot for name in ("a", "b")}
        world.want("2", a=(a, 0.5), b=b)
        await until(lambda: manager.observed().revision == "2")
        assert manager.choose("b").slot == before["b"]
        assert manager.choose("a").slot.id > before["b"].id
        assert entry(manager, "a").strength == 0.5


@pytest.mark.parametrize("what", ["missing", "damaged", "refused"])
async def test_a_failure_leaves_the_old_set_and_says_why_until_it_is_mended(world, engine, what):
    """Nothing changes for requests; the failed adapter has its reason; mending it brings the list into force."""
    a = world.adapter("a")
    world.want("1", a=a)
    async with world.serving() as manager:
        before = manager.choose("a").slot
        broken = world.root / "b"
        if what == "damaged":
            world.adapter("b", 2, use_dora=True)
        elif what == "refused":
            world.adapter("b", 2)
            engine.refuse_adapters = {f"b#{n}" for n in range(100)}
        world.want("2", a=(a, 0.5), b=broken)
        await until(lambda: failed(manager, "b"))
        found = entry(manager, "b")
        assert {"missing": "no folder", "damaged": "DoRA", "refused": "scripted"}[what] in found.message
        assert "tried again" in found.message
        assert manager.observed().revision == "1"
        assert manager.choose("a").slot == before
        assert "serves at strength 1" in entry(manager, "a").message
        with pytest.raises(UnknownAdapter, match="cannot serve yet"):
            manager.choose("b")
        engine.refuse_adapters = set()
        world.adapter("b", 2)
        await until(lambda: manager.observed().revision == "2")
        assert {e.state for e in manager.observed().adapters} == {AdapterState.LOADED}


async def test_ranks_that_add_up_to_too_much_say_what_to_raise(world):
    """Two adapters fit alone and not together: both are named with the sum and the flag."""
    world.want("1", a=world.adapter("a", rank=8), b=world.adapter("b", rank=16))
    async with world.serving(max_lora_rank=16) as manager:
        assert "add up to 24" in entry(manager, "a").message
        assert "raise --max-lora-rank to 24" in entry(manager, "b").message
        assert manager.choose(None).slot is None


@pytest.mark.parametrize("text", ["{", '{"adapters": [{"name": "x"}]}', '{"adapters": [{"name": ""}]}'])
async def test_a_list_that_cannot_be_read_changes_nothing(world, text):
    """The adapters in force stay, and say that there is a list which was not taken."""
    world.want("1", a=world.adapter("a"))
    async with world.serving() as manager:
        world.list.write_text(text)
        await until(lambda: "a newer list is not taken" in entry(manager, "a").message)
        assert manager.observed().revision == "1"
        assert manager.choose("a").slot is not None


def test_a_list_must_be_unambiguous():
    """Two of a name, both sources or none are refused with the adapter's name."""
    two = {"name": "a", "path": "/x"}
    for adapters, reason in (
        ([two, two], "'a' twice"),
        ([{"name": "a", "path": "/x", "image": "y"}], "and not both"),
        ([{"name": "a", "path": "/x", "strength": 2}], "less than or equal to 1"),
    ):
        with pytest.raises(ListInvalid, match=reason):
            parse_list(json.dumps({"adapters": adapters}).encode())


def test_a_configmaps_swap_is_seen_and_a_half_written_file_is_not(tmp_path):
    """The list behind a swapped symbolic link is taken when it has looked the same twice."""
    for number in ("1", "2"):
        (tmp_path / f"v{number}").mkdir()
        (tmp_path / f"v{number}" / "adapters.json").write_text(json.dumps({"revision": number}))
    link = tmp_path / "..data"
    link.symlink_to("v1")
    (tmp_path / "adapters.json").symlink_to("..data/adapters.json")
    file = ListFile(tmp_path)
    assert file.read_now().revision == "1"
    assert file.read_if_settled() is None
    (tmp_path / "new").symlink_to("v2")
    (tmp_path / "new").replace(link)
    assert file.read_if_settled() is None  # seen once
    taken = file.read_if_settled()
    assert taken is not None
    assert taken.revision == "2"
    assert file.read_if_settled() is None


# ------------------------------------------------------------------ registries and restarts


def as_image(folder: Path):
    return image([archive({f"data/{name}": content for name, content in files_of(folder).items()})])


async def test_adapters_come_from_a_registry_in_both_shapes(world, registry, http):
    """An image with /data and an artifact of files, from our registry and a foreign one, with their digests."""
    one, two = as_image(world.adapter("a")), artifact(files_of(world.adapter("b", 2)))
    name = world.root.name
    world.want(
        "1",
        a=await one.push(http, registry.host, f"{name}/a", "v1"),
        b=await two.push(http, registry.host, f"{name}/b", "v1"),
    )
    async with world.serving() as manager:
        assert {e.name: e.digest for e in manager.observed().adapters} == {"a": one.digest, "b": two.digest}
        assert manager.metrics.pulled._value.get() > 0


async def test_after_a_restart_without_the_registry_the_last_good_set_serves(world, http, engine):
    """Pod and registry restart: what was in force comes from the cache and says so, until the registry is back."""
    storage = Storage(world.root / "registry")
    async with TestServer(make_registry(storage)) as server:
        port = server.port
        made = as_image(world.adapter("a"))
        reference = await made.push(http, f"127.0.0.1:{port}", "a", "v1")
        world.want("1", a=(reference, 0.5))
        async with world.serving():
            pass
    engine.adapters.clear()
    async with world.serving() as manager:
        found = entry(manager, "a")
        assert found.state is AdapterState.LOADED
        assert found.digest == made.digest
        assert "the copy pulled before is used" in found.message
        assert manager.observed().revision == "1"
        other = as_image(world.adapter("b", 2))
        world.want("2", a=(reference, 0.5), b=f"127.0.0.1:{port}/b:v1")
        await until(lambda: "cannot be reached" in entry(manager, "b").message)
        assert manager.observed().revision == "1"
        async with TestServer(make_registry(storage), port=port):
            await other.push(http, f"127.0.0.1:{port}", "b", "v1")
            await until(lambda: manager.observed().revision == "2")


async def test_a_restart_with_a_broken_list_serves_what_was_last_good(world, engine):
    """The new list fails from the start: the set of the time before comes into force, under its own revision."""
    world.want("1", a=world.adapter("a"))
    async with world.serving():
        pass
    engine.adapters.clear()
    world.want("2", b=world.root / "gone")
    async with world.serving() as manager:
        assert manager.observed().revision == "1"
        assert manager.choose(None).slot is not None
        assert failed(manager, "b")
        assert entry(manager, "a").state is AdapterState.LOADED
        assert "until the new list" in entry(manager, "a").message


async def test_a_first_start_with_a_broken_list_serves_the_base_model(world):
    """Nothing was ever good: the server is ready, with the base model, and the reason is to be seen."""
    world.want("1", a=world.adapter("a"), b=world.root / "gone")
    async with world.serving() as manager:
        assert manager.observed().revision == ""
        assert manager.choose(None).slot is None
        assert "waits for b" in entry(manager, "a").message
        assert failed(manager, "b")


async def test_files_that_nobody_needs_leave_the_cache(world):
    """The store keeps what is in force; slots of ended processes are removed at the next start."""
    (world.root / "cache" / "slots" / "1-dead").mkdir(parents=True)
    (world.root / "cache" / "slots" / "1-dead" / "lock").touch()
    world.want("1", a=world.adapter("a"))
    async with world.serving() as manager:
        world.want("2", b=world.adapter("b", 2))
        await until(lambda: manager.observed().revision == "2")
        world.want("3", b=(world.root / "b", 0.5))
        await until(lambda: manager.observed().revision == "3")
        assert len([p for p in (world.root / "cache" / "adapters").iterdir() if p.is_dir()]) == 1
        assert [p.name for p in (world.root / "cache" / "slots").iterdir()] != ["1-dead"]
    assert list((world.root / "cache" / "slots").iterdir()) == []


# ------------------------------------------------------------------ deciding


def observation(wanted: AdapterList, now: float = 100.0, **more) -> Observation:
    defaults = {"fetching": frozenset(), "artifacts": {}, "failures": {}, "in_force": None}
    return Observation(wanted=wanted, limits=Limits(), now=now, **(defaults | more))


def sound(name: str, rank: int = 4) -> Artifact:
    return Artifact(name, name, None, facts=AdapterFacts(rank, {}, {}))  # type: ignore[arg-type]


A, B = WantedAdapter(name="a", path="/a"), WantedAdapter(name="b", path="/b")
BOTH = AdapterList(revision="1", adapters=(A, B))
SOUND = {source_of(A): sound("a"), source_of(B): sound("b")}


def test_deciding_begins_what_is_missing_and_gives_up_what_is_not_wanted():
    """Sources are begun once, not while they are fetched, and not before their time after a failure."""
    old = Source(None, "/old")
    step = decide(observation(BOTH, fetching=frozenset({old, source_of(A)})))
    assert (step.begin, step.give_up, step.switch) == ((source_of(B),), (old,), None)
    later = {source_of(A): Failure("x", "x", 1, 130.0), source_of(B): Failure("x", "x", 1, 90.0)}
    step = decide(observation(BOTH, failures=later))
    assert (step.begin, step.wake_at) == ((source_of(B),), 130.0)


def test_deciding_switches_only_to_what_is_whole_and_other():
    """A set comes into force when all of it is there, and once."""
    assert decide(observation(BOTH, artifacts={source_of(A): sound("a")})).switch is None
    switch = decide(observation(BOTH, artifacts=SOUND)).switch
    assert switch is not None
    assert switch.revision == "1"
    assert decide(observation(BOTH, artifacts=SOUND, in_force=LoadedSet(switch))).switch is None


def test_deciding_waits_with_a_set_that_the_engine_refused():
    """The same content is not tried before its time, and is after it; the last good one stands in at the start."""
    switch = decide(observation(BOTH, artifacts=SOUND)).switch
    assert switch is not None
    refused = (switch, Failure("Load", "no", 1, 150.0))
    step = decide(observation(BOTH, artifacts=SOUND, set_failure=refused))
    assert (step.switch, step.wake_at) == (None, 150.0)
    assert decide(observation(BOTH, 151.0, artifacts=SOUND, set_failure=refused)).switch == switch
    last = Planned("0", ((A, sound("a")),), fallback=True)
    assert decide(observation(BOTH, artifacts=SOUND, set_failure=refused, last_good=last)).switch == last


def test_attempts_are_spread_and_bounded():
    """Each wait is between half and all of a time that doubles up to a bound, or what the other side asked for."""
    backoff, rng = Backoff(first=1, most=60), random.Random(3)
    for failures in range(1, 12):
        longest = min(2.0 ** (failures - 1), 60)
        assert longest / 2 <= backoff.delay(failures, rng) <= longest
    assert backoff.delay(1, rng, at_least=42) == 42
