"""Watch: the changes of one resource as a stream of events.

In: a start revision and selectors, and every commit. Out: an async iterator of events (type and object at the
request's version), in order, without gaps or repeats: what was before the start comes from the history, the
rest from a subscription taken in the same step. An object that stops matching is a DELETED to this watcher,
one that begins to match an ADDED. A watcher that falls too far behind is cut off, and starts again from its
last revision; it never holds up a writer.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from kaito.local.apiserver.conversion import from_storage
from kaito.local.apiserver.errors import StatusError, expired
from kaito.local.apiserver.registry import ResourceType
from kaito.local.apiserver.selection import Selection
from kaito.local.apiserver.storage import Change, Compacted, Record, Storage
from manager.types import Obj

__all__ = ["Event", "Watch"]

_MAX_PENDING = 50_000  # events that wait for one slow reader
INITIAL_EVENTS_END = "k8s.io/initial-events-end"

Prepare = Callable[[ResourceType, Iterable[Record]], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Event:
    """One event; ``raw`` is the object's JSON where it can be sent as stored."""

    type: str
    obj: Obj
    raw: bytes | None = None


class Watch:
    """One watch request. Use as a context manager; iterate :meth:`events`."""

    def __init__(
        self,
        storage: Storage,
        resource: ResourceType,
        namespace: str | None,
        selection: Selection,
        *,
        revision: int | None,
        bookmark_every: float,
        bookmarks: bool,
        initial_end: bool,
        deadline: float,
        stop: asyncio.Event,
        prepare: Prepare,
    ) -> None:
        """Prepare a watch.

        Args:
            revision: events after this one; None starts with every present object as ADDED.
            bookmark_every: seconds between bookmarks.
            bookmarks: the client wants them.
            initial_end: mark the end of the present objects with an annotated bookmark.
            deadline: loop time at which the watch ends normally.
            stop: set when the server stops; ends the watch at once.
            prepare: awaited before changes are shown: has their objects converted, where that needs asking.
        """
        self._storage = storage
        self._resource = resource
        self._namespace = namespace
        self._selection = selection
        self._revision = revision
        self._bookmark_every = bookmark_every
        self._bookmarks = bookmarks
        self._initial_end = initial_end
        self._deadline = deadline
        self._stop = stop
        self._prepare = prepare
        self._pending: deque[Change] = deque()
        self._wake = asyncio.Event()
        self._overflow = False
        self._unsubscribe: Callable[[], None] | None = None

    def __enter__(self) -> Self:
        self._unsubscribe = self._storage.subscribe(self._resource.storage_key, self._take)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        if self._unsubscribe is not None:
            self._unsubscribe()

    def wake(self) -> None:
        """Look at the stop event now."""
        self._wake.set()

    def _take(self, change: Change) -> None:
        if self._namespace is not None and change.record.namespace != self._namespace:
            return
        if len(self._pending) >= _MAX_PENDING:
            self._overflow = True
            self._pending.clear()
        if not self._overflow:
            self._pending.append(change)
        self._wake.set()

    def start(self) -> list[Event]:
        """The events that are due at once; call inside the context, before :meth:`events`.

        Raises:
            StatusError: 410, the history is gone, or was never here.
        """
        # No await between the snapshot and the subscription's first event: both are taken by one caller step.
        self._pending.clear()
        if self._revision is None:
            present = [
                event
                for record in self._storage.all(self._resource.storage_key, self._namespace)
                if (event := self._event("ADDED", record)) is not None and self._selection.matches(event.obj)
            ]
            if self._initial_end:
                present.append(self._bookmark({INITIAL_EVENTS_END: "true"}))
            return present
        current = self._storage.revision
        if self._revision > current:
            # Only a client of another (removed) database can know such a revision: make it list again.
            raise expired(f"too old resource version: {self._revision} (the server is at {current})")
        try:
            changes = self._storage.changes(self._resource.storage_key, self._revision)
        except Compacted as error:
            raise expired(f"too old resource version: {error}") from None
        if self._namespace is not None:
            changes = [change for change in changes if change.record.namespace == self._namespace]
        events = list(self._translate(changes))
        if self._initial_end:
            events.append(self._bookmark({INITIAL_EVENTS_END: "true"}))
        return events

    async def events(self) -> AsyncIterator[list[Event]]:
        """Batches of events until the deadline, the server's stop, or an overflow."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        next_bookmark = now + self._bookmark_every
        while not self._overflow:
            self._wake.clear()
            if self._pending:
                changes = list(self._pending)
                self._pending.clear()
                if self._resource.table is not None:
                    involved = [record for one in changes for record in (one.record, one.previous) if record]
                    await self._prepare(self._resource, involved)
                batch = list(self._translate(changes))
                if batch:
                    yield batch
                continue
            now = max(now, loop.time())
            if self._stop.is_set() or now >= self._deadline:
                if self._bookmarks:
                    yield [self._bookmark()]
                return
            if self._bookmarks and now >= next_bookmark:
                next_bookmark = now + self._bookmark_every
                yield [self._bookmark()]
                continue
            until = min(self._deadline, next_bookmark) if self._bookmarks else self._deadline
            try:
                async with asyncio.timeout_at(until):
                    await self._wake.wait()
            except TimeoutError:
                # A timer may be early by the clock's resolution: asking the clock again would wait for nothing,
                # over and over, and for ever where the clock stands still meanwhile.
                now = until

    def _translate(self, changes: Iterable[Change]) -> Iterable[Event]:
        for change in changes:
            kind = change.type
            if self._selection:
                new = kind != "DELETED" and self._selection.matches(self._view(change.record.obj))
                old = change.previous is not None and self._selection.matches(self._view(change.previous.obj))
                if not new and not old:
                    continue
                kind = "MODIFIED" if new and old else "ADDED" if new else "DELETED"
            event = self._event(kind, change.record)
            if event is not None:
                yield event

    def _view(self, obj: Obj) -> Obj:
        return from_storage(self._resource, obj)

    def _event(self, kind: str, record: Record) -> Event:
        if self._resource.is_storage_version:
            return Event(kind, record.obj, record.raw)
        return Event(kind, self._view(record.obj))

    def _bookmark(self, annotations: dict[str, str] | None = None) -> Event:
        meta: Obj = {"resourceVersion": str(self._storage.revision), "creationTimestamp": None}
        if annotations:
            meta["annotations"] = annotations
        obj: Obj = {"kind": self._resource.kind, "apiVersion": self._resource.api_version, "metadata": meta}
        return Event("BOOKMARK", obj)


def error_event(error: StatusError) -> Event:
    """A failure inside a stream whose HTTP status has been sent."""
    return Event("ERROR", error.body())
