"""What handlers of an informer hear, and one handler's stream of it.

In: batches of events, in the informer's order. Out: calls of the handler, one event at a time, in that order. The
stream is unbounded: a slow handler delays nobody but itself. A batch wakes the handler's task once. A handler is a
function or a coroutine function; one that raises misses that event, and the next follows at once. The end of the
initial list travels in the stream itself, so that "synced" can only mean "dealt with, not merely delivered".
Semantics: client-go's processorListener and single-file tracker.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from manager.errors import InformerStopped, ManagerError
from manager.types import Obj

log = logging.getLogger("kaito.manager.informer")

# Events are not frozen: one is made per change, and a frozen one costs 2.5 times as much to make.
_SLICE = 100  # events that one handler gets before the rest of the process has its turn


@dataclass(slots=True)
class Added:
    """An object that was not there before. ``initial``: it is part of the handler's first picture."""

    obj: Obj
    initial: bool = False


@dataclass(slots=True)
class Updated:
    """An object that changed. Equal resource versions mean a resync, or that a new list found it as it was; the
    uids differ when it was deleted and created anew while nobody watched."""

    old: Obj
    new: Obj


@dataclass(slots=True)
class Deleted:
    """An object that is gone. ``stale``: its deletion was not seen, and ``obj`` is the last known state."""

    obj: Obj
    stale: bool = False


Event = Added | Updated | Deleted
EventHandler = Callable[[Event], None]
AsyncEventHandler = Callable[[Event], Awaitable[None]]


class Registration:
    """One handler's stream; made by ``Informer.add_handler``.

    Args:
        resync_period: seconds between the resyncs of this handler; 0: never. The informer's to see to.
    """

    def __init__(self, handler: EventHandler | AsyncEventHandler, name: str, resync_period: float = 0.0) -> None:
        self.resync_period = resync_period
        self.next_resync = 0.0  # time of the loop
        self._handler: Callable[[Event], object] = handler
        self._name = name
        self._stream: list[Event | None] = []  # None marks the end of the initial list
        self._sent = 0
        self._done = 0
        self._wake: asyncio.Future[None] | None = None
        self._task: asyncio.Task[None] | None = None
        self._synced = False
        self._over = False  # no further event will be delivered
        self._settled = asyncio.Event()  # synced or over
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []  # who waits for which event to be dealt with
        self._ended = asyncio.Event()

    def __repr__(self) -> str:
        return f"<Registration {self._name} synced={self.has_synced} queued={self.backlog}>"

    @property
    def name(self) -> str:
        """Of the informer's resource."""
        return self._name

    @property
    def has_synced(self) -> bool:
        """Whether the initial list has been processed, not merely delivered."""
        return self._synced

    @property
    def backlog(self) -> int:
        """Events that the handler has not dealt with, the one that it is busy with included."""
        return 0 if self._over else self._sent - self._done

    async def wait_synced(self) -> None:
        """Wait for :attr:`has_synced`.

        Raises:
            InformerStopped: the handler was removed, or its informer ended, before.
        """
        await self._settled.wait()
        if not self._synced:
            raise InformerStopped(f"a handler of {self._name} ended before it had dealt with its initial list")

    async def wait_dealt_with(self) -> None:
        """Wait until the handler has dealt with everything that is in its stream now."""
        if not self.backlog or asyncio.current_task() is self._task:
            return  # from within a handler: it would wait for itself
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((self._sent, future))
        await future

    # ------------------------------------------------------------------ the informer's

    def send(self, event: Event | None) -> None:
        """Append one event, or the end of the initial list, to the stream."""
        self.extend((event,))

    def extend(self, events: Sequence[Event | None]) -> None:
        """Append a batch to the stream."""
        if self._over:
            return
        self._stream += events
        self._sent += len(events)
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    async def run(self) -> None:
        """Deliver until removed or cancelled."""
        self._task = asyncio.current_task()
        loop = asyncio.get_running_loop()
        try:
            while not self._over:
                if not self._stream:
                    self._wake = loop.create_future()
                    await self._wake
                    continue
                batch, self._stream = self._stream, []
                await self._deliver(batch)
        finally:
            self.remove()
            self._ended.set()

    def remove(self) -> None:
        """Deliver nothing more; a call of the handler that has begun goes on."""
        if self._over:
            return
        self._over = True
        self._stream = []
        self._settled.set()
        self._tell()
        if self._task is None:
            self._ended.set()
        elif self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    async def wait_ended(self) -> None:
        """Until no call of the handler runs any more.

        Raises:
            ManagerError: called from within the handler, which would wait for itself.
        """
        if asyncio.current_task() is self._task:
            raise ManagerError(f"a handler of {self._name} cannot wait for its own end")
        await self._ended.wait()

    async def _deliver(self, batch: list[Event | None]) -> None:
        handler = self._handler
        for number, event in enumerate(batch, 1):
            if event is None:
                self._synced = True
                self._settled.set()
            else:
                try:
                    answer = handler(event)
                    if answer is not None and inspect.isawaitable(answer):
                        await answer
                except Exception:
                    log.exception("event handler failed, event skipped informer=%s", self._name)
            self._done += 1
            if self._waiting:
                self._tell()
            if number % _SLICE == 0:
                await asyncio.sleep(0)
            if self._over:
                return

    def _tell(self) -> None:
        left: list[tuple[int, asyncio.Future[None]]] = []
        for position, future in self._waiting:
            if future.done():
                continue  # its waiter was cancelled
            if self._over or self._done >= position:
                future.set_result(None)
            else:
                left.append((position, future))
        self._waiting = left
