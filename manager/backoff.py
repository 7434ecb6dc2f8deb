"""How long to wait before trying again. No clock in here moves by itself: callers pass or sleep the time."""

from __future__ import annotations

import random
from collections.abc import Callable


class ExponentialBackoff:
    """Delays that double up to a cap, each stretched by a random factor, and start anew after a quiet time.

    Defaults are the reflector's of client-go: 800 ms, doubling, cap 30 s, jitter 1.0 (a delay ``d`` becomes one in
    ``[d, 2d)``), reset after 2 min without use.

    Args:
        time: a monotonic clock in seconds.
    """

    def __init__(
        self,
        time: Callable[[], float],
        *,
        first: float = 0.8,
        cap: float = 30.0,
        jitter: float = 1.0,
        reset_after: float = 120.0,
        rng: random.Random | None = None,
    ) -> None:
        self._time = time
        self._first, self._cap, self._jitter, self._reset_after = first, cap, jitter, reset_after
        self._rng = rng or random.Random()  # noqa: S311 - spreads load, guards nothing
        self._next = first
        self._used = float("-inf")

    def next(self) -> float:
        """The delay to sleep now, in seconds."""
        now = self._time()
        if now - self._used > self._reset_after:
            self._next = self._first
        delay = self._next
        self._next = min(self._next * 2, self._cap)
        self._used = now
        return delay * (1 + self._rng.random() * self._jitter)
