"""A controller's numbers as a scraper sees them: names, labels, buckets, and values through a life (D9, E13)."""

from __future__ import annotations

import asyncio

import pytest
from prometheus_client import CollectorRegistry, Counter, generate_latest

from manager.controller_metrics import ControllerMetrics, MetricFamilies
from manager.queue import PriorityQueue
from manager.types import Request

pytestmark = pytest.mark.looptime

A, B = Request("n", "a"), Request("n", "b")


class Rig:
    """A queue whose numbers are scraped."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.metrics = ControllerMetrics(MetricFamilies(self.registry), "c")
        self.queue: PriorityQueue[Request] = PriorityQueue()
        self.metrics.watch(self.queue, 2)

    def value(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(f"workqueue_{name}", {"name": "c", "controller": "c", **labels})

    def depths(self) -> dict[str, float]:
        return {
            sample.labels["priority"]: sample.value
            for family in self.registry.collect()
            for sample in family.samples
            if sample.name == "workqueue_depth"
        }


@pytest.mark.acceptance("FW-D09")
async def test_values_through_the_life_of_a_key() -> None:
    """Added, taken after 3 s, done after 4 s more: depth, counts, both durations and the ages say so."""
    rig = Rig()
    rig.queue.add(A)
    assert (rig.value("adds_total"), rig.value("depth", priority="0")) == (1, 1)
    await asyncio.sleep(3)
    await rig.queue.get()
    assert rig.value("depth", priority="0") == 0
    assert rig.value("queue_duration_seconds_count") == 1
    assert rig.value("queue_duration_seconds_sum") == pytest.approx(3)
    await asyncio.sleep(4)
    assert rig.value("unfinished_work_seconds") == pytest.approx(4)
    assert rig.value("longest_running_processor_seconds") == pytest.approx(4)
    rig.queue.done(A)

    assert rig.value("work_duration_seconds_sum") == pytest.approx(4)
    assert rig.value("work_duration_seconds_bucket", le="1.0") == 0
    assert rig.value("work_duration_seconds_bucket", le="10.0") == 1
    assert (rig.value("unfinished_work_seconds"), rig.value("longest_running_processor_seconds")) == (0, 0)


@pytest.mark.acceptance("FW-D09")
async def test_adds_that_collapse_count_once_and_adds_during_work_when_they_are_made() -> None:
    """A key that is ready already is not ready once more."""
    rig = Rig()
    rig.queue.add(A)
    rig.queue.add(A)
    assert rig.value("adds_total") == 1
    await rig.queue.get()
    rig.queue.add(A)

    assert (rig.value("adds_total"), rig.value("depth", priority="0")) == (2, 1)


@pytest.mark.acceptance("FW-D09")
async def test_unfinished_work_is_summed_and_the_longest_told() -> None:
    """Two keys in work for 5 and 2 seconds."""
    rig = Rig()
    rig.queue.add(A)
    await rig.queue.get()
    await asyncio.sleep(3)
    rig.queue.add(B)
    await rig.queue.get()
    await asyncio.sleep(2)

    assert rig.value("unfinished_work_seconds") == pytest.approx(7)
    assert rig.value("longest_running_processor_seconds") == pytest.approx(5)


@pytest.mark.acceptance("FW-D09")
async def test_retries_are_adds_with_a_delay_or_a_rate_limit() -> None:
    """They count when they are asked for, and as adds only when the key becomes ready."""
    rig = Rig()
    rig.queue.add(A, after=5)
    rig.queue.add(B, rate_limited=True)
    assert (rig.value("retries_total"), rig.value("adds_total")) == (2, 0)
    await asyncio.sleep(6)

    assert (rig.value("retries_total"), rig.value("adds_total")) == (2, 2)


@pytest.mark.acceptance("FW-D09")
async def test_after_a_shutdown_values_stay_and_do_not_grow() -> None:
    """Late adds are not counted, and no timer runs on."""
    rig = Rig()
    rig.queue.add(A)
    rig.queue.add(B, after=5)
    await rig.queue.get()
    rig.queue.shut_down()
    rig.queue.add(B)
    rig.queue.done(A)
    await asyncio.sleep(60)

    assert (rig.value("adds_total"), rig.value("unfinished_work_seconds")) == (1, 0)
    assert rig.value("work_duration_seconds_count") == 1


@pytest.mark.acceptance("FW-D14")
async def test_depth_counts_ready_items_by_priority() -> None:
    """A delayed item appears when it is due; a raised one changes its label; an empty priority stays, at 0."""
    rig = Rig()
    rig.queue.add(A, priority=-100)
    rig.queue.add(B, after=1, priority=7)
    assert rig.depths() == {"-100": 1}
    await asyncio.sleep(2)
    assert rig.depths() == {"-100": 1, "7": 1}
    rig.queue.add(A, priority=7)
    assert rig.depths() == {"-100": 0, "7": 2}
    await rig.queue.get()

    assert rig.depths() == {"-100": 0, "7": 1}


@pytest.mark.acceptance("FW-D09")
async def test_no_more_than_25_priorities_have_a_label_of_their_own() -> None:
    """What comes after them is counted together, so that a reconciler cannot fill a time series database."""
    rig = Rig()
    for priority in range(40):
        rig.queue.add(Request("n", str(priority)), priority=priority)
    depths = rig.depths()
    assert len(depths) == 26
    assert depths["exceeded_cardinality_limit"] == 15
    for _ in range(40):
        request, _ = await rig.queue.get()
        rig.queue.done(request)
    rig.queue.add(A, priority=1000)

    assert len(rig.depths()) <= 26
    assert rig.depths()["exceeded_cardinality_limit"] == 1


@pytest.mark.acceptance("FW-E13")
async def test_every_series_exists_from_the_start_under_the_usual_name() -> None:
    """Before the first event all series of a controller are there, at 0."""
    rig = Rig()
    found = {
        (sample.name, *(value for key, value in sample.labels.items() if key == "result")): sample.value
        for family in rig.registry.collect()
        for sample in family.samples
        if not sample.name.endswith(("_bucket", "_sum"))
    }

    assert found == {
        ("controller_runtime_reconcile_total", "error"): 0,
        ("controller_runtime_reconcile_total", "requeue_after"): 0,
        ("controller_runtime_reconcile_total", "requeue"): 0,
        ("controller_runtime_reconcile_total", "success"): 0,
        ("controller_runtime_reconcile_errors_total",): 0,
        ("controller_runtime_terminal_reconcile_errors_total",): 0,
        ("controller_runtime_reconcile_panics_total",): 0,
        ("controller_runtime_reconcile_timeouts_total",): 0,
        ("controller_runtime_max_concurrent_reconciles",): 2,
        ("controller_runtime_active_workers",): 0,
        ("controller_runtime_reconcile_time_seconds_count",): 0,
        ("workqueue_adds_total",): 0,
        ("workqueue_retries_total",): 0,
        ("workqueue_unfinished_work_seconds",): 0,
        ("workqueue_longest_running_processor_seconds",): 0,
        ("workqueue_queue_duration_seconds_count",): 0,
        ("workqueue_work_duration_seconds_count",): 0,
    }


@pytest.mark.acceptance("FW-E13", "FW-D09")
async def test_buckets_are_those_of_existing_dashboards() -> None:
    """Reconcile times from 5 ms to 60 s; queue durations from 10 ns by tens."""
    rig = Rig()
    bounds: dict[str, list[float]] = {}
    for family in rig.registry.collect():
        for sample in family.samples:
            if sample.name.endswith("_bucket"):
                bounds.setdefault(sample.name, []).append(float(sample.labels["le"]))

    reconcile = bounds["controller_runtime_reconcile_time_seconds_bucket"]
    assert (len(reconcile), reconcile[0], reconcile[-2], reconcile[-1]) == (41, 0.005, 60, float("inf"))
    assert reconcile[3:8] == [0.05, 0.1, 0.15, 0.2, 0.25]
    for name in ("workqueue_queue_duration_seconds_bucket", "workqueue_work_duration_seconds_bucket"):
        assert bounds[name][:-1] == [pytest.approx(10.0**power) for power in range(-8, 4)]
    assert b'workqueue_adds_total{controller="c",name="c"} 0.0' in generate_latest(rig.registry)


async def test_a_registry_refuses_a_second_metric_of_these_names() -> None:
    """The collector says what it will show before it shows it."""
    rig = Rig()
    with pytest.raises(ValueError, match="Duplicated"):
        Counter("workqueue_adds_total", "", registry=rig.registry)
