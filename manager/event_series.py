"""Many occurrences of one event become one Event with a count: which write is due, and when.

Pure; time is an argument. In: occurrences as they happen, and what became of the writes. Out: series that want
to be written. Two occurrences are the same event when all but their notes agree. The first one is written at
once, the second one (the count of 2) too; later ones only count, and are written together from time to time;
after six quiet minutes the series has ended: its last count is written, and the next occurrence begins a new
one. Semantics: client-go's ``tools/events``.

A series is handed out for one write at a time, so that the writers cannot overtake each other. Whoever got one
says :meth:`EventSeries.wrote`, :meth:`EventSeries.failed` or :meth:`EventSeries.put_back`.

Two differences from client-go, both for who reads ``kubectl describe``:

- A live series is refreshed after 30 s, then after times that double up to 5 min; client-go waits 30 min, in
  which a loop of failures reads "x2 over 0s, 29m ago". Five minutes is less than the six after which a series
  ends: so an age above six minutes means that it is over. A refresh every half minute for ever would say more,
  and cost a cluster with thousands of failing objects a hundred writes a second; this costs 14 writes in the
  first hour.
- The note is the newest one, not the first: "attempt 1" beside a count of 40 helps nobody.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from manager.types import Obj

FINISH_SECONDS = 360.0
REFRESH_FIRST = 30.0
REFRESH_MOST = 300.0
MOST_SERIES = 4096


class Reference(NamedTuple):
    """Which object an event is about."""

    api_version: str
    kind: str
    namespace: str
    name: str
    uid: str

    def obj(self) -> Obj:
        """As an ObjectReference; what is unknown is left out."""
        fields = zip(("apiVersion", "kind", "namespace", "name", "uid"), self, strict=True)
        return {field: value for field, value in fields if value}


class EventKey(NamedTuple):
    """What makes two occurrences the same event."""

    type: str
    action: str
    reason: str
    controller: str
    instance: str
    regarding: Reference
    related: Reference | None


@dataclass(frozen=True, slots=True)
class Occurrence:
    """Something happened, ``when`` being a ``metav1.MicroTime``."""

    key: EventKey
    note: str
    when: str


@dataclass(slots=True, eq=False)
class Series:
    """One event and how often it occurred; ``told`` is the count that the server knows, 0 while it has no
    Event."""

    key: EventKey
    name: str
    began: str
    seen: str
    note: str
    last: float
    count: int = 1
    told: int = 0
    told_note: str = ""
    told_at: float = 0.0
    wait: float = REFRESH_FIRST
    writing: bool = False
    namespace: str = ""
    """Where the server has the Event; the writer's to know."""

    def body(self, namespace: str) -> Obj:
        """The Event to create, with its whole count."""
        event: Obj = {
            "metadata": {"name": self.name, "namespace": namespace},
            "eventTime": self.began,
            "type": self.key.type,
            "reason": self.key.reason,
            "action": self.key.action,
            "note": self.note,
            "reportingController": self.key.controller,
            "reportingInstance": self.key.instance,
            "regarding": self.key.regarding.obj(),
        }
        if self.key.related is not None:
            event["related"] = self.key.related.obj()
        if self.count > 1:
            event |= self.patch()
        return event

    def patch(self) -> Obj:
        """What a merge patch must say of the series."""
        return {"series": {"count": self.count, "lastObservedTime": self.seen}}


class EventSeries:
    """All live series of one recorder. See the module."""

    def __init__(self, most: int = MOST_SERIES) -> None:
        self._most = most
        self._live: dict[EventKey, Series] = {}  # the longest quiet first

    def __repr__(self) -> str:
        return f"<EventSeries live={len(self._live)}>"

    def __len__(self) -> int:
        return len(self._live)

    def __contains__(self, key: EventKey) -> bool:
        return key in self._live

    def observe(self, seen: Occurrence, now: float, *, name: str) -> Series | None:
        """Count it; the series if it wants to be written now. ``name`` is for the Event of a new series."""
        series = self._live.pop(seen.key, None)
        if series is None:
            self._make_room()
            series = Series(seen.key, name, seen.when, seen.when, seen.note, now)
        else:
            series.count += 1
            series.seen, series.note, series.last = seen.when, seen.note, now
        self._live[seen.key] = series
        return self._hand_out(series) if _is_urgent(series) else None

    def due(self, now: float) -> list[Series]:
        """What wants to be written because time has passed; and forget what has ended."""
        wanted = []
        for series in list(self._live.values()):
            if series.writing:
                continue
            quiet = now - series.last >= FINISH_SECONDS
            if series.count > series.told:
                if quiet or now - series.told_at >= series.wait:
                    wanted.append(self._hand_out(series))
            elif quiet:
                del self._live[series.key]
        return wanted

    def wrote(self, series: Series, count: int, now: float) -> bool:
        """The server has it up to this count. True: it must be written again at once, and stays handed out."""
        series.writing = False
        if series.told:
            series.wait = min(series.wait * 2, REFRESH_MOST) if series.told > 1 else REFRESH_FIRST
        series.told, series.told_at = count, now
        if not _is_urgent(series):
            return False
        self._hand_out(series)
        return True

    def failed(self, series: Series, now: float) -> None:
        """The write was given up: an Event that never came to be is forgotten, another waits for its next
        refresh."""
        series.writing = False
        series.told_at = now
        if not series.told or now - series.last >= FINISH_SECONDS:
            self._forget(series)

    def put_back(self, series: Series) -> None:
        """It could not even be tried now; it stays due."""
        series.writing = False

    def unsaid(self) -> Iterator[Series]:
        """All that the server does not know yet, for a last write before the end."""
        return (series for series in self._live.values() if series.count > series.told)

    @staticmethod
    def _hand_out(series: Series) -> Series:
        series.writing = True
        return series

    def _make_room(self) -> None:
        if len(self._live) >= self._most:
            idle = next((series for series in self._live.values() if not series.writing), None)
            if idle is not None:
                self._forget(idle)

    def _forget(self, series: Series) -> None:
        if self._live.get(series.key) is series:
            del self._live[series.key]


def _is_urgent(series: Series) -> bool:
    return not series.writing and (not series.told or series.told == 1 < series.count)
