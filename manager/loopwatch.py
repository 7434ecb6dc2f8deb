"""How well the event loop keeps time, and what keeps it from doing so.

Always: ``event_loop_lag_seconds``, the worst delay of a timer within the last 15 to 30 seconds, so that a scrape
every 15 seconds misses none. It costs four wake-ups per second. When misuse is looked for (``debug``): a thread
asks the loop for a sign of life, and if none comes within 100 ms it logs the stack of the code that blocks it,
while it blocks it. A loop whose clock is not the monotonic one (virtual time) has no lag and is left alone.
"""

from __future__ import annotations

import asyncio
import logging
import selectors
import sys
import threading
import time
import traceback
from collections.abc import Callable
from types import TracebackType
from typing import Self

from prometheus_client import CollectorRegistry, Gauge

from manager import debug

log = logging.getLogger("kaito.manager.loopwatch")

BLOCKED_SECONDS = 0.1
_TICK = 0.25
_WINDOW = 15.0
_ASK_EVERY = 0.02

OnBlocked = Callable[[float, str], None]
"""Called, in the watching thread, with the seconds for which the loop was blocked so far, and the stack."""


class LoopLag:
    """Measures timers; ``worst`` is what the gauge shows."""

    def __init__(self, registry: CollectorRegistry) -> None:
        gauge = Gauge(
            "event_loop_lag_seconds", "Worst delay of a timer in the last 15 to 30 seconds.", registry=registry
        )
        gauge.set_function(self.worst)
        self._before = self._now = 0.0
        self._rotate_at = 0.0
        self._due = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def worst(self) -> float:
        """Seconds."""
        return max(self._before, self._now)

    def start(self) -> None:
        """Measure the running loop."""
        loop = asyncio.get_running_loop()
        if not _real_time(loop):
            return
        self._rotate_at = loop.time() + _WINDOW
        self._arm(loop)

    def stop(self) -> None:
        """Measure no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self, loop: asyncio.AbstractEventLoop) -> None:
        self._due = loop.time() + _TICK
        self._timer = loop.call_at(self._due, self._tick, loop)

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        self._now = max(self._now, now - self._due)
        if now >= self._rotate_at:
            self._before, self._now = self._now, 0.0
            self._rotate_at = now + _WINDOW
        self._arm(loop)


class BlockedWatch:
    """Tells who blocks the running loop. A context manager; the thread ends with it."""

    def __init__(self, *, threshold: float = BLOCKED_SECONDS, on_blocked: OnBlocked | None = None) -> None:
        self._threshold = threshold
        self._on_blocked = on_blocked or _report
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        loop = asyncio.get_running_loop()
        if _real_time(loop):
            watched = threading.get_ident()
            self._thread = threading.Thread(
                target=self._watch, args=(loop, watched), name="loop-watch", daemon=True
            )
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        if self._thread is not None:
            self._thread.join(1.0)

    def _watch(self, loop: asyncio.AbstractEventLoop, watched: int) -> None:
        while not self._over.wait(_ASK_EVERY):
            alive = threading.Event()
            asked = time.monotonic()
            try:
                loop.call_soon_threadsafe(alive.set)
            except RuntimeError:
                return  # the loop is closed
            if alive.wait(self._threshold) or self._over.is_set():
                continue
            frame = sys._current_frames().get(watched)
            if frame is None or frame.f_code.co_filename == selectors.__file__:
                continue  # the loop waits for events: this machine is slow, and nobody's code is to blame
            stack = "".join(traceback.format_stack(frame))
            if alive.is_set():
                continue  # it came back between the two: the stack would accuse the wrong code
            self._on_blocked(time.monotonic() - asked, stack)
            while not alive.wait(self._threshold):
                if self._over.is_set():
                    return


def watch_blocking() -> BlockedWatch | None:
    """A watch if misuse is looked for, else None."""
    return BlockedWatch() if debug.enabled() else None


def _report(seconds: float, stack: str) -> None:
    log.warning("event loop blocked seconds=%.3f by:\n%s", seconds, stack)


def _real_time(loop: asyncio.AbstractEventLoop) -> bool:
    return abs(loop.time() - time.monotonic()) < 60.0
