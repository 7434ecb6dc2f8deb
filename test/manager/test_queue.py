"""The work queue's contract (behaviours D of the acceptance list), in virtual time."""

from __future__ import annotations

import asyncio
import gc
import weakref

import pytest

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


@pytest.mark.acceptance("FW-D01")
async def test_a_key_is_never_worked_on_twice_at_once() -> None:
    """Many producers and many workers: no key is in two hands, and each is worked on after its last add."""
    queue: PriorityQueue[str] = PriorityQueue()
    busy: set[str] = set()
    begun: dict[str, float] = {}
    added: dict[str, float] = {}

    async def worker() -> None:
        while True:
            item, _ = await queue.get()
            assert item not in busy
            busy.add(item)
            begun[item] = now()
            await asyncio.sleep(0.01)
            busy.discard(item)
            queue.done(item)

    async def producer(number: int) -> None:
        for round_ in range(50):
            item = f"key-{(round_ + number) % 7}"
            queue.add(item)
            added[item] = now()
            await asyncio.sleep(0.003)

    workers = [asyncio.create_task(worker()) for _ in range(5)]
    await asyncio.gather(*(producer(number) for number in range(5)))
    await asyncio.sleep(1)
    for task in workers:
        task.cancel()
    await asyncio.gather(*workers, return_exceptions=True)

    assert len(added) == 7
    assert all(begun[item] >= moment for item, moment in added.items())
    assert len(queue) == 0


@pytest.mark.acceptance("FW-D02")
async def test_an_add_while_processing_runs_once_more() -> None:
    """A key that is added while it is worked on comes out again after done, and only then."""
    queue: PriorityQueue[str] = PriorityQueue()
    queue.add("a")
    await queue.get()
    queue.add("a")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1):
            await queue.get()
    queue.done("a")

    assert await queue.get() == ("a", 0)
    queue.done("a")
    assert len(queue) == 0


@pytest.mark.acceptance("FW-D02")
async def test_a_key_that_is_done_can_be_added_anew() -> None:
    """Nothing of an earlier run holds a key back."""
    queue: PriorityQueue[str] = PriorityQueue()
    for _ in range(3):
        queue.add("a")
        assert await drain(queue) == ["a"]


@pytest.mark.acceptance("FW-D03")
async def test_repeated_adds_collapse() -> None:
    """A key that is added many times before it is taken, or while it is in work, comes out once."""
    queue: PriorityQueue[str] = PriorityQueue()
    for _ in range(10):
        queue.add("a")
    await queue.get()
    for _ in range(10):
        queue.add("a")
    queue.done("a")

    assert await drain(queue) == ["a"]


# ---------------------------------------------------------------------- time


@pytest.mark.acceptance("FW-D06")
async def test_a_delayed_item_appears_when_due_and_not_before() -> None:
    """A key with a delay is not there a moment before its time."""
    queue: PriorityQueue[str] = PriorityQueue()
    queue.add("a", after=10)
    await asyncio.sleep(9.999)
    assert len(queue) == 0
    start = now()
    await queue.get()

    assert now() - start == pytest.approx(0.001)


@pytest.mark.acceptance("FW-D06")
@pytest.mark.parametrize("delays", [(10, 5, 30), (5, 10), (30, 5)], ids=str)
async def test_of_several_delays_the_earliest_counts(delays: tuple[int, ...]) -> None:
    """A key that waits is not put off by a longer delay, is brought forward by a shorter one, and comes once."""
    queue: PriorityQueue[str] = PriorityQueue()
    start = now()
    for delay in delays:
        queue.add("a", after=delay)
    await queue.get()
    assert now() - start == pytest.approx(5)
    queue.done("a")
    await asyncio.sleep(60)

    assert len(queue) == 0


@pytest.mark.acceptance("FW-D06")
async def test_two_delayed_items_come_each_at_its_time() -> None:
    """One that was added later can be due earlier."""
    queue: PriorityQueue[str] = PriorityQueue()
    start = now()
    queue.add("late", after=3)
    queue.add("early", after=1)
    seen = []
    for _ in range(2):
        item, _ = await queue.get()
        seen.append((item, round(now() - start, 6)))

    assert seen == [("early", 1.0), ("late", 3.0)]


