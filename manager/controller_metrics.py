"""A controller's numbers, under the names, labels and buckets of controller-runtime and client-go's workqueue, so
that existing dashboards and alerts work (``controller_runtime_*``, ``workqueue_*``).

Controllers and their queues count in plain numbers, which costs next to nothing per key; one collector per
registry turns them into samples when somebody scrapes. Depths and the ages of unfinished work are read from the
queues then. Series of a controller exist from its making on, at 0. All of it belongs to the event loop's thread.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from manager.distribution import Distribution
from manager.queue import PriorityQueue
from manager.types import Request

_BUCKETS = (
    *(0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.6, 0.7, 0.8, 0.9),
    *(1.0, 1.25, 1.5, 1.75, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5, 6, 7, 8, 9, 10, 15, 20, 25, 30, 40, 50, 60),
)  # seconds
_MAX_PRIORITIES = 25  # values of a label that anybody may choose; a time series database pays for each for ever
_TOO_MANY = "exceeded_cardinality_limit"


class ControllerMetrics:
    """What one controller counts.

    Args:
        families: of the registry that shows it.
        name: the controller's.
    """

    __slots__ = (
        "active",
        "error",
        "name",
        "panics",
        "priorities",
        "queue",
        "requeue",
        "requeue_after",
        "seconds",
        "success",
        "terminal",
        "timeouts",
        "workers",
    )

    def __init__(self, families: MetricFamilies, name: str) -> None:
        self.name = name
        # By result; every reconcile has one.
        self.error = self.requeue_after = self.requeue = self.success = 0
        self.terminal = self.panics = self.timeouts = 0
        self.active = self.workers = 0
        self.seconds = Distribution(_BUCKETS)
        self.queue: PriorityQueue[Request] | None = None
        self.priorities: dict[int, str] = {}
        families.add(self)

    def __repr__(self) -> str:
        return f"<ControllerMetrics {self.name} reconciles={self.seconds.count} errors={self.error}>"

    def watch(self, queue: PriorityQueue[Request], workers: int) -> None:
        """Report this queue too, and the number of workers."""
        self.queue, self.workers = queue, workers

    def depths(self) -> Iterator[tuple[str, int]]:
        """The depth of the queue by the label of its priorities, of which there are not too many."""
        exceeded: int | None = None
        for priority, depth in (self.queue.depths() if self.queue is not None else {}).items():
            if priority not in self.priorities and len(self.priorities) < _MAX_PRIORITIES:
                self.priorities[priority] = str(priority)
            label = self.priorities.get(priority)
            if label is None:
                exceeded = (exceeded or 0) + depth
            else:
                yield label, depth
        if exceeded is not None:
            yield _TOO_MANY, exceeded


class MetricFamilies(Collector):
    """All controllers of one registry, as metrics."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._controllers: dict[str, ControllerMetrics] = {}
        registry.register(self)

    def add(self, controller: ControllerMetrics) -> None:
        """Report one more controller."""
        self._controllers[controller.name] = controller

    def describe(self) -> Iterable[Metric]:
        """The names, so that a registry refuses a second collector of them."""
        return self._families([])

    def collect(self) -> Iterable[Metric]:
        """What is true now."""
        return self._families([*self._controllers.values()])

    def _families(self, controllers: list[ControllerMetrics]) -> Iterator[Metric]:
        yield from _reconciles(controllers)
        yield from _queues(controllers)


def _reconciles(controllers: list[ControllerMetrics]) -> Iterator[Metric]:
    prefix, label = "controller_runtime_", ("controller",)
    total = CounterMetricFamily(
        f"{prefix}reconcile", "Reconciliations by result.", labels=("controller", "result")
    )
    errors = CounterMetricFamily(f"{prefix}reconcile_errors", "Reconciliations that failed.", labels=label)
    terminal = CounterMetricFamily(
        f"{prefix}terminal_reconcile_errors", "Failures that are not tried again.", labels=label
    )
    panics = CounterMetricFamily(
        f"{prefix}reconcile_panics", "Reconcilers that raised unexpectedly.", labels=label
    )
    timeouts = CounterMetricFamily(f"{prefix}reconcile_timeouts", "Reconciles over their deadline.", labels=label)
    workers = GaugeMetricFamily(f"{prefix}max_concurrent_reconciles", "Workers.", labels=label)
    active = GaugeMetricFamily(f"{prefix}active_workers", "Workers that are busy.", labels=label)
    seconds = HistogramMetricFamily(f"{prefix}reconcile_time_seconds", "Length of a reconciliation.", labels=label)
    for one in controllers:
        for result in ("error", "requeue_after", "requeue", "success"):
            total.add_metric((one.name, result), getattr(one, result))
        errors.add_metric((one.name,), one.error)
        terminal.add_metric((one.name,), one.terminal)
        panics.add_metric((one.name,), one.panics)
        timeouts.add_metric((one.name,), one.timeouts)
        workers.add_metric((one.name,), one.workers)
        active.add_metric((one.name,), one.active)
        seconds.add_metric((one.name,), one.seconds.buckets(), one.seconds.total)
    yield from (total, errors, terminal, panics, timeouts, workers, active, seconds)


def _queues(controllers: list[ControllerMetrics]) -> Iterator[Metric]:
    labels = ("name", "controller")
    depth = GaugeMetricFamily("workqueue_depth", "Items that are ready.", labels=(*labels, "priority"))
    adds = CounterMetricFamily("workqueue_adds", "Items that became ready.", labels=labels)
    retries = CounterMetricFamily("workqueue_retries", "Adds with a delay or a rate limit.", labels=labels)
    unfinished = GaugeMetricFamily(
        "workqueue_unfinished_work_seconds", "Ages of all work in progress, summed.", labels=labels
    )
    longest = GaugeMetricFamily(
        "workqueue_longest_running_processor_seconds", "Age of the oldest work in progress.", labels=labels
    )
    waited = HistogramMetricFamily(
        "workqueue_queue_duration_seconds", "Time between ready and taken.", labels=labels
    )
    worked = HistogramMetricFamily(
        "workqueue_work_duration_seconds", "Time between taken and done.", labels=labels
    )
    for one in controllers:
        if one.queue is None:
            continue
        both, stats, ages = (one.name, one.name), one.queue.stats, one.queue.ages()
        for priority, ready in one.depths():
            depth.add_metric((*both, priority), ready)
        adds.add_metric(both, stats.adds)
        retries.add_metric(both, stats.retries)
        unfinished.add_metric(both, sum(ages))
        longest.add_metric(both, max(ages, default=0.0))
        waited.add_metric(both, stats.waited.buckets(), stats.waited.total)
        worked.add_metric(both, stats.worked.buckets(), stats.worked.total)
    yield from (depth, adds, retries, unfinished, longest, waited, worked)
