"""A controller's numbers, under the names, labels and buckets of controller-runtime and client-go's workqueue, so
that existing dashboards and alerts work (``controller_runtime_*``, ``workqueue_*``).

One :class:`MetricFamilies` per registry; each controller gets its labelled view. Series exist at 0 from the start.
Ages of unfinished work are computed when they are scraped, not by a timer.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from manager.queue import PriorityQueue
from manager.types import Request

_RECONCILE_BUCKETS = (
    *(0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.6, 0.7, 0.8, 0.9),
    *(1.0, 1.25, 1.5, 1.75, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5, 6, 7, 8, 9, 10, 15, 20, 25, 30, 40, 50, 60),
)
_QUEUE_BUCKETS = tuple(10e-9 * 10**exponent for exponent in range(12))
_MAX_PRIORITIES = 25  # distinct values of a label that anybody may choose


class MetricFamilies:
    """The metric families of one registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, words: str, labels: tuple[str, ...] = ("controller",)) -> Counter:
            return Counter(name, words, labels, registry=registry)

        def gauge(name: str, words: str, labels: tuple[str, ...] = ("controller",)) -> Gauge:
            return Gauge(name, words, labels, registry=registry)

        queue = ("name", "controller")
        self.total = counter(
            "controller_runtime_reconcile_total", "Reconciliations by result.", ("controller", "result")
        )
        self.errors = counter("controller_runtime_reconcile_errors_total", "Reconciliations that failed.")
        self.terminal = counter("controller_runtime_terminal_reconcile_errors_total", "Failures not tried again.")
        self.panics = counter("controller_runtime_reconcile_panics_total", "Reconcilers that raised unexpectedly.")
        self.timeouts = counter("controller_runtime_reconcile_timeouts_total", "Reconciles over their deadline.")
        self.concurrent = gauge("controller_runtime_max_concurrent_reconciles", "Workers.")
        self.active = gauge("controller_runtime_active_workers", "Workers that are busy.")
        self.seconds = Histogram(
            "controller_runtime_reconcile_time_seconds",
            "Length of a reconciliation.",
            ("controller",),
            buckets=_RECONCILE_BUCKETS,
            registry=registry,
        )
        self.depth = gauge("workqueue_depth", "Items that are ready.", (*queue, "priority"))
        self.adds = counter("workqueue_adds_total", "Items that became ready.", queue)
        self.retries = counter("workqueue_retries_total", "Adds with a delay or a rate limit.", queue)
        self.unfinished = gauge(
            "workqueue_unfinished_work_seconds", "Ages of all work in progress, summed.", queue
        )
        self.longest = gauge(
            "workqueue_longest_running_processor_seconds", "Age of the oldest work in progress.", queue
        )
        self.waited = Histogram(
            "workqueue_queue_duration_seconds",
            "Time between ready and taken.",
            queue,
            buckets=_QUEUE_BUCKETS,
            registry=registry,
        )
        self.worked = Histogram(
            "workqueue_work_duration_seconds",
            "Time between taken and done.",
            queue,
            buckets=_QUEUE_BUCKETS,
            registry=registry,
        )


class QueueMetrics:
    """What a queue tells (``manager.queue.QueueObserver``)."""

    def __init__(self, families: MetricFamilies, name: str) -> None:
        self._families = families
        self._labels = (name, name)
        self._priorities: set[int] = set()
        for family in (families.adds, families.retries, families.waited, families.worked):
            family.labels(*self._labels)

    def ready(self, priority: int) -> None:
        """See ``QueueObserver``."""
        self._families.adds.labels(*self._labels).inc()
        self._depth(priority).inc()

    def taken(self, priority: int, waited: float) -> None:
        """See ``QueueObserver``."""
        self._depth(priority).dec()
        self._families.waited.labels(*self._labels).observe(waited)

    def dropped(self, priority: int) -> None:
        """See ``QueueObserver``."""
        self._depth(priority).dec()

    def finished(self, worked: float) -> None:
        """See ``QueueObserver``."""
        self._families.worked.labels(*self._labels).observe(worked)

    def retried(self) -> None:
        """See ``QueueObserver``."""
        self._families.retries.labels(*self._labels).inc()

    def _depth(self, priority: int) -> Gauge:
        if len(self._priorities) < _MAX_PRIORITIES:
            self._priorities.add(priority)
        label = str(priority) if priority in self._priorities else "exceeded_cardinality_limit"
        return self._families.depth.labels(*self._labels, label)


class ControllerMetrics:
    """One controller's view of the families."""

    def __init__(self, families: MetricFamilies, name: str) -> None:
        self._families = families
        self._name = name
        self.queue = QueueMetrics(families, name)
        for result in ("error", "requeue_after", "requeue", "success"):
            families.total.labels(name, result)
        for family in (families.errors, families.terminal, families.panics, families.timeouts, families.seconds):
            family.labels(name)
        self._active = families.active.labels(name)

    def watch(self, queue: PriorityQueue[Request], workers: int) -> None:
        """Report the ages of this queue's work, and the number of workers."""
        self._families.concurrent.labels(self._name).set(workers)
        loop = asyncio.get_running_loop()

        def ages() -> list[float]:
            now = loop.time()
            return [now - started for started in queue.working.values()]

        total: Callable[[], float] = lambda: float(sum(ages()))  # noqa: E731 - reads better than two functions
        self._families.unfinished.labels(self._name, self._name).set_function(total)
        self._families.longest.labels(self._name, self._name).set_function(lambda: max(ages(), default=0.0))

    @contextmanager
    def active(self) -> Iterator[None]:
        """A worker is busy."""
        with self._active.track_inprogress():
            yield

    @contextmanager
    def timed(self) -> Iterator[None]:
        """A reconcile runs."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self._families.seconds.labels(self._name).observe(time.perf_counter() - began)

    def outcome(self, result: str, *, terminal: bool = False, panic: bool = False, timeout: bool = False) -> None:
        """A reconcile ended."""
        self._families.total.labels(self._name, result).inc()
        flags = (
            (self._families.errors, result == "error"),
            (self._families.terminal, terminal),
            (self._families.panics, panic),
            (self._families.timeouts, timeout),
        )
        for family, happened in flags:
            if happened:
                family.labels(self._name).inc()
