"""How fast one kind of request may go to Azure's Resource Manager, learnt from its "429, too many requests".

In: the moment a request wants to go, and what became of the ones before. Out: how many seconds it has to wait, or
that it has to come back later. Pure: time is an argument, in seconds of any one clock. Before the first 429 there
is no limit. After it nobody goes until ARM's Retry-After is over; then requests keep an interval that doubles with
each further 429 and melts away with each answer.
"""

from __future__ import annotations

_FIRST_INTERVAL = 0.1
_LONGEST_INTERVAL = 5.0
_NO_INTERVAL = 0.01  # below this there is none
_RECOVERY = 0.9  # of the interval, after each answer
_DEFAULT_HOLD = 10.0  # a 429 without Retry-After
_PATIENCE = 2.0  # seconds that a request waits in place; beyond, its Machine has better things to do


class Pace:
    """The state of one of ARM's buckets: reading, writing."""

    def __init__(self) -> None:
        self.interval = 0.0
        self._hold_until = float("-inf")
        self._next = float("-inf")  # the earliest moment for the next request
        self._promised = float("-inf")  # the last moment told to somebody who was sent away
        self._slowed_at = float("-inf")

    def __repr__(self) -> str:
        return f"<Pace interval={self.interval:.2f}s>"

    def reserve(self, now: float) -> tuple[float, bool]:
        """Seconds to wait, and whether to wait here: False means come back after them, nothing is reserved.

        Those who are sent away are told different moments, one interval apart, so that they do not come back as
        the same crowd.
        """
        at = max(now, self._next, self._hold_until)
        if at - now <= _PATIENCE:
            self._next = at + self.interval
            return at - now, True
        self._promised = max(at, self._promised + self.interval)
        return self._promised - now, False

    def held(self, now: float) -> float:
        """Seconds until the hold is over that a 429 may have put on while somebody waited; 0 is none."""
        return max(0.0, self._hold_until - now)

    def throttled(self, sent_at: float, now: float, retry_after: float | None) -> None:
        """ARM answered 429 to a request sent at ``sent_at``."""
        self._hold_until = max(self._hold_until, now + (_DEFAULT_HOLD if retry_after is None else retry_after))
        # Requests that were under way together are one sign that it was too fast, not many.
        if sent_at > self._slowed_at:
            self.interval = min(max(self.interval * 2, _FIRST_INTERVAL), _LONGEST_INTERVAL)
            self._slowed_at = now

    def answered(self) -> None:
        """ARM answered anything else."""
        self.interval *= _RECOVERY
        if self.interval < _NO_INTERVAL:
            self.interval = 0.0
