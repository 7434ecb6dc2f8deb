"""The life of a manager: order of start and stop, failures, additions."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest

from manager.config import RestConfig
from manager.errors import ConnectionFailed, ManagerError
from manager.manager import Manager, RunFailed
from manager.resources import CONFIGMAPS
from manager.runnables import Group
from manager.testing.scripted import Script, listing

NOWHERE = RestConfig(server="http://127.0.0.1:1")


async def forever() -> None:
    await asyncio.Event().wait()


@asynccontextmanager
async def running(manager: Manager) -> AsyncIterator[asyncio.Task[None]]:
    """The manager runs during the block and is stopped after it; the test awaits the task for its outcome."""
    stop = asyncio.Event()
    task = asyncio.create_task(manager.run(stop))
    try:
        async with asyncio.timeout(10):
            while not (manager.elected.is_set() or task.done()):
                await asyncio.sleep(0.01)
        yield task
    finally:
        stop.set()
        await asyncio.wait({task})


class Diary:
    """Runnables that write down when they begin and when they end."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def runnable(self, name: str, *, tidy: float = 0.0) -> Callable[[], Coroutine[Any, Any, None]]:
        async def run() -> None:
            self.lines.append(f"+{name}")
            try:
                await forever()
            finally:
                await asyncio.sleep(tidy)
                self.lines.append(f"-{name}")

        return run

    def ready(self, name: str, after: float) -> Callable[[], Coroutine[Any, Any, None]]:
        async def wait() -> None:
            await asyncio.sleep(after)
            self.lines.append(f"ready {name}")

        return wait


# ------------------------------------------------------------------ order


@pytest.mark.acceptance("FW-F01", "FW-F13")
@pytest.mark.looptime
async def test_groups_start_in_their_order_each_when_the_one_before_is_ready() -> None:
    """Servers, webhooks, caches, others, warm-up, leader's work; and the stop goes others first, servers last."""
    manager, diary = Manager(NOWHERE, metrics_bind="0"), Diary()
    for group in reversed(Group):
        wait = None if group is Group.WARMUP else diary.ready(group, 1.0)
        manager.add(diary.runnable(group, tidy=1.0), name=group, group=group, ready=wait)
    async with running(manager) as task:
        pass
    await task

    groups = ["HTTPServers", "Webhooks", "Caches", "Others", "Warmup", "LeaderElection"]
    started = [line for group in groups for line in (f"+{group}", f"ready {group}") if line != "ready Warmup"]
    assert diary.lines[: len(started)] == started
    ended = diary.lines[len(started) :]
    assert [line for line in ended if line != "-Warmup"] == [
        *("-Others", "-LeaderElection", "-Caches", "-Webhooks", "-HTTPServers")
    ]
    assert ended.index("-Warmup") <= 1, "warm-up stops beside the others"


@pytest.mark.acceptance("FW-F01")
async def test_caches_are_filled_before_runnables_start_those_of_other_clusters_too(script: Script) -> None:
    """What runs finds the whole lists of both clusters in the stores."""
    script.lists = [listing("a", "b"), listing("a", "b")]
    manager = Manager(RestConfig(server=script.url), metrics_bind="0")
    other = manager.add_cluster("other", RestConfig(server=script.url))
    stores = [cache.informer(CONFIGMAPS).store for cache in (manager.cache, other.cache)]
    found: list[tuple[str, int, int]] = []

    def look(who: str) -> Callable[[], Coroutine[Any, Any, None]]:
        async def run() -> None:
            found.append((who, len(stores[0]), len(stores[1])))

        return run

    manager.add(look("follower"), name="follower", needs_leader=False)
    manager.add(look("warmup"), name="leader", warmup=look("warmup"))
    async with running(manager) as task:
        pass
    await task

    assert found == [("follower", 2, 2), ("warmup", 2, 2), ("warmup", 2, 2)]
    with pytest.raises(ConnectionFailed, match="closed"):
        await other.live.get(CONFIGMAPS, "x", "n")


