"""How far a download is, as the wire model that the operator and people read.

In: bytes as they arrive. Out: `LoadProgress` to a callback, at once when something new is to be said and a few
times a second otherwise. The speed is that of the last ten seconds, so that a stall shows.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from api.progress import LoadProgress, LoadStage

OnProgress = Callable[[LoadProgress], None]
_WINDOW, _EVERY = 10.0, 0.5  # seconds


class Meter:
    """Counts one fetch. ``clock`` is in seconds and never goes back."""

    def __init__(self, report: OnProgress, clock: Callable[[], float]) -> None:
        self._report = report
        self._clock = clock
        self._done = 0
        self._total: int | None = None
        self._message = ""
        self._seen: deque[tuple[float, int]] = deque()
        self._reported_at = float("-inf")

    def say(self, message: str, *, total: int | None = None) -> None:
        """What is done now, and how many bytes it comes to once that is known."""
        self._message = message
        self._total = total if total is not None else self._total
        self._send()

    def add(self, count: int) -> None:
        """More bytes are on the disk; a negative count takes some back."""
        self._done = max(0, self._done + count)
        if self._clock() - self._reported_at >= _EVERY or self._done == self._total:
            self._send()

    def _send(self) -> None:
        now = self._clock()
        self._reported_at = now
        self._seen.append((now, self._done))
        while self._seen[0][0] < now - _WINDOW and len(self._seen) > 2:
            self._seen.popleft()
        speed = self._speed()
        left = None
        if self._total is not None and speed:
            left = max(0, self._total - self._done) / speed
        self._report(
            LoadProgress(
                stage=LoadStage.PULLING,
                bytes_done=self._done,
                bytes_total=self._total,
                bytes_per_second=speed,
                seconds_left=left,
                message=self._message,
            )
        )

    def _speed(self) -> float | None:
        (began, first), (ended, last) = self._seen[0], self._seen[-1]
        return max(0.0, (last - first) / (ended - began)) if ended > began else None
