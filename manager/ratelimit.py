"""Rate limiters of a work queue: how long a key waits before it is tried again.

A limiter is asked ``when`` at each failure and told to ``forget`` at a success; it owns the failure counts and
never sleeps. Every queue needs a limiter of its own. Semantics and defaults: client-go's default_rate_limiters.go.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable
from typing import Generic, Protocol, TypeVar

from manager.throttle import RateLimit, TokenBucket

T = TypeVar("T", bound=Hashable)
_In = TypeVar("_In", bound=Hashable, contravariant=True)


class RateLimiter(Protocol[_In]):
    """See the module."""

    def when(self, item: _In, /) -> float:
        """Count a failure of this item; the seconds that it waits for it."""
        ...

    def forget(self, item: _In, /) -> None:
        """A success: the next failure is a first one."""
        ...

    def failures(self, item: _In, /) -> int:
        """Failures since the last success."""
        ...


class _Counting(Generic[T]):
    """What limiters that count per item share."""

    def __init__(self) -> None:
        self._failures: dict[T, int] = {}

    def __repr__(self) -> str:
        return f"<{type(self).__name__} items={len(self._failures)}>"

    def _count(self, item: T) -> int:
        """Failures before this one; counts it."""
        failures = self._failures.get(item, 0)
        self._failures[item] = failures + 1
        return failures

    def forget(self, item: T, /) -> None:
        """See ``RateLimiter``."""
        self._failures.pop(item, None)

    def failures(self, item: T, /) -> int:
        """See ``RateLimiter``."""
        return self._failures.get(item, 0)


class ItemExponential(_Counting[T]):
    """``base * 2**failures`` seconds, at most ``cap``. The default of a controller: 5 ms to 1000 s."""

    def __init__(self, base: float = 0.005, cap: float = 1000.0) -> None:
        super().__init__()
        self._base, self._cap = base, cap

    def when(self, item: T, /) -> float:
        """See ``RateLimiter``."""
        # Beyond 2**60 the product no longer matters; the bound keeps the power from overflowing a float.
        return min(self._base * 2.0 ** min(self._count(item), 60), self._cap)


class ItemFastSlow(_Counting[T]):
    """``fast`` seconds for the first ``fast_tries`` failures of an item, ``slow`` seconds for later ones."""

    def __init__(self, fast: float, slow: float, fast_tries: int) -> None:
        super().__init__()
        self._fast, self._slow, self._tries = fast, slow, fast_tries

    def when(self, item: T, /) -> float:
        """See ``RateLimiter``."""
        return self._fast if self._count(item) < self._tries else self._slow


class Bucket(Generic[T]):
    """A token bucket over all items together: ``burst`` at once, then ``qps`` a second.

    A caller reserves the next free token and waits until it is there, so that nobody is starved. Time is the event
    loop's unless a monotonic clock is given.
    """

    def __init__(self, qps: float = 10.0, burst: int = 100, *, time: Callable[[], float] | None = None) -> None:
        self._tokens = TokenBucket(RateLimit(qps, burst))
        self._time = time

    def __repr__(self) -> str:
        return f"<Bucket {self._tokens!r}>"

    def when(self, item: T, /) -> float:
        """See ``RateLimiter``."""
        return self._tokens.reserve(self._time() if self._time is not None else asyncio.get_running_loop().time())

    def forget(self, item: T, /) -> None:
        """Nothing: a bucket knows no items."""

    def failures(self, item: T, /) -> int:
        """Always 0: a bucket knows no items."""
        return 0


class MaxOf(Generic[T]):
    """The longest wait of several limiters; each of them counts. Without arguments client-go's classic default:
    per item 5 ms to 1000 s, and 10 a second with a burst of 100 over all items."""

    def __init__(self, *limiters: RateLimiter[T]) -> None:
        self._limiters: tuple[RateLimiter[T], ...] = limiters or (ItemExponential(), Bucket())

    def __repr__(self) -> str:
        return f"<MaxOf {' '.join(map(repr, self._limiters))}>"

    def when(self, item: T, /) -> float:
        """See ``RateLimiter``."""
        return max([limiter.when(item) for limiter in self._limiters])

    def forget(self, item: T, /) -> None:
        """See ``RateLimiter``."""
        for limiter in self._limiters:
            limiter.forget(item)

    def failures(self, item: T, /) -> int:
        """See ``RateLimiter``: the highest count."""
        return max([limiter.failures(item) for limiter in self._limiters])


class WithMaxWait(Generic[T]):
    """Another limiter, whose waits are cut to ``longest`` seconds."""

    def __init__(self, limiter: RateLimiter[T], longest: float) -> None:
        self._limiter, self._longest = limiter, longest

    def __repr__(self) -> str:
        return f"<WithMaxWait {self._longest:g}s {self._limiter!r}>"

    def when(self, item: T, /) -> float:
        """See ``RateLimiter``."""
        return min(self._limiter.when(item), self._longest)

    def forget(self, item: T, /) -> None:
        """See ``RateLimiter``."""
        self._limiter.forget(item)

    def failures(self, item: T, /) -> int:
        """See ``RateLimiter``."""
        return self._limiter.failures(item)
