"""Whatever happens to a collection and to its requests: an informer ends with the truth, by a possible story.

Histories and faults are generated; everything runs in memory and in virtual time, through the real reflector and
the real informer.
"""

from __future__ import annotations

import asyncio
import os
import random
from typing import TYPE_CHECKING

import looptime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manager.meta import resource_version
from manager.reflector import Limits
from manager.resources import CONFIGMAPS
from manager.testing.history import LIST_FAULTS, WATCH_FAULTS, Collection, Fault, Wire

if TYPE_CHECKING:
    from conftest import Informing

_EXAMPLES = 3000 if os.environ.get("KAITO_SOAK") else 60
_PATIENCE = 3600.0  # virtual seconds in which every back-off, silence and limit has passed

Step = tuple[str, str, float]

NAMES = st.sampled_from(["a", "b", "c"])
PAUSES = st.sampled_from([0.0, 0.0, 0.01, 0.5, 2.0, 45.0, 200.0])
STEPS = st.lists(
    st.tuples(st.sampled_from(["put", "put", "remove", "compact"]), NAMES, PAUSES), min_size=1, max_size=30
)


def faults(kinds: tuple[str, ...]) -> st.SearchStrategy[list[Fault]]:
    return st.lists(st.builds(Fault, st.sampled_from(kinds), st.integers(0, 6)), max_size=12)


async def live(
    steps: list[Step], lists: list[Fault], watches: list[Fault], streams: str, make: type[Informing]
) -> None:
    """One life of an informer beside one history."""
    loop = asyncio.get_running_loop()
    collection = Collection(CONFIGMAPS)
    wire = Wire(collection, lists, watches, streams)
    async with make(wire, CONFIGMAPS, rng=random.Random(1), limits=Limits(internal_errors=5.0)) as run:
        for operation, name, pause in steps:
            match operation:
                case "put":
                    collection.put(name)
                case "remove":
                    collection.remove(name)
                case "compact":
                    collection.compact()
            await asyncio.sleep(pause)
        truth = {f"n/{name}": resource_version(obj) for name, obj in collection.state().items()}
        end = loop.time() + _PATIENCE
        while run.versions() != truth or run.ledger.versions() != truth or not run.informer.has_synced:
            assert loop.time() < end, f"{run.versions()} is not {truth}"
            await asyncio.sleep(5)

        assert run.ledger.problems == []
        fillings = run.reflector.lists + run.reflector.streamed_lists
        assert fillings > 1 or run.ledger.same == 0
        assert {key: obj["metadata"]["uid"] for key, obj in run.ledger.objects.items()} == {
            f"n/{name}": obj["metadata"]["uid"] for name, obj in collection.state().items()
        }
        # One fault costs at most a stream, two lists, their pages and a watch; the rest are ends and silences.
        assert wire.requests <= 8 * (len(steps) + 24) + _PATIENCE / 60


@pytest.mark.parametrize("streams", ["yes", "refused", "ignored"])
def test_the_copy_ends_true_by_a_possible_story(informing: type[Informing], streams: str) -> None:
    """The store is the server's state, and every key's events follow from each other, whatever went wrong."""

    @settings(max_examples=_EXAMPLES, deadline=None)
    @given(steps=STEPS, lists=faults(LIST_FAULTS), watches=faults(WATCH_FAULTS))
    def hold(steps: list[Step], lists: list[Fault], watches: list[Fault]) -> None:
        with asyncio.Runner(loop_factory=lambda: looptime.new_event_loop(start=0.0, noop_cycles=4)) as runner:
            runner.run(live(steps, [*lists], [*watches], streams, informing))

    hold()
