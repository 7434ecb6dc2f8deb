"""Notices that a peer has gone: a stream whose reader waits for too long, or that lives past its deadline.

In: when its reader began to wait. Out: an exception in the stream, which the waiting reader raises. One timer
serves the whole life of a stream and looks at the clock only when it fires: a busy watch reads thousands of times
a second, and a timeout around every read would cost more than the read. Only waiting counts: a reader that is
slow itself never makes its peer look dead, and a reader that is not waiting is never interrupted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from manager.errors import StreamSilent

_EARLY = 0.001  # seconds that a timer may fire too soon, by the clock's grain


class Watchdog:
    """See the module.

    Args:
        fail: makes the reader raise an exception.
        peer: for the message.
        silence: seconds that the reader may wait for one read; None: for ever.
        deadline: loop time after which no read may wait any more; None: never.

    Attributes:
        waiting_since: loop time at which the read under way began, None while there is none; the reader sets it.
    """

    __slots__ = ("_deadline", "_fail", "_loop", "_peer", "_silence", "_timer", "waiting_since")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        fail: Callable[[BaseException], None],
        peer: str,
        silence: float | None,
        deadline: float | None,
    ) -> None:
        self._loop = loop
        self._fail = fail
        self._peer = peer
        self._silence = silence
        self._deadline = deadline
        self.waiting_since: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._arm(loop.time())

    def stop(self) -> None:
        """The stream is over."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self, since: float) -> None:
        ends = [] if self._silence is None else [since + self._silence]
        if self._deadline is not None:
            # Once the deadline has passed while nobody waited, look again soon: the next wait is one too many.
            ends.append(self._deadline if self._deadline > since + _EARLY else since + 1.0)
        if ends:
            self._timer = self._loop.call_at(min(ends), self._look)

    def _look(self) -> None:
        now = self._loop.time()
        since = self.waiting_since
        if since is not None:
            if self._silence is not None and now - since >= self._silence - _EARLY:
                self._fail(
                    StreamSilent(f"no data from {self._peer} for {now - since:.0f} s; the peer may be gone")
                )
                return
            if self._deadline is not None and now >= self._deadline - _EARLY:
                self._fail(StreamSilent(f"{self._peer} did not end a stream in time; the peer may be gone"))
                return
        self._arm(now if since is None else since)
