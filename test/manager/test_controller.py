"""What follows from a reconcile (behaviours E), on the scripted server or with a queue alone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from prometheus_client import CollectorRegistry

from manager.controller import Controller
from manager.controller_metrics import ControllerMetrics, MetricFamilies
from manager.errors import Conflict, TerminalError
from manager.handlers import enqueue, owner
from manager.informer import Added, Deleted, Registration, Updated
from manager.queue import LOW_PRIORITY, PriorityQueue
from manager.resources import DEPLOYMENTS
from manager.types import Obj, Request, Result

pytestmark = pytest.mark.looptime

KEY = Request("n", "a")
Script = Callable[[int], Result]


class Rig:
    """A controller without informers, whose reconciler plays a script and notes when it ran."""

    def __init__(self, script: Script, **options: float) -> None:
        self.script = script
        self.runs: list[float] = []
        self.registry = CollectorRegistry()
        metrics = ControllerMetrics(MetricFamilies(self.registry), "c")
        self.controller = Controller("c", self, lambda _: [], metrics, **options)  # type: ignore[arg-type]

    async def reconcile(self, request: Request) -> Result:
        self.runs.append(asyncio.get_running_loop().time())
        return self.script(len(self.runs))

    async def run(self, seconds: float, *keys: Request) -> None:
        task = asyncio.create_task(self.controller.run())
        await asyncio.sleep(0)
        assert self.controller.queue is not None
        for key in keys or (KEY,):
            self.controller.queue.add(key)
        await asyncio.sleep(seconds)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    @property
    def gaps(self) -> list[float]:
        return [round(b - a, 4) for a, b in zip(self.runs, self.runs[1:], strict=False)]

    def count(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(name, {"controller": "c", **labels})


def failing(until: int, error: Exception) -> Script:
    """Raises until the given run, then succeeds."""

    def script(run: int) -> Result:
        if run < until:
            raise error
        return Result()

    return script


async def test_fw_e07_errors_are_tried_again_with_backoff() -> None:
    """5, 10, 20 ms lie between the tries; success ends them and is counted."""
    rig = Rig(failing(4, Conflict(409)))
    await rig.run(10)

    assert rig.gaps == [0.005, 0.01, 0.02]
    assert rig.count("controller_runtime_reconcile_total", result="error") == 3
    assert rig.count("controller_runtime_reconcile_total", result="success") == 1
    assert rig.count("controller_runtime_reconcile_panics_total") == 0


async def test_fw_e01_an_unexpected_exception_is_an_error_and_a_panic() -> None:
    """A bug in a reconciler does not end the controller, and is counted as what it is."""
    rig = Rig(failing(2, KeyError("bug")))
    await rig.run(10)

    assert len(rig.runs) == 2
    assert rig.count("controller_runtime_reconcile_panics_total") == 1


async def test_a_cancellation_that_is_not_ours_is_an_error_like_any_other() -> None:
    """A reconciler that awaits something cancelled elsewhere does not take its worker with it."""

    class Careless(Rig):
        async def reconcile(self, request: Request) -> Result:
            await super().reconcile(request)
            if len(self.runs) == 1:
                other = asyncio.create_task(asyncio.sleep(60))
                asyncio.get_running_loop().call_later(1, other.cancel)
                await other
            return Result()

    rig = Careless(lambda _: Result())
    await rig.run(10)

    assert len(rig.runs) == 2
    assert rig.count("controller_runtime_reconcile_total", result="error") == 1
    assert rig.count("controller_runtime_active_workers") == 0


async def test_a_reconciler_that_returns_nothing_is_told_so(caplog: pytest.LogCaptureFixture) -> None:
    """A forgotten return is an error of that reconcile; the controller goes on."""
    rig = Rig(lambda run: None if run == 1 else Result())  # type: ignore[arg-type, return-value]
    await rig.run(10)

    assert len(rig.runs) == 2
    assert "requeue_after" in caplog.text


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
    assert rig.count("controller_runtime_reconcile_panics_total") == panics


async def test_fw_e11_an_error_beats_what_an_earlier_result_asked_for() -> None:
    """A key that waits for its requeue and gets an event that fails is tried again after its back-off."""

    def script(run: int) -> Result:
        if run == 2:
            raise Conflict(409)
        return Result(requeue_after=600.0)

    rig = Rig(script)
    task = asyncio.create_task(rig.run(100))
    await asyncio.sleep(50)
    assert rig.controller.queue is not None
    rig.controller.queue.add(KEY)
    await task

    assert rig.gaps == [50.0, 0.005]


async def test_fw_e12_the_priority_is_kept_or_taken_from_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requeues of every sort keep the priority that the key had, unless the result names one."""
    found: list[int] = []

    def script(run: int) -> Result:
        if run == 1:
            raise Conflict(409)
        return Result(requeue_after=1.0, priority=7 if run == 3 else None) if run < 5 else Result()

    rig = Rig(script)
    original = rig.controller._reconcile

    async def spy(queue: PriorityQueue[Request], request: Request, priority: int) -> None:
        found.append(priority)
        await original(queue, request, priority)

    monkeypatch.setattr(rig.controller, "_reconcile", spy)
    task = asyncio.create_task(rig.controller.run())
    await asyncio.sleep(0)
    assert rig.controller.queue is not None
    rig.controller.queue.add(KEY, priority=LOW_PRIORITY)
    await asyncio.sleep(60)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)

    assert found == [LOW_PRIORITY, LOW_PRIORITY, LOW_PRIORITY, 7, 7]


