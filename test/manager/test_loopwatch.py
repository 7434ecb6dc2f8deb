"""What the event loop's own watch sees."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest
from prometheus_client import CollectorRegistry

from manager import loopwatch
from manager.loopwatch import BlockedWatch, LoopLag


def block(seconds: float) -> None:
    time.sleep(seconds)


async def test_code_that_blocks_the_loop_is_named_while_it_blocks() -> None:
    """Once per block, with the stack of the culprit."""
    told: list[tuple[float, str]] = []
    with BlockedWatch(threshold=0.05, on_blocked=lambda seconds, stack: told.append((seconds, stack))):
        await asyncio.sleep(0.06)
        assert told == []
        block(0.2)
        await asyncio.sleep(0.06)

    ((seconds, stack),) = told
    assert 0.05 <= seconds < 0.2
    assert "block(0.2)" in stack
    assert "in block\n" in stack


async def test_the_watch_ends_with_its_block() -> None:
    """No thread is left."""
    with BlockedWatch():
        assert any(thread.name == "loop-watch" for thread in threading.enumerate())

    assert not any(thread.name == "loop-watch" for thread in threading.enumerate())


@pytest.mark.looptime
async def test_virtual_time_is_left_alone() -> None:
    """A loop that jumps has no lag to measure, and timers of ours would only slow its jumps."""
    lag = LoopLag(CollectorRegistry())
    lag.start()
    with BlockedWatch() as watch:
        await asyncio.sleep(100)

    assert watch._thread is None
    assert lag.worst() == 0
    lag.stop()


async def test_the_lag_is_the_worst_delay_of_a_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    """As long as the gauge has a window for it."""
    monkeypatch.setattr(loopwatch, "_TICK", 0.01)
    monkeypatch.setattr(loopwatch, "_WINDOW", 0.1)
    registry = CollectorRegistry()
    lag = LoopLag(registry)
    lag.start()
    await asyncio.sleep(0.02)
    block(0.1)
    await asyncio.sleep(0.02)
    seen = registry.get_sample_value("event_loop_lag_seconds")
    await asyncio.sleep(0.3)
    lag.stop()

    assert seen is not None
    assert 0.08 <= seen < 1
    assert lag.worst() < seen
