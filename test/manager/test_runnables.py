"""Groups of runnables: when they start, when they are ready, how they end."""

from __future__ import annotations

import asyncio

import pytest

from manager.errors import ManagerError
from manager.runnables import Entry, RunnableGroup, only

pytestmark = [pytest.mark.acceptance("FW-F12"), pytest.mark.looptime]


class Seen:
    def __init__(self) -> None:
        self.failures: list[BaseException] = []
        self.started: list[str] = []
        self.group = RunnableGroup("test", self.failures.append)

    def entry(self, name: str, ready_after: float | None = None) -> Entry:
        async def run() -> None:
            self.started.append(name)
            await asyncio.Event().wait()

        async def ready() -> None:
            await asyncio.sleep(ready_after or 0)

        return Entry(name, run, None if ready_after is None else ready)


async def test_nothing_runs_before_the_start_and_all_at_once_after_it() -> None:
    """One that takes its time to be ready does not hold up the others' start."""
    seen = Seen()
    for name in "abc":
        seen.group.add(seen.entry(name, ready_after=1.0))
    await asyncio.sleep(1)
    assert seen.started == []
    begin = asyncio.get_running_loop().time()
    await seen.group.start()

    assert seen.started == ["a", "b", "c"]
    assert asyncio.get_running_loop().time() - begin == pytest.approx(1.0)
    await seen.group.stop()


async def test_additions_while_others_become_ready_start_at_once() -> None:
    """They neither wait for the group nor keep it waiting."""
    seen = Seen()
    seen.group.add(seen.entry("slow", ready_after=10.0))
    starting = asyncio.create_task(seen.group.start())
    await asyncio.sleep(1)
    seen.group.add(seen.entry("late", ready_after=100.0))
    await asyncio.sleep(1)
    assert seen.started == ["slow", "late"]
    await starting

    assert asyncio.get_running_loop().time() == pytest.approx(10)
    await seen.group.stop()


async def test_a_stop_cancels_all_and_waits_for_them() -> None:
    """What is added then is refused, and so is another start."""
    seen = Seen()
    ended: list[float] = []

    async def tidy() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(3)
            ended.append(asyncio.get_running_loop().time())

    seen.group.add(Entry("tidy", tidy))
    await seen.group.start()
    await asyncio.sleep(1)
    stopping = asyncio.create_task(seen.group.stop())
    await asyncio.sleep(1)
    with pytest.raises(ManagerError, match="late cannot be added"):
        seen.group.add(seen.entry("late"))
    await stopping

    assert ended == [4.0]
    assert not seen.group.busy
    assert seen.failures == []
    with pytest.raises(ManagerError, match="cannot start"):
        await seen.group.start()


async def test_a_group_that_was_stopped_before_its_start_never_starts() -> None:
    """Leader's work of a standby that ends."""
    seen = Seen()
    seen.group.add(seen.entry("work"))
    await seen.group.stop()
    with pytest.raises(ManagerError, match="cannot start"):
        await seen.group.start()

    assert seen.started == []


async def test_a_stop_while_others_become_ready_ends_the_start() -> None:
    """Whoever waits for readiness is told by being cancelled; nothing of the group is left."""
    seen = Seen()
    seen.group.add(seen.entry("slow", ready_after=1000.0))
    starting = asyncio.create_task(seen.group.start())
    await asyncio.sleep(1)
    starting.cancel()
    await asyncio.gather(starting, return_exceptions=True)
    await seen.group.stop()

    assert repr(seen.group) == "<RunnableGroup test stopped waiting=0 running=0>"


@pytest.mark.parametrize("late", [False, True])
async def test_not_ready_is_an_error(late: bool) -> None:
    """Of the start for those it waits for, of the group for those that came later."""
    seen = Seen()

    async def no() -> bool:
        return False

    entry = Entry("work", seen.entry("work").run, no)
    if late:
        await seen.group.start()
        seen.group.add(entry)
        await asyncio.sleep(1)
        assert [str(failure) for failure in seen.failures] == ["work did not become ready"]
    else:
        seen.group.add(entry)
        with pytest.raises(ManagerError, match="work did not become ready"):
            await seen.group.start()
    await seen.group.stop()


async def test_a_runnable_that_returns_has_done_its_work() -> None:
    """That is no failure, and its group goes on."""
    seen = Seen()

    async def once() -> None:
        seen.started.append("once")

    seen.group.add(Entry("once", once))
    seen.group.add(seen.entry("other"))
    await seen.group.start()
    await asyncio.sleep(1)

    assert (seen.failures, seen.group.running) == ([], ["other"])
    await seen.group.stop()


async def test_a_failure_is_told_once_and_the_others_go_on() -> None:
    """What follows from it is for the manager to decide."""
    seen = Seen()

    async def fail() -> None:
        raise ExceptionGroup("tasks", [KeyError("boom")])

    seen.group.add(Entry("fail", fail))
    seen.group.add(seen.entry("other"))
    await seen.group.start()
    await asyncio.sleep(1)

    assert [repr(failure) for failure in seen.failures] == ["KeyError('boom')"]
    assert seen.group.running == ["other"]
    await seen.group.stop()


def test_a_group_of_several_errors_stays_a_group() -> None:
    """A group of one is that one."""
    two = ExceptionGroup("two", [KeyError("a"), KeyError("b")])

    assert only(ExceptionGroup("one", [two])) is two
