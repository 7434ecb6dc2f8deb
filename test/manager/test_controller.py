"""What follows from a reconcile, and how a controller starts and ends (behaviours E), in virtual time."""

from __future__ import annotations

import asyncio
import logging
import random
import re
from collections.abc import Callable
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from manager.cache import CacheNotSynced
from manager.controller import Controller, ControllerDefaults
from manager.controller_metrics import ControllerMetrics, MetricFamilies
from manager.errors import Conflict, ManagerError, NotFound, TerminalError
from manager.handlers import Queue
from manager.queue import LOW_PRIORITY
from manager.ratelimit import ItemFastSlow
from manager.reconcile_log import ReconcileFields, log_fields, reconcile_id
from manager.resources import DEPLOYMENTS
from manager.sources import FuncSource, Source
from manager.types import Request, Result

pytestmark = pytest.mark.looptime

KEY = Request("n", "a")
OTHER = Request("n", "b")
Script = Callable[[int], Result]


class Rig:
    """A controller whose reconciler plays a script, run by run, and notes when it ran and with which priority."""

    def __init__(self, script: Script = lambda _: Result(), *sources: Source, **options: Any) -> None:
        self.script = script
        self.runs: list[float] = []
        self.keys: list[Request] = []
        self.registry = CollectorRegistry()
        metrics = ControllerMetrics(MetricFamilies(self.registry), "c")
        options = {"skip_name_validation": True, **options}
        self.controller = Controller(
            "c",
            self,
            sources,
            metrics=metrics,
            options=ControllerDefaults(**options),
            resource=DEPLOYMENTS,
            rng=random.Random(1),
        )
        self.priorities: list[int] = []
        original = self.controller.queue.get

        async def get() -> tuple[Request, int]:
            taken = await original()
            self.priorities.append(taken[1])
            return taken

        self.controller.queue.get = get  # type: ignore[method-assign]

    async def reconcile(self, request: Request) -> Result:
        self.runs.append(asyncio.get_running_loop().time())
        self.keys.append(request)
        return self.script(len(self.runs))

    async def run(self, seconds: float, *keys: Request, priority: int | None = None) -> None:
        """Run for so long; raises what the controller raises."""
        self.controller.queue.add_all(keys or (KEY,), priority=priority)
        task = asyncio.create_task(self.controller.run())
        await asyncio.wait({task}, timeout=seconds)
        task.cancel()
        await asyncio.wait({task})
        if not task.cancelled():
            task.result()

    @property
    def gaps(self) -> list[float]:
        return [round(b - a, 4) for a, b in zip(self.runs, self.runs[1:], strict=False)]

    def count(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(f"controller_runtime_{name}", {"controller": "c", **labels})

    def results(self) -> dict[str, float]:
        """What was counted, by result."""
        names = ("error", "requeue_after", "requeue", "success")
        counts = {name: self.count("reconcile_total", result=name) or 0 for name in names}
        return {name: count for name, count in counts.items() if count}


def failing(until: int, error: Exception) -> Script:
    """Raises until the given run, then succeeds."""

    def script(run: int) -> Result:
        if run < until:
            raise error
        return Result()

    return script


# ---------------------------------------------------------------------- outcomes


@pytest.mark.acceptance("FW-E07")
async def test_errors_are_tried_again_with_backoff() -> None:
    """5, 10, 20 ms lie between the tries; success ends them and is counted."""
    rig = Rig(failing(4, Conflict(409)))
    await rig.run(10)

    assert rig.gaps == [0.005, 0.01, 0.02]
    assert rig.results() == {"error": 3, "success": 1}
    assert rig.count("reconcile_panics_total") == 0


@pytest.mark.acceptance("FW-E07")
async def test_a_key_that_fails_does_not_keep_others_from_their_turn() -> None:
    """While it waits its back-off the next one is worked on."""
    rig = Rig(failing(2, NotFound(404)))
    await rig.run(10, KEY, OTHER)

    assert rig.keys == [KEY, OTHER, KEY]


@pytest.mark.acceptance("FW-E01")
async def test_an_unexpected_exception_is_an_error_and_a_panic() -> None:
    """By default a bug in a reconciler does not end the controller, and is counted as what it is."""
    rig = Rig(failing(2, KeyError("bug")))
    await rig.run(10)

    assert len(rig.runs) == 2
    assert rig.results() == {"error": 1, "success": 1}
    assert rig.count("reconcile_panics_total") == 1
    assert rig.count("reconcile_errors_total") == 1


@pytest.mark.acceptance("FW-E01")
async def test_where_panics_are_not_recovered_they_end_the_controller() -> None:
    """The exception itself comes out of run(), is counted, and other workers are stopped; an error of ours ends
    nothing."""
    rig = Rig(failing(3, Conflict(409)), recover_panic=False, max_concurrent=3)
    await rig.run(10)
    assert rig.count("reconcile_panics_total") == 0

    rig = Rig(failing(2, KeyError("bug")), recover_panic=False, max_concurrent=3)
    with pytest.raises(KeyError, match="bug"):
        await rig.run(10)
    assert rig.count("reconcile_panics_total") == 1
    assert rig.count("active_workers") == 0


class Careless(Rig):
    """Its first run waits for a task that somebody else cancels."""

    async def reconcile(self, request: Request) -> Result:
        await super().reconcile(request)
        if len(self.runs) == 1:
            other = asyncio.create_task(asyncio.sleep(60))
            asyncio.get_running_loop().call_later(1, other.cancel)
            await other
        return Result()


@pytest.mark.acceptance("FW-E02")
@pytest.mark.parametrize("timeout", [None, 30.0], ids=["no-deadline", "deadline"])
async def test_a_cancellation_that_is_not_ours_is_an_error_and_no_timeout(timeout: float | None) -> None:
    """A reconciler that awaits something cancelled elsewhere does not take its worker with it."""
    rig = Careless(reconcile_timeout=timeout)
    await rig.run(10)

    assert len(rig.runs) == 2
    assert rig.results() == {"error": 1, "success": 1}
    assert rig.count("reconcile_timeouts_total") == 0
    assert rig.count("active_workers") == 0


async def test_a_reconciler_that_returns_nothing_is_told_so(caplog: pytest.LogCaptureFixture) -> None:
    """A forgotten return is an error of that reconcile; the controller goes on."""
    rig = Rig(lambda run: None if run == 1 else Result())  # type: ignore[arg-type, return-value]
    await rig.run(10)

    assert len(rig.runs) == 2
    assert "returned None where a Result is due" in caplog.text


@pytest.mark.acceptance("FW-E08")
async def test_a_terminal_error_is_not_tried_again_until_an_event_comes() -> None:
    """It counts as an error and as a terminal one; an event leads to another look."""
    rig = Rig(failing(99, TerminalError("no hope")))
    asyncio.get_running_loop().call_later(1000, rig.controller.queue.add, KEY)
    await rig.run(3600)

    assert rig.gaps == [1000]
    assert rig.results() == {"error": 2}
    assert rig.count("terminal_reconcile_errors_total") == 2
    assert rig.count("reconcile_panics_total") == 0


@pytest.mark.acceptance("FW-E08")
@pytest.mark.parametrize(
    ("errors", "runs", "panics"),
    [
        ([TerminalError("a"), TerminalError("b")], 1, 0),
        ([TerminalError("a"), Conflict(409)], 2, 0),
        ([Conflict(409), KeyError("bug")], 2, 1),
    ],
    ids=["terminal", "mixed", "bug"],
)
async def test_a_group_of_errors_counts_as_its_members(errors: list[Exception], runs: int, panics: int) -> None:
    """What a reconciler's task group raises is final only if all of it is, and a panic if any of it is."""
    rig = Rig(failing(2, ExceptionGroup("tasks", errors)))
    await rig.run(10)

    assert len(rig.runs) == runs
    assert rig.count("reconcile_panics_total") == panics


@pytest.mark.acceptance("FW-E09")
async def test_only_a_success_resets_the_backoff() -> None:
    """Errors and plain requeues go on doubling, whatever is between them; after a success it is 5 ms again."""

    def script(run: int) -> Result:
        if run in (1, 2, 4, 6):
            raise Conflict(409)
        return Result(requeue=run == 3)

    rig = Rig(script)
    asyncio.get_running_loop().call_later(1000, rig.controller.queue.add, KEY)
    await rig.run(3600)

    assert rig.gaps[:4] == [0.005, 0.01, 0.02, 0.04]
    assert rig.gaps[5:] == [0.005]
    assert rig.results() == {"error": 4, "requeue": 1, "success": 2}


@pytest.mark.acceptance("FW-E10", "FW-E13")
async def test_requeue_after_is_exact_and_resets_the_backoff() -> None:
    """The key comes back after exactly that time, and a later failure starts at 5 ms."""

    def script(run: int) -> Result:
        if run in (1, 3):
            raise Conflict(409)
        return Result(requeue_after=30.0) if run == 2 else Result()

    rig = Rig(script)
    await rig.run(100)

    assert rig.gaps == [0.005, 30.0, 0.005]
    assert rig.results() == {"error": 2, "requeue_after": 1, "success": 1}


@pytest.mark.parametrize("after", [0.0, -3.0])
async def test_a_time_that_has_come_is_a_requeue_at_once(after: float) -> None:
    """Who computes a time that is past is not forgotten."""
    rig = Rig(lambda run: Result(requeue_after=after if run == 1 else None))
    await rig.run(1)

    assert rig.gaps == [0.0]


@pytest.mark.acceptance("FW-E13")
async def test_a_plain_requeue_waits_the_backoff() -> None:
    """The deprecated way: counted by its name, and rate-limited."""
    rig = Rig(lambda run: Result(requeue=run < 3))
    await rig.run(10)

    assert rig.gaps == [0.005, 0.01]
    assert rig.results() == {"requeue": 2, "success": 1}


@pytest.mark.acceptance("FW-E11")
async def test_an_error_beats_what_the_result_asks_for(caplog: pytest.LogCaptureFixture) -> None:
    """An error that is returned beside a requeue_after waits the back-off, and the log says what was ignored."""
    rig = Rig(lambda run: Result(requeue_after=600.0, error=Conflict(409)) if run < 3 else Result())
    await rig.run(100)

    assert rig.gaps == [0.005, 0.01]
    assert rig.results() == {"error": 2, "success": 1}
    assert "result beside an error is ignored" in caplog.text


@pytest.mark.acceptance("FW-E11")
async def test_an_error_beats_what_an_earlier_result_asked_for() -> None:
    """A key that waits for its requeue and gets an event that fails is tried again after its back-off."""

    def script(run: int) -> Result:
        if run == 2:
            raise Conflict(409)
        return Result(requeue_after=600.0)

    rig = Rig(script)
    asyncio.get_running_loop().call_later(50, rig.controller.queue.add, KEY)
    await rig.run(100)

    assert rig.gaps == [50.0, 0.005]


@pytest.mark.acceptance("FW-E12")
@pytest.mark.parametrize("wanted", [None, 7], ids=["kept", "from-the-result"])
@pytest.mark.parametrize("way", ["error", "requeue", "requeue_after"])
async def test_the_priority_is_kept_or_taken_from_the_result(way: str, wanted: int | None) -> None:
    """Requeues of every sort keep the priority that the key had, unless the result names one."""
    first = {
        "error": Result(priority=wanted, error=Conflict(409)),
        "requeue": Result(priority=wanted, requeue=True),
        "requeue_after": Result(priority=wanted, requeue_after=1.0),
    }[way]
    rig = Rig(lambda run: first if run == 1 else Result())
    await rig.run(10, priority=LOW_PRIORITY)

    assert rig.priorities == [LOW_PRIORITY, LOW_PRIORITY if wanted is None else wanted]


@pytest.mark.acceptance("FW-E12")
async def test_an_error_that_is_raised_keeps_the_priority() -> None:
    """Raising is the usual way to fail."""
    rig = Rig(failing(2, Conflict(409)))
    await rig.run(10, priority=LOW_PRIORITY)

    assert rig.priorities == [LOW_PRIORITY, LOW_PRIORITY]


# ---------------------------------------------------------------------- deadline


class Slow(Rig):
    """Its first run takes a minute; ``stubborn`` says what it makes of being cancelled."""

    stubborn: Exception | None = None
    swallows = False

    async def reconcile(self, request: Request) -> Result:
        await super().reconcile(request)
        try:
            await asyncio.sleep(60 if len(self.runs) == 1 else 0)
        except asyncio.CancelledError:
            if self.stubborn is not None:
                raise self.stubborn from None
            if not self.swallows:
                raise
        return Result()


@pytest.mark.acceptance("FW-E02")
async def test_a_reconcile_over_its_deadline_is_cancelled_and_counted() -> None:
    """The framework's own deadline counts a timeout and an error but no panic, and the key is tried again."""
    rig = Slow(reconcile_timeout=2.0)
    await rig.run(100)

    assert rig.gaps == [2.005]
    assert rig.count("reconcile_timeouts_total") == 1
    assert rig.results() == {"error": 1, "success": 1}
    assert rig.count("reconcile_panics_total") == 0


@pytest.mark.acceptance("FW-E02")
async def test_the_deadline_counts_whatever_the_reconciler_makes_of_it() -> None:
    """It may raise an error of its own, or end well nevertheless."""
    rig = Slow(reconcile_timeout=2.0)
    rig.stubborn = NotFound(404)
    await rig.run(100)
    assert (rig.count("reconcile_timeouts_total"), rig.results()) == (1, {"error": 1, "success": 1})

    rig = Slow(reconcile_timeout=2.0)
    rig.swallows = True
    await rig.run(100)
    assert (rig.count("reconcile_timeouts_total"), rig.results()) == (1, {"success": 1})


@pytest.mark.acceptance("FW-E02")
async def test_a_timeout_of_the_reconcilers_own_is_no_timeout_of_ours() -> None:
    """A reconciler may set shorter limits for what it does."""
    rig = Rig(failing(2, TimeoutError("mine")), reconcile_timeout=2.0)
    await rig.run(100)

    assert rig.count("reconcile_timeouts_total") == 0
    assert rig.results() == {"error": 1, "success": 1}


@pytest.mark.acceptance("FW-E02")
async def test_a_controller_that_stops_counts_no_timeout() -> None:
    """The reconcile that it cancels is neither an error nor late."""
    rig = Slow(reconcile_timeout=2.0)
    await rig.run(1)

    assert len(rig.runs) == 1
    assert rig.count("reconcile_timeouts_total") == 0
    assert rig.results() == {}


# ---------------------------------------------------------------------- metrics, logs, workers


@pytest.mark.acceptance("FW-E13")
async def test_the_length_of_reconciles_is_observed() -> None:
    """A run of 2 s falls into its bucket, whether it succeeds or fails."""

    class Timed(Rig):
        async def reconcile(self, request: Request) -> Result:
            await asyncio.sleep(2)
            return await super().reconcile(request)

    rig = Timed(failing(2, Conflict(409)))
    await rig.run(10)

    assert rig.count("reconcile_time_seconds_count") == 2
    assert rig.count("reconcile_time_seconds_sum") == pytest.approx(4)
    assert (
        rig.count("reconcile_time_seconds_bucket", le="1.75"),
        rig.count("reconcile_time_seconds_bucket", le="2.5"),
    ) == (0, 2)


async def test_so_many_workers_work_at_once() -> None:
    """Different keys at the same time, never more than the number of workers, which metrics tell."""

    class Timed(Rig):
        most = 0.0

        async def reconcile(self, request: Request) -> Result:
            self.most = max(self.most, self.count("active_workers") or 0)
            await asyncio.sleep(1)
            return await super().reconcile(request)

    rig = Timed(max_concurrent=3)
    await rig.run(10, *(Request("n", str(number)) for number in range(6)))

    assert rig.gaps == [0, 0, 1, 0, 0]
    assert (rig.most, rig.count("max_concurrent_reconciles"), rig.count("active_workers")) == (3, 3, 0)


async def test_a_controller_needs_a_worker() -> None:
    """A number that would reconcile nothing is refused."""
    with pytest.raises(ManagerError, match="needs a worker"):
        Rig(max_concurrent=0)


async def test_a_controller_uses_the_rate_limiter_that_it_is_given() -> None:
    """The factory makes one for its queue."""
    rig = Rig(failing(5, Conflict(409)), rate_limiter=lambda: ItemFastSlow(1.0, 60.0, 2))
    await rig.run(1000)

    assert rig.gaps == [1.0, 1.0, 60.0, 60.0]


async def test_reconciles_that_never_wait_let_others_run() -> None:
    """A flood of keys whose reconciles are done at once does not keep the event loop to itself."""

    class Busy(Rig):
        async def reconcile(self, request: Request) -> Result:
            self.runs.append(0)
            clock.moment += 0.001
            return Result()

    class Clock:
        moment = 0.0

        def __call__(self) -> float:
            return real() + self.moment

    clock, loop = Clock(), asyncio.get_running_loop()
    real = loop.time
    rig = Busy()
    rig.controller.queue.add_all(Request("n", str(number)) for number in range(1000))
    loop.time = clock  # type: ignore[method-assign]
    try:
        task = asyncio.create_task(rig.controller.run())
        turns = 0
        while len(rig.runs) < 1000:
            turns += 1
            await asyncio.sleep(0)
    finally:
        loop.time = real  # type: ignore[method-assign]
    task.cancel()
    await asyncio.wait({task})

    assert turns > 50


@pytest.mark.acceptance("FW-E14")
async def test_each_reconcile_has_an_id_that_logs_carry(caplog: pytest.LogCaptureFixture) -> None:
    """A UUID, another one for each run, empty elsewhere; the controller's log lines carry it among their keys."""
    ids: list[str] = []
    fields: list[str] = []

    def script(run: int) -> Result:
        ids.append(reconcile_id.get())
        fields.append(log_fields())
        if run == 1:
            raise NotFound(404, "NotFound", "no such thing")
        return Result()

    rig = Rig(script)
    await rig.run(10)

    assert len(set(ids)) == 2
    assert all(
        re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", i) for i in ids
    )
    assert (reconcile_id.get(), log_fields()) == ("", "")
    expected = (
        "controller=c controllerGroup=apps controllerKind=Deployment namespace=n name=a reconcileID=" + ids[0]
    )
    assert fields[0] == expected
    assert expected in caplog.text


@pytest.mark.acceptance("FW-E14")
async def test_what_a_reconciler_logs_can_carry_the_keys_too() -> None:
    """A program's log handler with the filter adds them to records of reconciles, once, and to no others."""
    lines: list[str] = []

    class Lines(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    handler = Lines()
    handler.addFilter(ReconcileFields())
    logger = logging.getLogger("test.reconcile")
    logger.addHandler(handler)

    def script(_: int) -> Result:
        logger.warning("looked at %s", "it")
        logger.warning("again %s", log_fields())
        return Result()

    logger.warning("elsewhere")
    await Rig(script).run(1)
    logger.removeHandler(handler)

    assert lines[0] == "elsewhere"
    assert lines[1].startswith("looked at it controller=c controllerGroup=apps")
    assert [line.count("reconcileID=") for line in lines] == [0, 1, 1]


# ---------------------------------------------------------------------- start and end


class Listing:
    """A source whose handler takes its time for the initial list."""

    def __init__(self, seconds: float = 0.0, error: Exception | None = None, *, blocks: bool = False) -> None:
        self.seconds, self.error, self.blocks = seconds, error, blocks
        self.started: list[float] = []
        self.cancelled = False

    def __str__(self) -> str:
        return "widgets (example.com/v1 Widget)"

    async def start(self, queue: Queue) -> None:
        self.started.append(asyncio.get_running_loop().time())
        if self.blocks:
            await asyncio.Event().wait()
        if self.error is not None:
            raise self.error
        queue.add(KEY, priority=LOW_PRIORITY)

    async def wait_synced(self) -> None:
        try:
            await asyncio.sleep(self.seconds)
        except asyncio.CancelledError:
            self.cancelled = True
            raise


@pytest.mark.acceptance("FW-E05")
async def test_nothing_is_reconciled_before_all_handlers_have_dealt_with_their_lists() -> None:
    """The slowest source holds the workers back; all of them start at once."""
    loop = asyncio.get_running_loop()
    sources = [Listing(10), Listing(50), Listing(0)]
    rig = Rig(lambda _: Result(), *sources)
    start = loop.time()
    await rig.run(100, OTHER)

    assert [source.started for source in sources] == [[start]] * 3
    assert rig.keys == [OTHER, KEY]
    assert rig.runs[0] == pytest.approx(start + 50)


@pytest.mark.acceptance("FW-E03")
@pytest.mark.parametrize("source", [Listing(1e9), Listing(blocks=True)], ids=["never-syncs", "never-starts"])
async def test_a_source_that_does_not_come_up_ends_the_controller(source: Listing) -> None:
    """After two minutes, with an error that names the kind and says what to look at."""
    loop = asyncio.get_running_loop()
    rig, start = Rig(lambda _: Result(), Listing(1), source), loop.time()
    with pytest.raises(CacheNotSynced, match="waited 120 s for widgets") as caught:
        await rig.run(1000)

    assert loop.time() - start == pytest.approx(120)
    assert "is its CRD installed?" in str(caught.value)
    assert rig.runs == []


@pytest.mark.acceptance("FW-E03")
async def test_the_time_for_sources_can_be_set() -> None:
    """One limit covers start and sync of all sources."""
    loop = asyncio.get_running_loop()
    rig, start = Rig(lambda _: Result(), Listing(1e9), cache_sync_timeout=7.0), loop.time()
    with pytest.raises(CacheNotSynced, match="waited 7 s"):
        await rig.run(1000)

    assert loop.time() - start == pytest.approx(7)


@pytest.mark.acceptance("FW-E03")
async def test_what_a_source_raises_ends_the_controller() -> None:
    """The error itself comes out, and sources that are still coming up are given up."""
    slow = Listing(1e9)
    rig = Rig(lambda _: Result(), slow, Listing(error=NotFound(404, "NotFound", "no such kind")))
    with pytest.raises(NotFound, match="no such kind"):
        await rig.run(10)

    assert slow.cancelled


@pytest.mark.acceptance("FW-E04")
async def test_a_stop_while_sources_sync_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    """The sources are given up, nothing is raised but the cancellation, and nothing is logged as wrong."""
    source = Listing(60)
    rig = Rig(lambda _: Result(), source)
    task = asyncio.create_task(rig.controller.run())
    await asyncio.sleep(10)
    task.cancel()
    await asyncio.wait({task})

    assert task.cancelled()
    assert source.cancelled
    assert not caplog.records


@pytest.mark.acceptance("FW-E06")
async def test_a_second_start_is_an_error() -> None:
    """A controller runs once, also when it has ended."""
    rig = Rig()
    await rig.run(1)
    with pytest.raises(ManagerError, match="started before"):
        await rig.controller.run()


async def test_stopping_waits_for_what_runs_and_drops_what_is_queued() -> None:
    """A reconcile that is cancelled gets to clean up; the next key is not begun."""
    ended: list[str] = []

    class Tidy(Rig):
        async def reconcile(self, request: Request) -> Result:
            await super().reconcile(request)
            try:
                await asyncio.sleep(60)
            finally:
                await asyncio.sleep(3)
                ended.append(request.name)
            return Result()

    rig = Tidy()
    await rig.run(10, KEY, OTHER)

    assert ended == ["a"]
    assert len(rig.runs) == 1


@pytest.mark.acceptance("FW-E15")
async def test_a_warm_up_starts_sources_once_and_works_on_nothing() -> None:
    """Warmed up twice and then run, a source is started once; the keys wait for the workers."""
    source = Listing(5)
    rig = Rig(lambda _: Result(), source)
    await asyncio.gather(rig.controller.warmup(), rig.controller.warmup())
    assert (rig.runs, len(rig.controller.queue)) == ([], 1)
    await rig.run(1)

    assert len(source.started) == 1
    assert len(rig.runs) == 1


@pytest.mark.acceptance("FW-E15")
async def test_a_run_that_begins_during_the_warm_up_waits_for_it() -> None:
    """Leadership may come at any moment."""
    loop = asyncio.get_running_loop()
    source, start = Listing(30), loop.time()
    rig = Rig(lambda _: Result(), source)
    warming = asyncio.create_task(rig.controller.warmup())
    await asyncio.sleep(10)
    await rig.run(60)
    await warming

    assert source.started == [start]
    assert rig.runs == [pytest.approx(start + 30)]


@pytest.mark.acceptance("FW-E15")
async def test_a_warm_up_that_fails_says_so() -> None:
    """Its error comes out at once, and the controller cannot be run after it."""
    rig = Rig(lambda _: Result(), Listing(1e9), cache_sync_timeout=5.0)
    with pytest.raises(CacheNotSynced):
        await rig.controller.warmup()
    with pytest.raises(ManagerError, match="without success"):
        await rig.run(10)


@pytest.mark.acceptance("FW-E15")
@pytest.mark.parametrize("warm", [True, False], ids=["after-warm-up", "after-start"])
async def test_a_source_that_comes_late_is_started_at_once(warm: bool) -> None:
    """Added after the warm-up or the start, it need not wait for anything; before, it is only noted."""
    loop = asyncio.get_running_loop()
    early, late = Listing(), Listing(3)
    rig = Rig()
    await rig.controller.watch(early)
    assert early.started == []
    task = asyncio.create_task(rig.controller.warmup() if warm else rig.controller.run())
    await asyncio.sleep(10)
    moment = loop.time()
    await rig.controller.watch(late)
    assert (late.started, loop.time()) == ([moment], pytest.approx(moment + 3))
    task.cancel()
    await asyncio.wait({task})

    assert rig.keys == ([] if warm else [KEY, KEY])


@pytest.mark.acceptance("FW-E15")
async def test_a_late_source_that_does_not_come_up_is_an_error_of_who_added_it() -> None:
    """The controller itself goes on."""
    rig = Rig(cache_sync_timeout=5.0)
    task = asyncio.create_task(rig.run(60))
    await asyncio.sleep(1)
    with pytest.raises(CacheNotSynced, match="widgets"):
        await rig.controller.watch(Listing(1e9))

    await task


async def test_a_function_can_be_a_source() -> None:
    """It gets the queue; it may be a coroutine function."""
    seen: list[str] = []

    async def later(queue: Queue) -> None:
        await asyncio.sleep(0)
        seen.append("later")

    rig = Rig(lambda _: Result(), FuncSource(lambda queue: queue.add(OTHER)), FuncSource(later))
    await rig.run(1)

    assert rig.keys == [KEY, OTHER]
    assert seen == ["later"]


# ---------------------------------------------------------------------- names


async def test_a_name_is_taken_until_its_controller_has_ended() -> None:
    """Two controllers of one name would count into one series; the error says what to do."""
    rig = Rig(skip_name_validation=False)
    with pytest.raises(ManagerError, match="named c in this process already; choose another name"):
        Rig(skip_name_validation=False)
    await rig.run(1)

    assert Rig(skip_name_validation=False).controller.name == "c"


async def test_a_controller_that_is_gone_does_not_keep_its_name() -> None:
    """Even if it never ran; and who skips the check neither takes a name nor minds."""
    Rig(skip_name_validation=False)
    Rig(skip_name_validation=True)

    assert Rig(skip_name_validation=False).controller.name == "c"
