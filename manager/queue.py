"""The work queue: which key to reconcile next, and never the same key twice at once.

Contract, as of controller-runtime's priority queue:

- *Fair*: items of one priority come out in the order in which they became ready, higher priorities first.
- *Stingy*: an item that is added many times before it is taken comes out once, at the highest priority and at
  the earliest time that any of the adds asked for.
- *Exclusive*: an item that is being worked on is hidden until ``done``; adds meanwhile lead to one more run.
- *Shutdown* wakes every waiting ``get`` at once; nothing is drained.

The queue owns its state; everything is synchronous but ``get``. Time is the event loop's.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from manager.backoff import ItemBackoff

T = TypeVar("T", bound=Hashable)

LOW_PRIORITY = -100
"""Of initial-list and resync events, so that a restart does not delay live changes."""


class QueueShutDown(Exception):
    """``get`` after ``shut_down``."""


class QueueObserver(Protocol):
    """What a queue tells, for metrics. Priorities label the depth; times are seconds."""

    def ready(self, priority: int) -> None:
        """An item became ready."""

    def taken(self, priority: int, waited: float) -> None:
        """An item was handed out after this wait."""

    def finished(self, worked: float) -> None:
        """An item was done after this work."""

    def dropped(self, priority: int) -> None:
        """A ready item changed priority or was dropped."""

    def retried(self) -> None:
        """An item was added with a delay or rate limit."""


@dataclass(slots=True)
class _Entry:
    priority: int
    ready_at: float
    order: int  # FIFO position among the ready items of its priority
    ready: bool = False
    live: bool = True  # False once replaced: heaps are cleaned lazily


class PriorityQueue(Generic[T]):
    """See the module."""

    def __init__(self, *, backoff: ItemBackoff[T] | None = None, observer: QueueObserver | None = None) -> None:
        self._backoff: ItemBackoff[T] = backoff or ItemBackoff()
        self._observer = observer
        self._entries: dict[T, _Entry] = {}
        self._working: dict[T, float] = {}
        self._ready: list[tuple[int, int, T, _Entry]] = []
        self._waiting: list[tuple[float, int, T, _Entry]] = []
        self._order = itertools.count()
        self._getters: deque[asyncio.Future[None]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._shut_down = False

    def __len__(self) -> int:
        """Items that are ready, those being worked on again included."""
        return sum(entry.ready for entry in self._entries.values())

    def __repr__(self) -> str:
        waiting = len(self._entries) - len(self)
        return f"<PriorityQueue ready={len(self)} waiting={waiting} working={len(self._working)}>"

    @property
    def working(self) -> dict[T, float]:
        """Items being worked on, and when each was taken (loop time)."""
        return dict(self._working)

    # ------------------------------------------------------------------ adding

    def add(self, item: T, *, after: float = 0.0, rate_limited: bool = False, priority: int | None = None) -> None:
        """Ask for an item to be worked on.

        Args:
            item: its key.
            after: seconds until it is ready.
            rate_limited: wait the item's back-off; with ``after`` too, the smaller of both.
            priority: default 0; an item keeps the highest that was asked for.
        """
        if self._shut_down:
            return
        delay = max(after, 0.0)
        if rate_limited:
            backoff = self._backoff.when(item)
            delay = min(delay, backoff) if after > 0 else backoff
        if delay > 0 and self._observer:
            self._observer.retried()
        now = self._now()
        entry = self._entries.get(item)
        if entry is None:
            entry = self._entries[item] = _Entry(priority or 0, now + delay, next(self._order))
        else:
            entry = self._merged(item, entry, priority or 0, now + delay)
        if not entry.ready and entry.ready_at <= now:
            self._make_ready(item, entry)
        elif not entry.ready:
            heapq.heappush(self._waiting, (entry.ready_at, entry.order, item, entry))
            self._set_timer()

    def forget(self, item: T) -> None:
        """The item succeeded: reset its back-off."""
        self._backoff.forget(item)

    def failures(self, item: T) -> int:
        """How often in a row the item was added rate-limited."""
        return self._backoff.failures(item)

    def _merged(self, item: T, old: _Entry, priority: int, ready_at: float) -> _Entry:
        """The entry that stands for both; the old one if nothing changes."""
        if priority <= old.priority and (old.ready or ready_at >= old.ready_at):
            return old
        old.live = False
        if old.ready and self._observer:
            self._observer.dropped(old.priority)
        # A raised priority files the item at the end of the higher one's line.
        when = self._now() if old.ready else min(old.ready_at, ready_at)
        entry = self._entries[item] = _Entry(max(priority, old.priority), when, next(self._order))
        return entry

    # ------------------------------------------------------------------ taking

    async def get(self) -> tuple[T, int]:
        """The next item and its priority; waits for one.

        Raises:
            QueueShutDown: the queue was shut down.
        """
        while True:
            if self._shut_down:
                raise QueueShutDown
            found = self._take()
            if found is not None:
                return found
            getter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._getters.append(getter)
            try:
                await getter
            except asyncio.CancelledError:
                if getter.done() and not getter.cancelled():
                    self._wake()  # the item that this getter was woken for must not be stranded
                raise
            finally:
                if getter in self._getters:
                    self._getters.remove(getter)

    def done(self, item: T) -> None:
        """The work on an item has ended; adds made meanwhile become visible."""
        started = self._working.pop(item, None)
        if started is not None and self._observer:
            self._observer.finished(self._now() - started)
        entry = self._entries.get(item)
        if entry is not None and entry.ready:
            heapq.heappush(self._ready, (-entry.priority, entry.order, item, entry))
            self._wake()

    def shut_down(self) -> None:
        """Wake every ``get``; later adds are dropped."""
        self._shut_down = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._getters:
            getter = self._getters.popleft()
            if not getter.done():
                getter.set_result(None)

    def _take(self) -> tuple[T, int] | None:
        while self._ready:
            _, _, item, entry = heapq.heappop(self._ready)
            if not entry.live or item in self._working:
                continue  # replaced; or hidden, and filed again by done()
            del self._entries[item]
            entry.live = False
            now = self._now()
            self._working[item] = now
            if self._observer:
                self._observer.taken(entry.priority, now - entry.ready_at)
            return item, entry.priority
        return None

    # ------------------------------------------------------------------ time

    def _make_ready(self, item: T, entry: _Entry) -> None:
        entry.ready = True
        if self._observer:
            self._observer.ready(entry.priority)
        if item not in self._working:
            heapq.heappush(self._ready, (-entry.priority, entry.order, item, entry))
            self._wake()

    def _wake(self) -> None:
        while self._getters:
            getter = self._getters.popleft()
            if not getter.done():
                getter.set_result(None)
                return

    def _set_timer(self) -> None:
        while self._waiting and (not self._waiting[0][3].live or self._waiting[0][3].ready):
            heapq.heappop(self._waiting)
        if not self._waiting:
            return
        due = self._waiting[0][0]
        if self._timer is not None:
            if self._timer_at <= due:
                return
            self._timer.cancel()
        self._timer_at = due
        self._timer = asyncio.get_running_loop().call_at(due, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        now = self._now()
        while self._waiting and self._waiting[0][0] <= now:
            ready_at, _, item, entry = heapq.heappop(self._waiting)
            if entry.live and not entry.ready:
                # Filed as of now, not as of when it was added: it queues up behind what is ready already.
                entry.order = next(self._order)
                entry.ready_at = ready_at
                self._make_ready(item, entry)
        self._set_timer()

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()
