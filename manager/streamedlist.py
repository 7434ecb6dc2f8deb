"""The contents of a streamed list (WatchList), while they come in, and the patience to wait for their end.

In: the first events of a watch that asked for ``sendInitialEvents``. Out: the objects, once the bookmark that
marks their end has come; nothing of them is anybody's before that. A server that does not know the parameter
never sends the mark, so waiting for it has limits. Semantics: Kubernetes API concepts, "streaming lists";
client-go's ``watchList``.
"""

from __future__ import annotations

import asyncio
import logging
from types import TracebackType
from typing import Self

from manager.screen import Screen
from manager.types import Obj
from manager.watch import WatchEvent

log = logging.getLogger("kaito.manager.reflector")

INITIAL_EVENTS_END = "k8s.io/initial-events-end"
_WARN_EVERY = 10.0  # seconds without an event


class Contents:
    """What has come so far.

    Attributes:
        version: of the whole, once the mark has come.
        seen: how many events came.
    """

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._objects: dict[tuple[str | None, str], Obj] = {}
        self.version = ""
        self.seen = 0

    def take(self, events: list[WatchEvent]) -> list[WatchEvent] | None:
        """Add these. None: the mark has not come; else the events after it, which are changes of the watch."""
        objects = self._objects
        for index, event in enumerate(events):
            self.seen += 1
            metadata = self._screen.admit(event)
            if metadata is None:
                continue
            if event.type == "BOOKMARK":
                if (metadata.get("annotations") or {}).get(INITIAL_EVENTS_END) == "true":
                    self.version = str(metadata.get("resourceVersion") or "")
                    return events[index + 1 :]
                continue
            key = metadata.get("namespace"), metadata["name"]
            if event.type == "DELETED":
                objects.pop(key, None)
            elif (obj := self._screen.shape(event.object)) is not None:
                objects[key] = obj
        return None

    def items(self) -> list[Obj]:
        """The objects, in the order in which they came."""
        return list(self._objects.values())


class Patience:
    """Waits for the mark inside ``async with``; ``TimeoutError`` when it is not coming.

    Every 10 s without any event a warning says that the copy is not filled yet.

    Args:
        what: the collection, for the warning.
        quiet: seconds without an event after which the mark is not waited for any more.
        total: seconds after which it is not in any case.
    """

    def __init__(self, what: str, *, quiet: float, total: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._what = what
        self._quiet = quiet
        self._began = self._last = self._loop.time()
        self._end = self._began + total
        self._timeout = asyncio.timeout_at(min(self._began + quiet, self._end))
        self._ticker: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> Self:
        await self._timeout.__aenter__()
        self._ticker = self._loop.call_later(_WARN_EVERY, self._tick)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._ticker is not None:
            self._ticker.cancel()
        await self._timeout.__aexit__(kind, error, trace)

    def renew(self) -> None:
        """Events came, the mark did not."""
        self._last = self._loop.time()
        self._timeout.reschedule(min(self._last + self._quiet, self._end))

    def _tick(self) -> None:
        self._ticker = self._loop.call_later(_WARN_EVERY, self._tick)
        now = self._loop.time()
        if now - self._last >= _WARN_EVERY - 0.001:
            log.warning(
                "end of the streamed list not seen yet resource=%s no_event_for=%.0f waiting_for=%.0f",
                self._what,
                now - self._last,
                now - self._began,
            )
