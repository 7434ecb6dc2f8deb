"""Lets requests to the engine, as many as it answers at a time and a bounded number that wait.

In: a request's weight (its number of sequences). Out: leave to proceed for as long as a context lasts, or 429 with
a Retry-After that comes from how long answers have taken. Upstream's rule: refused once more requests wait than
fit into a batch. The gate owns the count of requests being answered; draining waits until it is zero.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from inference_server.metrics import Metrics
from inference_server.replies import Refusal

FULL = "The server is at its limit; try again later"
_LONGEST_RETRY = 60  # seconds; a guess beyond that is worth nothing
_WEIGHT = 0.2  # of the newest duration in the mean


class Gate:
    """Counts and refuses. ``slots`` is how many sequences the engine runs at a time; set it once that is known."""

    def __init__(
        self,
        metrics: Metrics,
        *,
        queue: int | None,
        limited: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.slots = 1
        self.active = 0  # requests
        self.sequences = 0
        self.idle = asyncio.Event()
        self.idle.set()
        self._queue = queue
        self._limited = limited
        self._metrics = metrics
        self._clock = clock
        self._mean = 1.0  # seconds of an answer

    def __repr__(self) -> str:
        return f"<Gate active={self.active} sequences={self.sequences} slots={self.slots} queue={self.queue}>"

    @property
    def queue(self) -> int:
        """How many sequences may wait."""
        return self.slots if self._queue is None else self._queue

    @property
    def waiting(self) -> int:
        """Sequences beyond what runs at a time."""
        return max(0, self.sequences - self.slots)

    def retry_after(self) -> int:
        """Seconds until a place should be free."""
        return max(1, min(_LONGEST_RETRY, math.ceil(self._mean * (self.waiting + 1) / self.slots)))

    @contextmanager
    def admit(self, weight: int = 1) -> Iterator[None]:
        """Count one request while it is answered. Raises Refusal 429.

        A request of many sequences is let in when there is a place for one: else it would never be.
        """
        if self._limited and self.sequences >= self.slots + self.queue:
            self._metrics.rejected.inc()
            raise Refusal(429, FULL, retry_after=self.retry_after())
        began = self._clock()
        self.active += 1
        self.sequences += weight
        self.idle.clear()
        try:
            yield
        finally:
            self.active -= 1
            self.sequences -= weight
            self._mean += _WEIGHT * (self._clock() - began - self._mean)
            if self.active == 0:
                self.idle.set()
