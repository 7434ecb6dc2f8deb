"""The work queue: which key to reconcile next, and never the same key twice at once.

Contract, as of controller-runtime's priority queue:

- *Fair*: items of one priority come out in the order in which they became ready, higher priorities first.
- *Stingy*: an item that is added many times before it is taken comes out once, at the highest priority and at
  the earliest time that any of the adds asked for. A raised priority files it at the end of the higher one's line.
- *Exclusive*: an item that is being worked on is hidden until ``done``; adds meanwhile lead to one more run, for
  which it keeps its place in the line.
- *Shutdown* wakes every waiting ``get`` at once and hands out nothing more, unless it is asked to drain.

An item is in at most one of two places, a line of ready ones or the heap of those that wait for their time, and
apart from that perhaps in work. Nothing keeps an item that was taken: the heap holds numbers, which lead to
nothing once their item has left. The queue owns its state; everything but the waiting is synchronous. Time is the
event loop's.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Iterable
from typing import Generic, TypeVar

from manager.distribution import Distribution
from manager.ratelimit import ItemExponential, RateLimiter

T = TypeVar("T", bound=Hashable)

LOW_PRIORITY = -100
"""Of initial-list and resync events, so that a restart does not delay live changes."""

_BUCKETS = tuple(10e-9 * 10**exponent for exponent in range(12))  # seconds, client-go's
_KEEP_LINES = 25  # empty lines of priorities that are not removed: making them anew costs more than they weigh
_STALE = 64  # entries of the heap that may have lost their item before it is rebuilt


class QueueShutDown(Exception):
    """``get`` after ``shut_down``."""


class QueueStats:
    """What a queue counts, for metrics. Times are seconds."""

    __slots__ = ("adds", "retries", "waited", "worked")

    def __init__(self) -> None:
        self.adds = 0  # items that became ready
        self.retries = 0  # adds with a delay or a rate limit
        self.waited = Distribution(_BUCKETS)  # between ready and taken
        self.worked = Distribution(_BUCKETS)  # between taken and done


class PriorityQueue(Generic[T]):
    """See the module.

    Args:
        rate_limiter: of this queue alone; default: per item 5 ms to 1000 s, doubling.
    """

    def __init__(self, *, rate_limiter: RateLimiter[T] | None = None) -> None:
        self.stats = QueueStats()
        self._limiter: RateLimiter[T] = rate_limiter if rate_limiter is not None else ItemExponential()
        self._lines: dict[int, OrderedDict[T, float]] = {}  # priority → items in their order → ready since when
        self._ranks: list[int] = []  # the priorities of the lines, highest first
        self._ready: dict[T, int] = {}  # whose line an item is in
        self._waiting: dict[T, tuple[float, int, int]] = {}  # item → due, ticket, priority
        self._due: list[tuple[float, int]] = []  # heap of (due, ticket)
        self._tickets: dict[int, T] = {}
        self._next_ticket = 0
        self._working: dict[T, float] = {}
        self._getters: deque[asyncio.Future[None]] = deque()
        self._drainers: list[asyncio.Future[None]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._open = True
        self._draining = False
        self._time: Callable[[], float] = self._bind_time

    def __len__(self) -> int:
        """Items that are ready, those being worked on again included."""
        return len(self._ready)

    def __repr__(self) -> str:
        state = "" if self._open else (" draining" if self._draining else " shut down")
        counts = f"ready={len(self._ready)} waiting={len(self._waiting)} working={len(self._working)}"
        return f"<PriorityQueue {counts}{state}>"

    def ages(self) -> list[float]:
        """Seconds since each item that is in work was taken."""
        if not self._working:
            return []
        now = self._time()
        return [now - taken for taken in self._working.values()]

    def depths(self) -> dict[int, int]:
        """How many items are ready, by priority; recently used priorities appear with 0."""
        return {rank: len(line) for rank, line in self._lines.items()}

    # ------------------------------------------------------------------ adding

    def add(self, item: T, *, after: float = 0.0, rate_limited: bool = False, priority: int | None = None) -> None:
        """Ask for an item to be worked on.

        Args:
            item: its key.
            after: seconds until it is ready.
            rate_limited: wait as long as the rate limiter says; with ``after`` too, the smaller of both.
            priority: default 0; an item keeps the highest that was asked for.
        """
        if not self._open:
            return
        delay = after if after > 0 else 0.0
        if rate_limited:
            limit = self._limiter.when(item)
            delay = min(delay, limit) if delay else limit
            self.stats.retries += 1
        elif delay:
            self.stats.retries += 1
        now = self._time()
        if self._due and self._due[0][0] <= now:
            self._ripen(now)  # what was due before stands before this item
        rank = priority or 0
        current = self._ready.get(item)
        if current is not None:
            if rank > current:
                self._line(rank)[item] = self._lines[current].pop(item)
                self._ready[item] = rank
            return
        if self._waiting and item in self._waiting:
            due, ticket, had = self._waiting[item]
            rank = max(rank, had)
            if due <= now + delay:
                self._waiting[item] = (due, ticket, rank)
                return
            del self._waiting[item], self._tickets[ticket]
        if delay:
            self._wait(item, now + delay, rank)
        else:
            self._make_ready(item, rank, now)

    def add_all(
        self, items: Iterable[T], *, after: float = 0.0, rate_limited: bool = False, priority: int | None = None
    ) -> None:
        """:meth:`add` for each item; each has its own rate limit."""
        for item in items:
            self.add(item, after=after, rate_limited=rate_limited, priority=priority)

    def forget(self, item: T) -> None:
        """The item succeeded: reset its rate limit."""
        self._limiter.forget(item)

    def failures(self, item: T) -> int:
        """How often in a row the item was added rate-limited."""
        return self._limiter.failures(item)

    # ------------------------------------------------------------------ taking

    async def get(self) -> tuple[T, int]:
        """The next item and its priority; waits for one.

        Raises:
            QueueShutDown: the queue was shut down, or has been drained.
        """
        while True:
            if not self._open and not (self._draining and self._ready):
                raise QueueShutDown
            taken = self._take()
            if taken is not None:
                return taken
            getter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._getters.append(getter)
            try:
                await getter
            except asyncio.CancelledError:
                if not getter.cancelled():
                    self._wake()  # the item that this getter was woken for must not be stranded
                elif getter in self._getters:
                    self._getters.remove(getter)
                raise

    def done(self, item: T) -> None:
        """The work on an item has ended; adds made meanwhile become visible."""
        started = self._working.pop(item, None)
        if started is None:
            return
        self.stats.worked.observe(self._time() - started)
        if self._getters and item in self._ready:
            self._wake()
        if self._draining:
            self._tell_drained()

    def _take(self) -> tuple[T, int] | None:
        now = self._time()
        if self._due and self._due[0][0] <= now:
            self._ripen(now)
        working = self._working
        for rank in self._ranks:
            line = self._lines[rank]
            for item in line:
                if item not in working:  # at most as many are as there are workers
                    self.stats.waited.observe(now - line.pop(item))
                    del self._ready[item]
                    working[item] = now
                    if self._draining and not self._ready:
                        self._wake_all()  # there will be nothing more to wait for
                    return item, rank
        return None

    # ------------------------------------------------------------------ the end

    def shut_down(self, *, drain: bool = False) -> None:
        """Drop later adds, and what waits for its time. Wakes every ``get`` at once.

        Args:
            drain: hand out what is ready until nothing is, items in work that were added again included; a later
                call without it ends that. ``drained`` waits for the end of the work.
        """
        self._open = False
        self._draining = drain
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._waiting.clear()
        self._due.clear()
        self._tickets.clear()
        self._wake_all()
        self._tell_drained()

    async def drained(self) -> None:
        """Wait until a shutdown that drains has handed out everything and all of it is done, or is cut short."""
        while self._open or self._is_draining():
            drainer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._drainers.append(drainer)
            await drainer

    def _is_draining(self) -> bool:
        return self._draining and bool(self._ready or self._working)

    def _tell_drained(self) -> None:
        if not self._is_draining():
            for drainer in self._drainers:
                if not drainer.done():
                    drainer.set_result(None)
            self._drainers.clear()

    # ------------------------------------------------------------------ lines

    def _make_ready(self, item: T, rank: int, since: float) -> None:
        line = self._lines.get(rank)
        if line is None:
            line = self._line(rank)
        line[item] = since
        self._ready[item] = rank
        self.stats.adds += 1
        if self._getters and item not in self._working:
            self._wake()

    def _line(self, rank: int) -> OrderedDict[T, float]:
        line = self._lines.get(rank)
        if line is None:
            if len(self._lines) >= _KEEP_LINES:
                self._lines = {kept: items for kept, items in self._lines.items() if items}
            line = self._lines[rank] = OrderedDict()
            self._ranks = sorted(self._lines, reverse=True)
        return line

    def _wake(self) -> None:
        while self._getters:
            getter = self._getters.popleft()
            if not getter.done():
                getter.set_result(None)
                return

    def _wake_all(self) -> None:
        while self._getters:
            self._wake()

    # ------------------------------------------------------------------ time

    def _wait(self, item: T, due: float, rank: int) -> None:
        if len(self._due) > 2 * len(self._waiting) + _STALE:
            self._due = [(due, ticket) for due, ticket, _ in self._waiting.values()]
            heapq.heapify(self._due)
        ticket = self._next_ticket
        self._next_ticket += 1
        self._tickets[ticket] = item
        self._waiting[item] = (due, ticket, rank)
        heapq.heappush(self._due, (due, ticket))
        if self._timer is None or due < self._timer_at:
            self._set_timer()

    def _ripen(self, now: float) -> None:
        """File what is due, in the order in which it became so."""
        while self._due and self._due[0][0] <= now:
            due, ticket = heapq.heappop(self._due)
            if ticket in self._tickets:
                item = self._tickets.pop(ticket)
                _, _, rank = self._waiting.pop(item)
                self._make_ready(item, rank, due)

    def _set_timer(self) -> None:
        while self._due and self._due[0][1] not in self._tickets:
            heapq.heappop(self._due)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._due:
            self._timer_at = self._due[0][0]
            self._timer = asyncio.get_running_loop().call_at(self._timer_at, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        # A loop calls up to one tick of its clock early; what the call is for is due all the same.
        self._ripen(max(self._time(), self._timer_at))
        self._set_timer()

    def _bind_time(self) -> float:
        # A queue may be made before its loop runs.
        self._time = asyncio.get_running_loop().time
        return self._time()