@pytest.mark.acceptance("FW-D13")
async def test_the_lowest_delay_wins_over_a_rate_limit_and_the_reverse() -> None:
    """With a delay and a rate limit the smaller of both counts."""
    queue: PriorityQueue[str] = PriorityQueue()
    start = now()
    queue.add("limit", after=60, rate_limited=True)
    for _ in range(10):
        queue._limiter.when("delay")
    queue.add("delay", after=1, rate_limited=True)
    seen = {}
    for _ in range(2):
        item, _ = await queue.get()
        seen[item] = round(now() - start, 6)

    assert seen == {"limit": 0.005, "delay": 1.0}


@pytest.mark.acceptance("FW-D13")
async def test_an_add_without_delay_beats_one_with() -> None:
    """A waiting key that is added without a delay is returned to who waits for it at once."""
    queue: PriorityQueue[str] = PriorityQueue()
    getter = asyncio.create_task(queue.get())
    queue.add("a", after=10)
    await asyncio.sleep(1)
    start = now()
    queue.add("a")

    assert await getter == ("a", 0)
    assert now() == start


@pytest.mark.acceptance("FW-D14")
async def test_items_that_are_not_ready_do_not_count() -> None:
    """len() and the depths count what can be taken, from the moment on at which it can."""
    queue: PriorityQueue[str] = PriorityQueue()
    queue.add("a", after=1)
    queue.add("b")
    assert (len(queue), queue.depths(), queue.stats.adds) == (1, {0: 1}, 1)
    await asyncio.sleep(1.1)

    assert (len(queue), queue.depths(), queue.stats.adds) == (2, {0: 2}, 2)


# ---------------------------------------------------------------------- priorities


@pytest.mark.acceptance("FW-D10")
async def test_higher_priorities_first_and_fifo_within_one() -> None:
    """Items come out by priority, and in the order of adding within one priority."""
    queue: PriorityQueue[str] = PriorityQueue()
    for item, priority in (("low", LOW_PRIORITY), ("one", 0), ("two", 0), ("high", 10)):
        queue.add(item, priority=priority)

    assert await drain(queue) == ["high", "one", "two", "low"]


@pytest.mark.acceptance("FW-D10")
async def test_what_became_ready_first_stands_first() -> None:
    """A delayed key is filed at its time, not at that of its add: behind earlier ones and before later ones."""
    queue: PriorityQueue[str] = PriorityQueue()
    queue.add("delayed", after=1)
    queue.add("before")
    await asyncio.sleep(2)
    queue.add("after")

    assert await drain(queue) == ["before", "delayed", "after"]


@pytest.mark.acceptance("FW-D11")
async def test_a_locked_item_is_hidden_then_returned_at_once() -> None:
    """While a key is worked on others overtake it; after done it is there without delay, for who waits too."""
    queue: PriorityQueue[str] = PriorityQueue()
    queue.add("a", priority=5)
    await queue.get()
    queue.add("a", priority=5)
    queue.add("b")
    assert (await queue.get())[0] == "b"
    getter = asyncio.create_task(queue.get())
    await asyncio.sleep(1)
    start = now()
    queue.done("a")

    assert await getter == ("a", 5)
    assert now() == start


@pytest.mark.acceptance("FW-D11")
async def test_a_locked_item_keeps_its_place() -> None:
    """A key that was added during its work is handed out before those that came after that add."""
    queue: PriorityQueue[str] = PriorityQueue()
    queue.add("a")
    await queue.get()
    queue.add("a")
    queue.add("b")
    queue.done("a")

    assert await drain(queue) == ["a", "b"]


