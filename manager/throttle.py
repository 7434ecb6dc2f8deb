"""A limit on how many requests a client makes: a token bucket, as client-go's, off unless asked for.

It reserves in order of arrival; whoever gives up a reservation gives its token back. No timers of its own.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RateLimit:
    """``qps`` requests a second on average, ``burst`` at once."""

    qps: float
    burst: int

    def __post_init__(self) -> None:
        if self.qps <= 0 or self.burst < 1:
            raise ValueError(f"a rate limit needs qps > 0 and burst >= 1, not {self.qps} and {self.burst}")


class TokenBucket:
    """The state of one :class:`RateLimit`."""

    def __init__(self, limit: RateLimit) -> None:
        self._limit = limit
        self._tokens = float(limit.burst)
        self._at = float("-inf")

    def __repr__(self) -> str:
        return f"tokens={self._tokens:.1f}"

    def reserve(self, now: float) -> float:
        """Take a token; the seconds to wait until it is there."""
        limit = self._limit
        self._tokens = min(float(limit.burst), self._tokens + max(now - self._at, 0.0) * limit.qps)
        self._at = now
        self._tokens -= 1.0
        return max(-self._tokens / limit.qps, 0.0)

    async def wait(self) -> float:
        """Wait for a turn; the seconds that it took."""
        delay = self.reserve(asyncio.get_running_loop().time())
        if delay:
            try:
                await asyncio.sleep(delay)
            except asyncio.CancelledError:
                self._tokens += 1.0
                raise
        return delay
