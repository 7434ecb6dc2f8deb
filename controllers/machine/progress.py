"""How far a creation is, in words that change seldom, and how long creations of a size usually take.

In: seconds, and creations as they end. Out: text for a condition. Text is rounded down, ever more coarsely the
longer it takes, so that a status is written when a reader would notice and not at each look at the cloud. The
history is this process's own and starts empty; then nothing is promised.
"""

from __future__ import annotations

from collections import deque
from statistics import median

_STEPS = ((300, 30), (1800, 60), (7200, 300), (float("inf"), 900))
_KEPT = 20  # creations of one instance type; enough for a median, few enough to follow a change of the region


class History:
    """How long creations took, by instance type. One event loop only."""

    def __init__(self) -> None:
        self._seconds: dict[str, deque[float]] = {}

    def __repr__(self) -> str:
        return f"<History types={len(self._seconds)}>"

    def took(self, instance_type: str, seconds: float) -> None:
        """One creation has succeeded."""
        self._seconds.setdefault(instance_type, deque(maxlen=_KEPT)).append(seconds)

    def usual(self, instance_type: str) -> float | None:
        """The median in seconds; None when none has succeeded yet."""
        known = self._seconds.get(instance_type)
        return float(median(known)) if known else None


def step(seconds: float) -> int:
    """Half minutes up to five minutes, minutes up to half an hour, then five and fifteen minutes; in seconds."""
    whole = max(0, int(seconds))
    return whole - whole % next(width for until, width in _STEPS if whole < until)


def spoken(seconds: float) -> str:
    """A duration as people say it: ``40 s``, ``3 min 30 s``, ``1 h 5 min``."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"


def under_way(doing: str, elapsed: float | None, usual: float | None = None) -> str:
    """``creating, 3 min 30 s, usually 6 min``; what is not known is left away."""
    text = doing
    if elapsed is not None and step(elapsed):
        text += f", {spoken(step(elapsed))}"
    return f"{text}, usually {spoken(step(usual) or usual)}" if usual else text