@pytest.mark.acceptance("FW-D12")
async def test_priority_only_rises() -> None:
    """A lower priority is ignored; a higher one files the key at the end of that priority's line."""
    queue: PriorityQueue[str] = PriorityQueue()
    queue.add("a", priority=3)
    queue.add("a", priority=1)
    queue.add("b", priority=7)
    queue.add("c", priority=1)
    queue.add("c", priority=7)

    assert [await queue.get() for _ in range(3)] == [("b", 7), ("c", 7), ("a", 3)]


@pytest.mark.acceptance("FW-D12")
async def test_a_waiting_item_keeps_the_highest_priority_and_the_earliest_time() -> None:
    """Either can come from any of the adds."""
    queue: PriorityQueue[str] = PriorityQueue()
    start = now()
    queue.add("a", after=1, priority=1)
    queue.add("a", after=5, priority=9)

    assert await queue.get() == ("a", 9)
    assert now() - start == pytest.approx(1)


@pytest.mark.acceptance("FW-D16")
async def test_a_ready_high_priority_item_overtakes() -> None:
    """An item that becomes ready is filed by its priority, ahead of what waits with a lower one."""
    queue: PriorityQueue[str] = PriorityQueue()
    queue.add("high", after=1, priority=1)
    queue.add("low", priority=LOW_PRIORITY)
    await asyncio.sleep(2)

    assert await drain(queue) == ["high", "low"]


async def test_many_priorities_leave_nothing_behind() -> None:
    """Lines of priorities that are no longer used go away."""
    queue: PriorityQueue[str] = PriorityQueue()
    for priority in range(1000):
        queue.add("a", priority=priority)
        await drain(queue)

    assert len(queue.depths()) <= 26


@pytest.mark.acceptance("FW-D17")
async def test_a_rate_limit_in_a_batch_is_per_item() -> None:
    """Keys that are added together with a rate limit wait the first back-off each."""
    queue: PriorityQueue[str] = PriorityQueue()
    start = now()
    queue.add_all(["a", "b", "c"], rate_limited=True, priority=4)
    taken = [await queue.get() for _ in range(3)]

    assert taken == [("a", 4), ("b", 4), ("c", 4)]
    assert now() - start == pytest.approx(0.005)
    assert [queue.failures(item) for item in "abc"] == [1, 1, 1]


# ---------------------------------------------------------------------- the end


@pytest.mark.acceptance("FW-D04")
async def test_a_plain_shutdown_hands_out_nothing_more() -> None:
    """What is ready at a shutdown is dropped, and nobody waits for what is in work."""
    queue: PriorityQueue[str] = PriorityQueue()
    queue.add("in work")
    queue.add("ready")
    await queue.get()
    queue.shut_down()

    with pytest.raises(QueueShutDown):
        await queue.get()
    await queue.drained()


@pytest.mark.acceptance("FW-D04")
async def test_a_draining_shutdown_waits_for_the_work() -> None:
    """What is ready is still handed out, later adds are not; drained() ends with the last done()."""
    queue: PriorityQueue[str] = PriorityQueue()
    for item in ("a", "b"):
        queue.add(item)
    await queue.get()
    queue.shut_down(drain=True)
    queue.add("late")
    drained = asyncio.create_task(queue.drained())
    assert await queue.get() == ("b", 0)
    with pytest.raises(QueueShutDown):
        await queue.get()
    queue.done("a")
    await asyncio.sleep(1)
    assert not drained.done()
    queue.done("b")

    await drained


@pytest.mark.acceptance("FW-D04")
async def test_items_that_were_added_during_their_work_are_drained_too() -> None:
    """Who waits for more gets such an item once it is done, and the end after it."""
    queue: PriorityQueue[str] = PriorityQueue()
    queue.add("a")
    await queue.get()
    queue.add("a")
    queue.shut_down(drain=True)
    getters = [asyncio.create_task(queue.get()) for _ in range(2)]
    await asyncio.sleep(1)
    assert not any(getter.done() for getter in getters)
    queue.done("a")
    outcomes = await asyncio.gather(*getters, return_exceptions=True)
    queue.done("a")

    assert outcomes[0] == ("a", 0)
    assert isinstance(outcomes[1], QueueShutDown)
    await queue.drained()