async def test_a_cache_that_cannot_be_filled_ends_the_manager(
    script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error names the kind, and what to look at."""
    manager = Manager(RestConfig(server=script.url), metrics_bind="0")
    manager.cache.informer(CONFIGMAPS)
    original = manager.cache.wait_for_sync
    monkeypatch.setattr(manager.cache, "wait_for_sync", lambda: original(0.2))
    with pytest.raises(ManagerError, match="could not list configmaps within"):
        await manager.run(asyncio.Event())


# ------------------------------------------------------------------ failures


@pytest.mark.acceptance("FW-F02")
@pytest.mark.looptime
@pytest.mark.parametrize("group", list(Group))
async def test_the_first_failure_stops_everything_and_is_raised_when_all_have_ended(group: Group) -> None:
    """The others get to clean up before the error comes out, in whatever group it happens."""
    manager, diary = Manager(NOWHERE, metrics_bind="0"), Diary()

    async def fail() -> None:
        await asyncio.sleep(5)
        raise KeyError("boom")

    for other in Group:
        manager.add(diary.runnable(other, tidy=1.0), name=other, group=other)
    manager.add(fail, name="fail", group=group)
    with pytest.raises(KeyError, match="boom"):
        await manager.run(asyncio.Event())

    assert sorted(diary.lines[6:]) == sorted(f"-{other}" for other in Group)


@pytest.mark.acceptance("FW-F02")
@pytest.mark.looptime
async def test_a_failure_at_the_start_keeps_what_comes_later_from_starting() -> None:
    """Others fail before they are ready: no leader's work begins."""
    manager, diary = Manager(NOWHERE, metrics_bind="0"), Diary()

    async def fail() -> None:
        raise KeyError("boom")

    manager.add(fail, name="fail", needs_leader=False, ready=forever)
    manager.add(diary.runnable("work"), name="work")
    with pytest.raises(KeyError, match="boom"):
        await manager.run(asyncio.Event())

    assert diary.lines == []
    assert not manager.elected.is_set()


@pytest.mark.acceptance("FW-F12")
@pytest.mark.looptime
@pytest.mark.parametrize("how", ["raises", "says no"])
async def test_what_does_not_become_ready_ends_the_manager(how: str) -> None:
    """A ready check that fails is an error, and what comes after it does not start."""
    manager, diary = Manager(NOWHERE, metrics_bind="0"), Diary()

    async def never() -> bool:
        if how == "raises":
            raise ManagerError("webhook did not become ready: no certificate")
        return False

    manager.add(diary.runnable("webhook"), name="webhook", group=Group.WEBHOOKS, ready=never)
    manager.add(diary.runnable("work"), name="work")
    with pytest.raises(ManagerError, match="webhook did not become ready"):
        await manager.run(asyncio.Event())

    assert diary.lines == ["+webhook", "-webhook"]


@pytest.mark.acceptance("FW-F03")
@pytest.mark.looptime
async def test_the_errors_of_run_and_stop_are_both_reported() -> None:
    """One error that names both, in their order, and that both `except ManagerError` and `except*` catch."""
    manager = Manager(NOWHERE, metrics_bind="0")

    async def fail() -> None:
        await asyncio.sleep(1)
        raise KeyError("boom")

    async def untidy() -> None:
        try:
            await forever()
        finally:
            raise OSError("disk full")

    manager.add(fail, name="fail")
    manager.add(untidy, name="untidy")
    with pytest.raises(ManagerError) as caught:
        await manager.run(asyncio.Event())

    assert isinstance(caught.value, RunFailed)
    assert [repr(error) for error in caught.value.exceptions] == ["KeyError('boom')", "OSError('disk full')"]
    assert str(caught.value) == "'boom'; then disk full"
    assert isinstance(caught.value.subgroup(OSError), RunFailed)


@pytest.mark.acceptance("FW-F03")
@pytest.mark.looptime
async def test_a_run_error_and_a_stop_that_takes_too_long_are_both_reported() -> None:
    """The second names what still runs."""
    manager, diary = Manager(NOWHERE, metrics_bind="0", graceful_timeout=2), Diary()

    async def fail() -> None:
        raise KeyError("boom")

    manager.add(diary.runnable("slow", tidy=60), name="slow", needs_leader=False)
    manager.add(fail, name="fail")
    with pytest.raises(RunFailed, match=r"'boom'; then did not stop within 2 s; still running: .*slow"):
        await manager.run(asyncio.Event())


@pytest.mark.acceptance("FW-F03")
@pytest.mark.looptime
async def test_being_cancelled_is_no_error_at_the_stop_and_one_before() -> None:
    """What ends because it was told to is silent; what somebody else cancelled would be missing without a word."""
    manager = Manager(NOWHERE, metrics_bind="0")
    work: list[asyncio.Task[Any] | None] = []

    async def run() -> None:
        work.append(asyncio.current_task())
        await forever()

    manager.add(run, name="work")
    async with running(manager) as task:
        pass
    await task

    manager = Manager(NOWHERE, metrics_bind="0")
    manager.add(run, name="work")
    async with running(manager) as task:
        assert work[1]
        work[1].cancel()
        with pytest.raises(ManagerError, match="work was cancelled from outside"):
            await task


# ------------------------------------------------------------------ the time it takes


@pytest.mark.acceptance("FW-F04")
@pytest.mark.looptime
@pytest.mark.parametrize(("timeout", "error"), [(3.0, True), (0.0, False)], ids=["three-seconds", "no-wait"])
async def test_stopping_takes_no_longer_than_the_graceful_timeout(timeout: float, error: bool) -> None:
    """What has not ended by then is an error that names it; zero does not wait at all, and is none."""
    loop = asyncio.get_running_loop()
    let_go = asyncio.Event()

    async def stubborn() -> None:
        try:
            await forever()
        finally:
            await let_go.wait()

    manager, diary = Manager(NOWHERE, metrics_bind="0", graceful_timeout=timeout), Diary()
    manager.add(stubborn, name="stubborn")
    manager.add(diary.runnable("cache"), name="obedient", group=Group.CACHES)
    stop = asyncio.Event()
    loop.call_later(10, stop.set)
    if error:
        with pytest.raises(ManagerError, match=r"did not stop within 3 s; still running: .*stubborn"):
            await manager.run(stop)
    else:
        await manager.run(stop)

    assert loop.time() == pytest.approx(10 + timeout)
    assert diary.lines == ["+cache", "-cache"], "what comes later in the order is told to end all the same"
    let_go.set()
    await asyncio.sleep(1)


@pytest.mark.acceptance("FW-F04")
@pytest.mark.looptime
async def test_a_negative_timeout_waits_for_ever() -> None:
    """A day, if it takes that."""
    manager, diary = Manager(NOWHERE, metrics_bind="0", graceful_timeout=-1), Diary()
    manager.add(diary.runnable("slow", tidy=86_400), name="slow")
    async with running(manager) as task:
        begin = asyncio.get_running_loop().time()
    await task

    assert asyncio.get_running_loop().time() - begin >= 86_400
    assert diary.lines == ["+slow", "-slow"]


# ------------------------------------------------------------------ additions


@pytest.mark.acceptance("FW-F05", "FW-F12")
@pytest.mark.looptime
async def test_additions_run_at_once_until_the_manager_stops() -> None:
    """Added while running: started, in every group. Added while stopping: refused. A second run: refused."""
    manager = Manager(NOWHERE, metrics_bind="0")
    refused: list[str] = []
    diary = Diary()

    async def late() -> None:
        try:
            await forever()
        finally:
            with pytest.raises(ManagerError, match="stops"):
                manager.add(forever, name="too late")
            refused.append("too late")

    async with running(manager) as task:
        manager.add(late, name="late", warmup=diary.runnable("warmup"))
        for group in Group:
            manager.add(diary.runnable(group), name=group, group=group)
        await asyncio.sleep(0)
        await asyncio.sleep(0)

        assert sorted(diary.lines) == sorted(["+warmup", *(f"+{group}" for group in Group)])
        with pytest.raises(ManagerError, match="named late"):
            manager.add(forever, name="late")
    await task

    assert refused == ["too late"]
    with pytest.raises(ManagerError, match="before"):
        await manager.run(asyncio.Event())
    with pytest.raises(ManagerError, match="stops"):
        manager.add(forever, name="after the end")


@pytest.mark.acceptance("FW-F05")
@pytest.mark.looptime
async def test_a_late_addition_that_does_not_become_ready_ends_the_manager() -> None:
    """As one that was there from the start."""
    manager = Manager(NOWHERE, metrics_bind="0")

    async def no() -> bool:
        return False

    async with running(manager) as task:
        manager.add(forever, name="late", ready=no)
        with pytest.raises(ManagerError, match="late did not become ready"):
            await task


@pytest.mark.acceptance("FW-F05")
async def test_a_manager_that_runs_cannot_be_started_again() -> None:
    """Not while it runs, either."""
    manager = Manager(NOWHERE, metrics_bind="0")
    async with running(manager) as task:
        with pytest.raises(ManagerError, match="before"):
            await manager.run(asyncio.Event())
        assert not task.done()
    await task


# ------------------------------------------------------------------ what is left


@pytest.mark.acceptance("FW-F10")
@pytest.mark.parametrize("end", ["stop", "cancel", "failure", "failure at the start"])
async def test_nothing_is_left_running(script: Script, end: str) -> None:
    """After the end no task and no open client remains, however it came."""
    before = asyncio.all_tasks()
    script.lists = [listing("a")]
    manager = Manager(RestConfig(server=script.url), health_bind="127.0.0.1:0", debug_bind="127.0.0.1:0")
    manager.cache.informer(CONFIGMAPS).add_handler(lambda _: None)
    manager.events("test")
    broken = asyncio.Event()

    async def work() -> None:
        await broken.wait()
        raise KeyError("boom")

    if end == "failure at the start":
        broken.set()
    manager.add(work, name="work", warmup=forever)
    async with running(manager) as task:
        if end == "cancel":
            task.cancel()
        if end == "failure":
            broken.set()
            await asyncio.wait({task})
    (outcome,) = await asyncio.gather(task, return_exceptions=True)

    wanted = {"stop": type(None), "cancel": asyncio.CancelledError}.get(end, KeyError)
    assert isinstance(outcome, wanted)
    with pytest.raises(ConnectionFailed, match="closed"):
        await manager.live.get(CONFIGMAPS, "x", "n")
    ours = [
        task
        for task in asyncio.all_tasks() - before
        if not task.get_coro().__qualname__.startswith(("Request", "Script"))
    ]  # type: ignore[union-attr]
    assert ours == []


@pytest.mark.acceptance("FW-F10")
@pytest.mark.looptime
async def test_a_task_that_outlives_its_runnable_is_told_by_name() -> None:
    """Where misuse is looked for; tasks of others are nobody's business here."""
    keep: list[asyncio.Task[None]] = []
    manager = Manager(NOWHERE, metrics_bind="0")

    async def work() -> None:
        async def inner() -> None:
            keep.append(asyncio.create_task(forever(), name="forgotten"))

        await asyncio.create_task(inner())
        await forever()

    manager.add(work, name="work")
    foreign = asyncio.create_task(forever(), name="foreign")
    async with running(manager) as task:
        pass
    with pytest.raises(ManagerError, match=r"tasks were left running: forgotten$"):
        await task

    for each in (foreign, *keep):
        each.cancel()
    await asyncio.gather(foreign, *keep, return_exceptions=True)


@pytest.mark.looptime
async def test_a_second_cancellation_ends_the_wait() -> None:
    """Who is cancelled while it waits for others to end waits no longer."""
    manager, diary = Manager(NOWHERE, metrics_bind="0", graceful_timeout=-1), Diary()
    manager.add(diary.runnable("slow", tidy=3600), name="slow")
    task = asyncio.create_task(manager.run(asyncio.Event()))
    await asyncio.sleep(1)
    task.cancel()
    await asyncio.sleep(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert asyncio.get_running_loop().time() < 3
    await asyncio.sleep(3600)


# ------------------------------------------------------------------ the process


@pytest.mark.looptime
async def test_the_garbage_collector_is_set_up_while_the_manager_runs() -> None:
    """Fewer collections from the start, what the caches hold set aside; as before afterwards; only if wished."""
    before = (gc.get_threshold(), gc.get_freeze_count())
    seen: list[tuple[tuple[int, int, int], bool]] = []

    async def look() -> None:
        seen.append((gc.get_threshold(), gc.get_freeze_count() > before[1]))

    for tune in (True, False):
        manager = Manager(NOWHERE, metrics_bind="0", tune_gc=tune)
        manager.add(look, name="look")
        async with running(manager) as task:
            pass
        await task

    assert seen == [((50_000, 20, 100), True), (before[0], False)]
    assert gc.get_threshold() == before[0]
