"""One watch seen from the sink: events in, calls on the sink out, and how far the copy has come.

The version that was reached moves forward only. A watch that began at a version delivers events in the order of
their versions, so one from before the version reached is a repetition (a proxy that answered twice, a server that
replayed) and is dropped: told again, a deletion would remove what has been created since. A watch that began at
``""`` or ``"0"`` first replays what exists in no order, so there versions count only after the first event that
is not an ADDED. Semantics: client-go's ``handleAnyWatch``; versions can be compared as numbers (KEP-5504), and
what is no number is not compared.
"""

from __future__ import annotations

import logging
from typing import Any, Protocol

from manager.screen import Screen
from manager.types import Obj
from manager.watch import WatchEvent

log = logging.getLogger("kaito.manager.reflector")


class Sink(Protocol):
    """Who keeps the copy."""

    def replace(self, items: list[Obj], version: str) -> None:
        """The whole collection, as of this version."""

    def apply(self, events: list[WatchEvent]) -> None:
        """Changes in the server's order: each ADDED, MODIFIED or DELETED. Never empty."""

    def bookmark(self, version: str) -> None:
        """Everything up to this version has been seen."""

    def resync(self) -> None:
        """The resync period is over: tell of everything once more."""


class Follower:
    """See the module. One per watch.

    Attributes:
        version: the version reached; what the next watch starts from.
        seen: how many events came, whatever became of them.
    """

    __slots__ = ("_at_reached", "_ordered", "_reached", "_screen", "_sink", "seen", "version")

    def __init__(self, screen: Screen, sink: Sink, version: str) -> None:
        self._screen = screen
        self._sink = sink
        self.version = version
        self.seen = 0
        self._ordered = version not in ("", "0")
        self._reached = int(version) if self._ordered and version.isdecimal() else -1
        # Several objects that go at once (a lease of etcd that runs out) share one version. None: the version
        # reached is that of a list or bookmark, and everything at it is known.
        self._at_reached: list[dict[str, Any]] | None = None

    def take(self, events: list[WatchEvent]) -> None:
        """Hand a batch on."""
        self.seen += len(events)
        admit, shape = self._screen.admit, self._screen.shape
        reached, repeated = self._reached, 0
        changes: list[WatchEvent] = []
        for event in events:
            metadata = admit(event)
            if metadata is None:
                continue
            kind = event.type
            version = metadata.get("resourceVersion") or ""
            if kind != "ADDED":
                self._ordered = True
            if self._ordered and version:
                try:
                    number = int(version)
                except ValueError:
                    number = -1
                if number > reached:
                    reached = number
                    self._at_reached = [metadata]
                elif number >= 0 and (number < reached or (kind != "BOOKMARK" and self._is_known(metadata))):
                    repeated += 1
                    continue
                self.version = version
            if kind == "BOOKMARK":
                self._at_reached = None
                if changes:
                    self._sink.apply(changes)
                    changes = []
                if version:
                    self._sink.bookmark(version)
                continue
            obj = shape(event.object)
            if obj is None:
                if kind != "DELETED":
                    continue
                obj = event.object  # what could not be shaped is gone all the same
            if obj is not event.object:
                event = WatchEvent(kind, obj)
            changes.append(event)
        self._reached = reached
        if changes:
            self._sink.apply(changes)
        if repeated:
            log.warning(
                "events from before the version reached skipped count=%d version=%s", repeated, self.version
            )

    def _is_known(self, metadata: dict[str, Any]) -> bool:
        """Whether the version reached is known of this object already; remembers it if not."""
        if self._at_reached is None:
            return True
        name, namespace = metadata["name"], metadata.get("namespace")
        for other in self._at_reached:
            if other.get("name") == name and other.get("namespace") == namespace:
                return True
        self._at_reached.append(metadata)
        return False
