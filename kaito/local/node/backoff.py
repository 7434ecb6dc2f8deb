"""The kubelet's delays before a container is started again or its image is looked for again. Pure.

The first restart is immediate, then 10 s, doubled up to 5 min. A run (or a quiet time) of more than 10 min
forgets it. Times are seconds on any one clock.
"""

from __future__ import annotations

from dataclasses import dataclass

INITIAL = 10.0
LONGEST = 300.0
FORGET = 2 * LONGEST


@dataclass(frozen=True, slots=True)
class BackOff:
    """The delay that applies now and when it was last raised."""

    delay: float = 0.0
    raised: float = 0.0

    def until(self, event: float) -> float:
        """When the next try is allowed after something failed (or ended) at `event`."""
        return event + self._delay(event)

    def raise_(self, event: float, now: float) -> BackOff:
        """The state after a try at `now` that follows a failure at `event`."""
        delay = self._delay(event)
        return BackOff(min(2 * delay, LONGEST) if delay else INITIAL, now)

    def _delay(self, event: float) -> float:
        return 0.0 if event - self.raised > FORGET else self.delay


def describe(seconds: float) -> str:
    """`10s`, `1m20s`, `5m0s`, as the back-off messages write it."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"
