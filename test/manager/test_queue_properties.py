"""The work queue beside a model of it that is too simple to be wrong: hypothesis chooses what happens."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from manager.queue import PriorityQueue, QueueShutDown

_EXAMPLES = 2000 if os.environ.get("KAITO_SOAK") else 150


@dataclass
class Wanted:
    """An item that somebody wants to be worked on."""

    priority: int
    ready_at: float
    place: tuple[float, int] = (0.0, 0)  # in its priority's line: when it came there, and the how manyeth it was


@dataclass
class Model:
    """What the contract says, by searching through everything at each question."""

    wanted: dict[str, Wanted] = field(default_factory=dict)
    working: set[str] = field(default_factory=set)
    count: int = 0

    def add(self, item: str, now: float, delay: float, priority: int) -> None:
        self.count += 1
        known = self.wanted.get(item)
        if known is None:
            self.wanted[item] = Wanted(priority, now + delay, (now + delay, self.count))
            return
        if known.ready_at <= now:  # in a line already
            if priority > known.priority:
                known.priority, known.place = priority, (now, self.count)
            return
        known.priority = max(known.priority, priority)
        if now + delay < known.ready_at:
            known.ready_at, known.place = now + delay, (now + delay, self.count)

    def ready(self, now: float) -> list[str]:
        return [item for item, wanted in self.wanted.items() if wanted.ready_at <= now]

    def take(self, now: float) -> tuple[str, int] | None:
        free = [item for item in self.ready(now) if item not in self.working]
        if not free:
            return None
        item = min(free, key=lambda item: (-self.wanted[item].priority, self.wanted[item].place))
        self.working.add(item)
        return item, self.wanted.pop(item).priority


class Clock(asyncio.SelectorEventLoop):
    """An event loop whose time moves only when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.moment = 1000.0

    def time(self) -> float:
        return self.moment


_items = st.sampled_from("abcdef")
# Sums of these are exact, so that queue and model cannot differ by the last bit of a float.
_delays = st.sampled_from([0.0, 0.0, 0.25, 0.5, 1.0, 4.0])
_steps = st.one_of(
    st.tuples(st.just("add"), _items, _delays, st.integers(-2, 2)),
    st.tuples(st.just("get")),
    st.tuples(st.just("done"), st.integers(0, 5)),
    st.tuples(st.just("sleep"), st.sampled_from([0.25, 0.5, 2.0])),
    st.tuples(st.just("stall"), st.sampled_from([0.25, 0.5, 2.0])),
)


@pytest.mark.acceptance("FW-D18", "FW-D01")
@settings(max_examples=_EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(_steps, max_size=60))
def test_the_queue_does_what_the_model_says(steps: list[tuple[Any, ...]]) -> None:
    """For any order of adds with delays and priorities, takes, ends of work and passing time, the queue hands out
    what the model does, counts what it counts, and hands out everything in the end."""
    loop = Clock()

    async def play() -> None:
        queue: PriorityQueue[str] = PriorityQueue()
        model = Model()
        for step in [*steps, *[("get",), ("done", 0)] * 12, ("sleep", 8.0), *[("get",), ("done", 0)] * 12]:
            looked = True  # whether the queue had an occasion to see what has become due
            match step:
                case ("add", item, delay, priority):
                    queue.add(item, after=delay, priority=priority)
                    model.add(item, loop.moment, delay, priority)
                case ("get",):
                    expected = model.take(loop.moment)
                    looked = expected is not None
                    if expected is not None:
                        assert await queue.get() == expected
                case ("done", number) if model.working:
                    item = sorted(model.working)[number % len(model.working)]
                    model.working.discard(item)
                    queue.done(item)
                    looked = False
                case ("done", _):
                    looked = False
                case ("stall", seconds):  # something else keeps the event loop: no timer is called
                    loop.moment += seconds
                    looked = False
                case ("sleep", seconds):
                    loop.moment += seconds
                    for _ in range(3):
                        await asyncio.sleep(0)  # a timer is called in the turn after the one that finds it due
            assert not looked or len(queue) == len(model.ready(loop.moment))
            assert sum(queue.depths().values()) == len(queue)
        assert not model.wanted
        getter = asyncio.create_task(queue.get())
        await asyncio.sleep(0)
        assert not getter.done()  # neither has anything left
        queue.shut_down()
        with pytest.raises(QueueShutDown):
            await getter

    try:
        loop.run_until_complete(play())
    finally:
        loop.close()


@pytest.mark.acceptance("FW-D18", "FW-D15")
@settings(max_examples=_EXAMPLES // 3, deadline=None)
@given(
    workers=st.integers(1, 4),
    adds=st.lists(st.tuples(_items, _delays, st.integers(-2, 2), st.booleans()), max_size=40),
    stop_after=st.integers(0, 40),
)
def test_workers_never_share_a_key_and_always_end(
    workers: int, adds: list[tuple[str, float, int, bool]], stop_after: int
) -> None:
    """Several workers, and a shutdown at any point: no key in two hands, nobody left waiting."""
    loop = Clock()

    async def play() -> None:
        queue: PriorityQueue[str] = PriorityQueue()
        busy: set[str] = set()

        async def work() -> None:
            while True:
                try:
                    item, _ = await queue.get()
                except QueueShutDown:
                    return
                assert item not in busy
                busy.add(item)
                await asyncio.sleep(0)
                busy.discard(item)
                queue.done(item)

        tasks = [asyncio.create_task(work()) for _ in range(workers)]
        for number, (item, delay, priority, limited) in enumerate(adds):
            if number == stop_after:
                break
            queue.add(item, after=delay, priority=priority, rate_limited=limited)
            loop.moment += 0.25
            await asyncio.sleep(0)
        queue.shut_down()
        async with asyncio.timeout(60):
            await asyncio.gather(*tasks)

    try:
        loop.run_until_complete(play())
    finally:
        loop.close()
