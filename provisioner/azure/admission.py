"""Who may start an operation on the cluster's pools now: AKS takes few at a time and refuses the rest.

In: who asks, and what AKS answered to those who went. Out: go, or come back in so many seconds. Pure: time is an
argument. How many AKS takes is written nowhere and changes, so it is learnt: the limit doubles until the first
refusal, falls to what was under way when one comes, and is tried one higher after ever longer runs of success.
Who is sent away keeps its place: first come, first served, and deletions before creations because they end a cost.
Nobody holds a place for ever: an operation that nobody looks at any more, and a place that nobody comes back
for, lapse.
"""

from __future__ import annotations

from dataclasses import dataclass

_LAPSE = 300.0  # seconds without a look, after which an operation counts as over
_NEAR, _FAR = 5.0, 120.0  # seconds to the next try, for the next in line and for the last
_LATE = 30.0  # seconds that somebody may come back later than told
_LONGEST_RUN = 64  # of successes before the limit is tried one higher
_FOREIGN_HOLD, _LONGEST_FOREIGN_HOLD = 5.0, 60.0


@dataclass(slots=True)
class _Place:
    number: int
    urgent: bool
    due: float  # when it was told to come back

    def rank(self) -> tuple[bool, int]:
        return not self.urgent, self.number


@dataclass(frozen=True, slots=True)
class Wait:
    """Come back: after how many seconds, how many are before, and how many operations are under way."""

    seconds: float
    ahead: int
    under_way: int


class Admission:
    """The queue of one cluster. One event loop only."""

    def __init__(self, *, ceiling: int = 32) -> None:
        self.limit = min(2, ceiling)
        self._ceiling = ceiling
        self._under_way: dict[str, float] = {}  # name -> when it was last looked at
        self._waiting: dict[str, _Place] = {}
        self._admitted: dict[str, _Place] = {}  # places of those that went, until AKS has answered them
        self._count = 0
        self._refused_once = False
        self._run = 0  # successes at the limit since it last changed
        self._needed_run = 1
        self._hold_until = float("-inf")
        self._hold = _FOREIGN_HOLD

    def __repr__(self) -> str:
        return f"<Admission limit={self.limit} under_way={len(self._under_way)} waiting={len(self._waiting)}>"

    def waits(self, name: str) -> bool:
        """Whether ``name`` waits to be created: then nothing of it exists yet, and nobody need be asked."""
        place = self._waiting.get(name)
        return place is not None and not place.urgent

    def ask(self, name: str, now: float, *, urgent: bool = False) -> Wait | None:
        """None is "go", and AKS's answer must be told with one of the methods below."""
        self._forget_the_late(now)
        self._under_way.pop(name, None)  # whoever asks anew has nothing under way, or will be told so
        place = self._waiting.get(name)
        if place is None:
            self._count += 1
            place = self._waiting[name] = _Place(self._count, urgent, now)
        place.urgent = place.urgent or urgent
        ahead = sum(other.rank() < place.rank() for other in self._waiting.values())
        free = self.limit - len(self._under_way)
        if now >= self._hold_until and ahead < free:
            self._admitted[name] = self._waiting.pop(name)
            self._under_way[name] = now
            return None
        rounds = max(0, ahead - free) // self.limit + 1
        seconds = min(_FAR, _NEAR * rounds)
        if now < self._hold_until:
            seconds = max(seconds, self._hold_until - now)
        place.due = now + seconds
        return Wait(seconds, ahead, len(self._under_way))

    def accepted(self, name: str, now: float) -> None:
        """AKS has started the operation."""
        self._admitted.pop(name, None)
        self._under_way[name] = now
        self._hold = _FOREIGN_HOLD
        if len(self._under_way) < self.limit:
            return
        if not self._refused_once:
            self.limit = min(self.limit * 2, self._ceiling)
            return
        self._run += 1
        if self._run >= self._needed_run and self.limit < self._ceiling:
            self.limit += 1
            self._run = 0

    def refused(self, name: str, now: float) -> Wait:
        """AKS said that it is busy. ``name`` keeps its place."""
        self._return(name, now)
        others = len(self._under_way)
        self._run = 0
        if others:
            self._refused_once = True
            self.limit = min(self.limit, others)
            self._needed_run = min(self._needed_run * 2, _LONGEST_RUN)
        else:
            # Somebody else works on the cluster. One at a time finds out when that is over.
            self._hold_until = now + self._hold
            self._hold = min(self._hold * 2, _LONGEST_FOREIGN_HOLD)
        wait = Wait(_NEAR if others else self._hold_until - now, 0, others)
        if name in self._waiting:
            self._waiting[name].due = now + wait.seconds
        return wait

    def postponed(self, name: str, until: float) -> None:
        """ARM would not even listen before ``until``. ``name`` keeps its place."""
        self._return(name, until)

    def ended(self, name: str) -> None:
        """The operation is over, or never began; or ``name`` is not wanted any more."""
        self._admitted.pop(name, None)
        self._under_way.pop(name, None)
        self._waiting.pop(name, None)

    def seen(self, name: str, now: float) -> None:
        """The operation of ``name`` is still under way, whoever started it."""
        self._under_way[name] = now

    def _return(self, name: str, due: float) -> None:
        self._under_way.pop(name, None)
        place = self._admitted.pop(name, None)
        if place is not None:
            place.due = due
            self._waiting[name] = place

    def _forget_the_late(self, now: float) -> None:
        for name in [name for name, place in self._waiting.items() if now > place.due + _LATE]:
            del self._waiting[name]
        for name in [name for name, seen in self._under_way.items() if now > seen + _LAPSE]:
            del self._under_way[name]
