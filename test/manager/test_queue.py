"""The work queue's contract (behaviours D of the acceptance list), in virtual time."""

from __future__ import annotations

import asyncio
import random

import pytest

from manager.backoff import ItemBackoff
from manager.queue import LOW_PRIORITY, PriorityQueue, QueueShutDown

pytestmark = pytest.mark.looptime


def now() -> float:
    return asyncio.get_running_loop().time()


async def drain(queue: PriorityQueue[str]) -> list[str]:
    """Take and finish everything that is ready."""
    taken = []
    while len(queue):
        item, _ = await queue.get()
        taken.append(item)
        queue.done(item)
    return taken


async def test_fw_d01_a_key_is_never_worked_on_twice_at_once() -> None:
    """Many adds and many workers: no key is in two hands, and every key is worked on after its last add."""
    queue: PriorityQueue[str] = PriorityQueue()
    busy: set[str] = set()
    runs: dict[str, int] = {}

    async def worker() -> None:
        while True:
            item, _ = await queue.get()
            assert item not in busy
            busy.add(item)
            await asyncio.sleep(0.01)
            runs[item] = runs.get(item, 0) + 1
            busy.discard(item)
            queue.done(item)

    workers = [asyncio.create_task(worker()) for _ in range(5)]
    for round_ in range(50):
        queue.add(f"key-{round_ % 7}")
        await asyncio.sleep(0.003)
    await asyncio.sleep(1)
    for task in workers:
        task.cancel()
    await asyncio.gather(*workers, return_exceptions=True)

    assert set(runs) == {f"key-{i}" for i in range(7)}
    assert len(queue) == 0


async def test_fw_d02_an_add_while_processing_runs_once_more() -> None:
    """A key that is added while it is worked on comes out again after done, and only then."""
    queue: PriorityQueue[str] = PriorityQueue()
    queue.add("a")
    await queue.get()
    queue.add("a")
    queue.add("a")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1):
            await queue.get()
    queue.done("a")

    assert await queue.get() == ("a", 0)
    queue.done("a")
    assert len(queue) == 0


async def test_fw_d03_repeated_adds_collapse() -> None:
    """A key that is added many times before it is taken comes out once."""
    queue: PriorityQueue[str] = PriorityQueue()
    for _ in range(10):
        queue.add("a")

    assert await drain(queue) == ["a"]


async def test_fw_d06_a_delayed_item_appears_when_due_and_not_before() -> None:
    """Of several delays for one key the earliest counts, exactly."""
    queue: PriorityQueue[str] = PriorityQueue()
    start = now()
    queue.add("a", after=10)
    queue.add("a", after=5)
    queue.add("a", after=30)
    await queue.get()

    assert now() - start == pytest.approx(5)


async def test_fw_d07_backoff_doubles_has_a_cap_and_is_forgotten() -> None:
    """5 ms, 10 ms, 20 ms ... 1000 s, without overflow; forget starts anew."""
    backoff: ItemBackoff[str] = ItemBackoff()
    assert [backoff.when("a") for _ in range(3)] == [0.005, 0.01, 0.02]
    for _ in range(2000):
        last = backoff.when("a")
    assert last == 1000
    backoff.forget("a")
    assert backoff.when("a") == 0.005
    assert backoff.failures("b") == 0


async def test_fw_d10_higher_priorities_first_and_fifo_within_one() -> None:
    """Items come out by priority, and in the order of adding within one priority."""
    queue: PriorityQueue[str] = PriorityQueue()
    for item, priority in (("low", LOW_PRIORITY), ("one", 0), ("two", 0), ("high", 10)):
        queue.add(item, priority=priority)

    assert await drain(queue) == ["high", "one", "two", "low"]


async def test_fw_d11_a_locked_item_is_hidden_then_returned_at_once() -> None:
    """While a key is worked on others overtake it; after done it is there without delay."""
    queue: PriorityQueue[str] = PriorityQueue()
    queue.add("a", priority=5)
    await queue.get()
    queue.add("a", priority=5)
    queue.add("b")

    assert (await queue.get())[0] == "b"
    start = now()
    queue.done("a")
    assert await queue.get() == ("a", 5)
    assert now() == start


async def test_fw_d12_priority_only_rises() -> None:
    """A lower priority is ignored; a higher one files the key at the end of that priority's line."""
    queue: PriorityQueue[str] = PriorityQueue()
    queue.add("a", priority=3)
    queue.add("a", priority=1)
    queue.add("b", priority=7)
    queue.add("c", priority=1)
    queue.add("c", priority=7)

    assert [await queue.get() for _ in range(3)] == [("b", 7), ("c", 7), ("a", 3)]


async def test_fw_d14_items_that_are_not_ready_do_not_count() -> None:
    """len() counts what can be taken."""
    queue: PriorityQueue[str] = PriorityQueue()
    queue.add("a", after=1)
    assert len(queue) == 0
    await asyncio.sleep(1.1)
    assert len(queue) == 1


async def test_fw_d15_shutdown_wakes_every_getter() -> None:
    """Waiting and later gets raise; adds after shutdown are dropped."""
    queue: PriorityQueue[str] = PriorityQueue()
    getters = [asyncio.create_task(queue.get()) for _ in range(3)]
    await asyncio.sleep(0)
    queue.add("waiting", after=100)
    queue.shut_down()
    outcomes = await asyncio.gather(*getters, return_exceptions=True)
    queue.add("late")

    assert [type(outcome) for outcome in outcomes] == [QueueShutDown] * 3
    with pytest.raises(QueueShutDown):
        await queue.get()


async def test_fw_d16_a_ready_high_priority_item_overtakes() -> None:
    """An item that becomes ready is filed by its priority, ahead of what waits with a lower one."""
    queue: PriorityQueue[str] = PriorityQueue()
    queue.add("high", after=1, priority=1)
    queue.add("low", priority=LOW_PRIORITY)
    await asyncio.sleep(2)

    assert await drain(queue) == ["high", "low"]


async def test_a_cancelled_getter_does_not_strand_an_item() -> None:
    """A getter that was woken and cancelled in the same step passes the item on."""
    queue: PriorityQueue[str] = PriorityQueue()
    first, second = asyncio.create_task(queue.get()), asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    queue.add("a")
    first.cancel()

    assert (await second)[0] == "a"
    await asyncio.gather(first, return_exceptions=True)


async def test_fw_d18_invariants_hold_under_random_use(seed: int) -> None:
    """Whatever is added and done in whatever order, nothing is lost, doubled or handed out while in work."""
    rng = random.Random(seed)
    queue: PriorityQueue[str] = PriorityQueue()
    working: set[str] = set()
    wanted: set[str] = set()
    for _ in range(2000):
        action = rng.random()
        if action < 0.5:
            item = f"k{rng.randrange(12)}"
            queue.add(item, after=rng.choice([0, 0, 0.5]), priority=rng.randrange(-2, 3))
            wanted.add(item)
        elif action < 0.8 and len(queue) > len(working & wanted):
            try:
                async with asyncio.timeout(0.001):
                    item, _ = await queue.get()
            except TimeoutError:
                continue
            assert item not in working
            working.add(item)
            wanted.discard(item)
        elif working:
            item = rng.choice(sorted(working))
            working.discard(item)
            queue.done(item)
    for item in working:
        queue.done(item)
    await asyncio.sleep(1)

    assert set(await drain(queue)) == wanted
