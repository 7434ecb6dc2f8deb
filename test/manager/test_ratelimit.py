"""How long a key waits before it is tried again (behaviours D7 and D8)."""

from __future__ import annotations

import asyncio

import pytest

from manager.queue import PriorityQueue
from manager.ratelimit import Bucket, ItemExponential, ItemFastSlow, MaxOf, WithMaxWait


@pytest.mark.acceptance("FW-D07")
def test_backoff_doubles_per_item_and_is_forgotten() -> None:
    """5 ms, 10 ms, 20 ms; another item starts at 5 ms; a success starts anew."""
    limiter: ItemExponential[str] = ItemExponential()

    assert [limiter.when("a") for _ in range(3)] == [0.005, 0.01, 0.02]
    assert limiter.when("b") == 0.005
    assert (limiter.failures("a"), limiter.failures("b"), limiter.failures("c")) == (3, 1, 0)
    limiter.forget("a")
    assert (limiter.failures("a"), limiter.when("a")) == (0, 0.005)


@pytest.mark.acceptance("FW-D07")
def test_backoff_has_a_cap_and_does_not_overflow() -> None:
    """After thousands of failures the wait is 1000 s, or what else was set as the cap."""
    limiter: ItemExponential[str] = ItemExponential()
    slow: ItemExponential[str] = ItemExponential(base=1.0, cap=1e18)

    assert [limiter.when("a") for _ in range(5000)][17:20] == [655.36, 1000.0, 1000.0]
    assert limiter.when("a") == 1000.0
    assert [slow.when("a") for _ in range(5000)][-1] == 1e18


@pytest.mark.acceptance("FW-D08")
def test_fast_tries_then_slow_ones() -> None:
    """So many short waits, then long ones, until a success."""
    limiter: ItemFastSlow[str] = ItemFastSlow(0.005, 10.0, 3)

    assert [limiter.when("a") for _ in range(5)] == [0.005, 0.005, 0.005, 10.0, 10.0]
    assert (limiter.failures("a"), limiter.when("b")) == (5, 0.005)
    limiter.forget("a")
    assert (limiter.failures("a"), limiter.when("a")) == (0, 0.005)


@pytest.mark.acceptance("FW-D08")
def test_the_longest_of_several_waits() -> None:
    """Each limiter counts each failure; forget reaches all of them."""
    limiter: MaxOf[str] = MaxOf(ItemFastSlow(0.005, 3.0, 3), ItemExponential(0.001, 1000.0))

    assert [limiter.when("a") for _ in range(5)] == [0.005, 0.005, 0.005, 3.0, 3.0]
    assert limiter.failures("a") == 5
    limiter.forget("a")
    assert (limiter.failures("a"), limiter.when("a")) == (0, 0.005)


@pytest.mark.acceptance("FW-D08")
def test_waits_are_cut_to_the_longest() -> None:
    """A maximum over another limiter; counts are that limiter's."""
    limiter: WithMaxWait[str] = WithMaxWait(ItemExponential(), 0.05)

    assert [limiter.when("a") for _ in range(6)] == [0.005, 0.01, 0.02, 0.04, 0.05, 0.05]
    assert limiter.failures("a") == 6
    limiter.forget("a")
    assert limiter.when("a") == 0.005


@pytest.mark.acceptance("FW-D08")
def test_a_bucket_lets_a_burst_through_then_so_many_a_second() -> None:
    """Defaults: 100 at once, then 10 a second over all items; who waits has reserved a place."""
    moment = [0.0]
    bucket: Bucket[str] = Bucket(time=lambda: moment[0])
    assert [bucket.when(f"i{number}") for number in range(100)] == [0.0] * 100
    assert [round(bucket.when("x"), 6) for _ in range(3)] == [0.1, 0.2, 0.3]
    moment[0] = 0.3
    assert round(bucket.when("y"), 6) == 0.1
    moment[0] = 3600.0

    assert [bucket.when("z") for _ in range(100)] == [0.0] * 100
    assert bucket.when("z") > 0
    assert bucket.failures("z") == 0


@pytest.mark.looptime
async def test_the_classic_limiter_paces_a_queue() -> None:
    """Item back-off and bucket together: 120 keys that fail at once are spread over 2 s."""
    queue: PriorityQueue[int] = PriorityQueue(rate_limiter=MaxOf())
    loop = asyncio.get_running_loop()
    start = loop.time()
    queue.add_all(range(120), rate_limited=True)
    at = []
    for _ in range(120):
        await queue.get()
        at.append(loop.time() - start)

    assert at[99] == pytest.approx(0.005)
    assert at[119] == pytest.approx(2.0)