@pytest.mark.acceptance("FW-D04")
async def test_a_plain_shutdown_cuts_a_drain_short() -> None:
    """Who waits for the drain is released although work goes on."""
    queue: PriorityQueue[str] = PriorityQueue()
    queue.add("a")
    await queue.get()
    queue.shut_down(drain=True)
    drained = asyncio.create_task(queue.drained())
    await asyncio.sleep(1)
    assert not drained.done()
    queue.shut_down()

    await drained


@pytest.mark.acceptance("FW-D15")
async def test_shutdown_wakes_every_getter() -> None:
    """Waiting and later gets raise; adds after shutdown are dropped, delayed ones never come."""
    queue: PriorityQueue[str] = PriorityQueue()
    getters = [asyncio.create_task(queue.get()) for _ in range(3)]
    await asyncio.sleep(0)
    queue.add("waiting", after=100)
    queue.shut_down()
    outcomes = await asyncio.gather(*getters, return_exceptions=True)
    queue.add("late")
    await asyncio.sleep(200)

    assert [type(outcome) for outcome in outcomes] == [QueueShutDown] * 3
    assert len(queue) == 0
    with pytest.raises(QueueShutDown):
        await queue.get()


@pytest.mark.acceptance("FW-D15")
async def test_a_shutdown_while_items_are_handed_out_leaves_nobody_waiting() -> None:
    """Workers that were woken for an item find the end instead of waiting for ever."""
    queue: PriorityQueue[str] = PriorityQueue()
    getters = [asyncio.create_task(queue.get()) for _ in range(5)]
    await asyncio.sleep(0)
    queue.add_all(["a", "b", "c"])
    queue.shut_down()
    outcomes = await asyncio.gather(*getters, return_exceptions=True)

    assert [type(outcome) for outcome in outcomes] == [QueueShutDown] * 5


async def test_a_cancelled_getter_does_not_strand_an_item() -> None:
    """A getter that was woken and cancelled in the same step passes the item on."""
    queue: PriorityQueue[str] = PriorityQueue()
    first, second = asyncio.create_task(queue.get()), asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    queue.add("a")
    first.cancel()

    assert (await second)[0] == "a"
    await asyncio.gather(first, return_exceptions=True)


async def test_a_getter_that_is_cancelled_while_it_waits_is_forgotten() -> None:
    """The next item goes to one that still waits."""
    queue: PriorityQueue[str] = PriorityQueue()
    first, second = asyncio.create_task(queue.get()), asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.sleep(0)
    queue.add("a")

    assert (await second)[0] == "a"
    await asyncio.gather(first, return_exceptions=True)


# ---------------------------------------------------------------------- memory


class Key:
    """A key that can be watched for its end."""


@pytest.mark.acceptance("FW-D05")
@pytest.mark.parametrize("way", ["ready", "delayed", "brought forward", "raised"])
async def test_items_that_were_taken_are_not_kept(way: str) -> None:
    """Once a key is done nothing of the queue holds it, whatever way it took through it."""
    queue: PriorityQueue[Key] = PriorityQueue()
    key: Key | None = Key()
    seen = weakref.ref(key)
    if way in ("delayed", "brought forward"):
        queue.add(key, after=1000 if way == "brought forward" else 1)
    if way != "delayed":
        queue.add(key)
    if way == "raised":
        queue.add(key, priority=9)
    item: Key | None = (await queue.get())[0]
    queue.done(item)
    key = item = None
    gc.collect()

    assert seen() is None


@pytest.mark.acceptance("FW-D05")
async def test_delays_that_are_overtaken_do_not_pile_up() -> None:
    """A key that is requeued for later and comes earlier, again and again, leaves no growing heap behind."""
    queue: PriorityQueue[str] = PriorityQueue()
    for _ in range(1000):
        queue.add("a", after=3600)
        queue.add("a")
        await queue.get()
        queue.done("a")

    assert len(queue._due) < 100
