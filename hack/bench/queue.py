"""What the work queue and the controller around it cost per key.

In microseconds of CPU, least of several rounds, and as a multiple of what the least conceivable queue needs in the
same run: a deque, and a set that keeps it free of doubles. Nobody waits and no reconcile does anything, so that
only the machinery is measured.

Usage: python hack/bench/queue.py [KEYS] [ROUNDS]
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from prometheus_client import CollectorRegistry

from manager.controller import Controller, ControllerDefaults
from manager.controller_metrics import ControllerMetrics, MetricFamilies
from manager.handlers import enqueue_self
from manager.informer import Added
from manager.queue import PriorityQueue
from manager.types import Request, Result


class Reconciler:
    """Does nothing, so many times."""

    def __init__(self, runs: int) -> None:
        self.left = runs
        self.over = asyncio.Event()

    async def reconcile(self, request: Request) -> Result:
        """One of them."""
        self.left -= 1
        if not self.left:
            self.over.set()
        return Result()


async def measure(keys: int) -> dict[str, float]:
    """Seconds of CPU for all keys, by what was done with them."""
    requests = [Request("namespace", f"name-{number}") for number in range(keys)]
    found: dict[str, float] = {}

    def timed(name: str, work: Callable[[Any], None], items: Sequence[Any]) -> None:
        began = time.process_time()
        for item in items:
            work(item)
        found[name] = time.process_time() - began

    def bare() -> None:
        line: deque[Request] = deque()
        wanted: set[Request] = set()
        for request in requests:
            if request not in wanted:
                wanted.add(request)
                line.append(request)
        while line:
            wanted.discard(line.popleft())

    queue: PriorityQueue[Request] = PriorityQueue()
    timed("bare queue, add and take", lambda _: bare(), [None])
    timed("add", queue.add, requests)
    timed("add again", queue.add, requests)
    began = time.process_time()
    for _ in requests:
        await queue.get()
    found["get"] = time.process_time() - began
    timed("done", queue.done, requests)
    timed("add with a delay", lambda request: queue.add(request, after=60.0), requests)
    events = [Added({"metadata": {"name": request.name, "namespace": request.namespace}}) for request in requests]
    handled: PriorityQueue[Request] = PriorityQueue()
    timed("event to queue", lambda event: enqueue_self(event, handled), events)
    found["reconcile of nothing"] = await reconciles(requests, None)
    found["the same with a deadline"] = await reconciles(requests, 30.0)
    return found


async def reconciles(requests: list[Request], timeout: float | None) -> float:
    """The whole way of all keys through a controller with one worker."""
    reconciler = Reconciler(len(requests))
    controller = Controller(
        "bench",
        reconciler,
        metrics=ControllerMetrics(MetricFamilies(CollectorRegistry()), "bench"),
        options=ControllerDefaults(reconcile_timeout=timeout),
    )
    began = time.process_time()
    controller.queue.add_all(requests)
    running = asyncio.create_task(controller.run())
    await reconciler.over.wait()
    spent = time.process_time() - began
    running.cancel()
    await asyncio.wait({running})
    return spent


def main() -> None:
    """Print the table."""
    keys = int(sys.argv[1]) if len(sys.argv) > 1 else 20_000
    rounds = [asyncio.run(measure(keys)) for _ in range(int(sys.argv[2]) if len(sys.argv) > 2 else 5)]
    least = {name: min(found[name] for found in rounds) for name in rounds[0]}
    limit = least["bare queue, add and take"]
    for name, seconds in least.items():
        print(f"{name:28} {seconds / keys * 1e6:7.2f} us {seconds / limit:6.1f} x")


if __name__ == "__main__":
    main()
