"""Doing a write again that met a newer object: read, change, write, and from the start on a conflict.

Semantics: client-go's ``retry.RetryOnConflict`` with ``DefaultRetry`` and ``DefaultBackoff``. Time is the event
loop's, randomness is the caller's if it matters.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from manager.errors import Conflict

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Backoff:
    """``steps`` tries; before the second a wait of ``first`` seconds, before each later one ``factor`` times as
    long, each stretched by up to ``jitter`` of itself."""

    steps: int
    first: float
    factor: float
    jitter: float

    def delay(self, failures: int, rng: random.Random) -> float:
        """Seconds to wait after this many failures."""
        return self.first * self.factor ** (failures - 1) * (1 + self.jitter * rng.random())


DEFAULT_RETRY = Backoff(steps=5, first=0.01, factor=1.0, jitter=0.1)
"""For conflicts with many writers: the object is likely free at once."""

DEFAULT_BACKOFF = Backoff(steps=4, first=0.01, factor=5.0, jitter=0.1)
"""For conflicts with one other writer that is at work for a while."""


async def retry_on_conflict(
    attempt: Callable[[], Awaitable[T]], *, backoff: Backoff = DEFAULT_RETRY, rng: random.Random | None = None
) -> T:
    """What ``attempt`` returns, the first time that it does not raise ``Conflict``.

    It must read the object anew each time: the same write would meet the same conflict. A cancellation or a
    timeout of the caller ends it with its own error.

    Raises:
        Conflict: the last one, when all tries met one.
        Exception: anything else that ``attempt`` raises, at once.
    """
    source = rng or random.Random()  # noqa: S311 - spreads load, guards nothing
    failures = 0
    while True:
        try:
            return await attempt()
        except Conflict:
            failures += 1
            if failures >= backoff.steps:
                raise
        await asyncio.sleep(backoff.delay(failures, source))