async def test_fw_e08_a_terminal_error_is_not_tried_again() -> None:
    """Nothing follows until an event comes."""
    rig = Rig(failing(99, TerminalError("no hope")))
    await rig.run(3600)

    assert len(rig.runs) == 1
    assert rig.count("controller_runtime_terminal_reconcile_errors_total") == 1


async def test_fw_e10_requeue_after_is_exact_and_resets_the_backoff() -> None:
    """The key comes back after exactly that time, and a later failure starts at 5 ms."""

    def script(run: int) -> Result:
        if run in (1, 3):
            raise Conflict(409)
        return Result(requeue_after=30.0) if run == 2 else Result()

    rig = Rig(script)
    await rig.run(100)

    assert rig.gaps == [0.005, 30.0, 0.005]
    assert rig.count("controller_runtime_reconcile_total", result="requeue_after") == 1


async def test_fw_e02_a_reconcile_over_its_deadline_is_cancelled_and_counted() -> None:
    """The framework's own deadline raises in the reconciler, counts a timeout, and the key is tried again."""

    class Slow(Rig):
        async def reconcile(self, request: Request) -> Result:
            await super().reconcile(request)
            await asyncio.sleep(60 if len(self.runs) == 1 else 0)
            return Result()

    rig = Slow(lambda _: Result(), reconcile_timeout=2.0)
    await rig.run(100)

    assert len(rig.runs) == 2
    assert rig.count("controller_runtime_reconcile_timeouts_total") == 1
    assert rig.count("controller_runtime_reconcile_panics_total") == 0


async def test_fw_e05_nothing_is_reconciled_before_all_handlers_are_synced() -> None:
    """A registration that is not synced holds the workers back."""
    rig = Rig(lambda _: Result())
    registration = Registration(lambda _: None, "x")
    rig.controller._start = lambda _: [registration]
    task = asyncio.create_task(rig.run(50))
    await asyncio.sleep(10)
    assert rig.runs == []
    pump = asyncio.create_task(registration.run())
    registration.send(None)
    await task
    pump.cancel()

    assert len(rig.runs) == 1


async def test_fw_e06_a_second_start_is_an_error() -> None:
    """A controller runs once."""
    rig = Rig(lambda _: Result())
    await rig.run(1)
    with pytest.raises(Exception, match="started before"):
        await rig.controller.run()


def child(owner_kind: str, api_version: str, name: str, *, controller: bool = True, rv: str = "1") -> Obj:
    """An object with one owner."""
    reference = {"apiVersion": api_version, "kind": owner_kind, "name": name, "uid": "u", "controller": controller}
    return {"metadata": {"name": "child", "namespace": "n", "resourceVersion": rv, "ownerReferences": [reference]}}


async def test_fw_e19_owners_of_old_and_new_are_looked_at_once() -> None:
    """On update both owners are enqueued, without doubles; the version in the reference does not matter; owners
    that do not control are ignored."""
    queue: PriorityQueue[Request] = PriorityQueue()
    handle = enqueue(queue, owner(DEPLOYMENTS), [])
    handle(Updated(child("Deployment", "apps/v1beta1", "old"), child("Deployment", "apps/v1", "new", rv="2")))
    handle(Deleted(child("Deployment", "apps/v1", "new", controller=False)))
    handle(Deleted(child("Deployment", "other/v1", "x")))

    assert sorted([(await queue.get())[0].name for _ in range(len(queue))]) == ["new", "old"]


async def test_fw_e21_initial_and_unchanged_objects_get_a_low_priority() -> None:
    """A restart's flood does not delay live changes."""
    queue: PriorityQueue[Request] = PriorityQueue()
    handle = enqueue(queue, lambda obj: [Request("n", obj["metadata"]["name"])], [])
    first, live = child("D", "v1", "x"), child("D", "v1", "x", rv="2")
    handle(Added(first, initial=True))
    assert await queue.get() == (Request("n", "child"), LOW_PRIORITY)
    queue.done(Request("n", "child"))
    handle(Updated(first, first))
    handle(Updated(first, live))

    assert await queue.get() == (Request("n", "child"), 0)
