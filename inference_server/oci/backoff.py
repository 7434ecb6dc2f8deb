"""Waiting between attempts: longer each time, never in step with others.

In: an attempt's number and a source of chance. Out: seconds. Time is the event loop's, so that a test with a
virtual clock waits for nothing.
"""

from __future__ import annotations

import random
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """``first`` seconds, doubled each time up to ``most``, each shortened by up to half at random.

    ``attempts`` bounds how often the same thing is tried without any progress.
    """

    first: float = 0.5
    most: float = 30.0
    attempts: int = 5

    def delay(self, failures: int, rng: random.Random, *, at_least: float | None = None) -> float:
        """Seconds to wait after this many failures in a row (1 or more). ``at_least`` is the other side's wish."""
        longest = min(self.first * 2.0 ** min(failures - 1, 32), self.most)
        return max(longest * (0.5 + rng.random() / 2), at_least or 0.0)
