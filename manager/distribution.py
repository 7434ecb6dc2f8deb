"""A histogram that is only an array of numbers.

What a hot path observes costs a binary search and two additions here; the metric object of prometheus_client takes
a lock and walks the buckets for each value. Collectors turn it into samples when somebody scrapes. One thread
writes it: that of the event loop.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate

from prometheus_client.utils import floatToGoString


class Distribution:
    """How often values fell into which bucket.

    Args:
        bounds: upper bounds, inclusive, rising; what is above the last one counts as ``+Inf``.
    """

    __slots__ = ("_bounds", "_counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = tuple(float(bound) for bound in bounds)
        self._counts = [0] * (len(self._bounds) + 1)
        self.total = 0.0

    def __repr__(self) -> str:
        return f"<Distribution count={self.count} total={self.total:g}>"

    @property
    def count(self) -> int:
        """How many values."""
        return sum(self._counts)

    def observe(self, value: float) -> None:
        """Count one value."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self.total += value

    def buckets(self) -> list[tuple[str, float]]:
        """Label and cumulative count of every bucket, as a ``HistogramMetricFamily`` takes them."""
        labels = [*map(floatToGoString, self._bounds), "+Inf"]
        return [*zip(labels, map(float, accumulate(self._counts)), strict=True)]
