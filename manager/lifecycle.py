"""One life of a manager: its groups, the order in which they stop, the time that takes, and what went wrong.

In: what to do to start, and to resign from leadership once the groups have ended. Out: :meth:`Lifecycle.run`,
which returns when all is over, and :meth:`Lifecycle.outcome`, which raises. The first failure begins the stop;
it and all that goes wrong later are kept, being cancelled is not among it. Nothing starts once the stop has
begun. What has not ended when the time is up is told to end once more, and is left. Semantics:
controller-runtime's manager.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Self

from manager.errors import ManagerError
from manager.runnables import Group, RunnableGroup, only

log = logging.getLogger("kaito.manager.manager")

STOP_ORDER = (Group.OTHERS, Group.LEADER_ELECTION, Group.CACHES, Group.WEBHOOKS, Group.HTTP_SERVERS)
"""One after the other; ``Warmup`` stops beside them."""

_LAST_WORDS_SECONDS = 5.0


class RunFailed(ManagerError, ExceptionGroup[Exception]):
    """Several things went wrong: what ended the run comes first, then what went wrong while stopping."""

    def __new__(cls, errors: Sequence[Exception]) -> Self:
        """``message`` has the words of all of them."""
        return super().__new__(cls, "; then ".join(str(error) or repr(error) for error in errors), errors)

    def __init__(self, errors: Sequence[Exception]) -> None:
        super().__init__(self.message, errors)

    def __str__(self) -> str:
        return self.message

    def derive(self, excs: Sequence[Exception]) -> RunFailed:  # type: ignore[override]
        """See ``ExceptionGroup``."""
        return RunFailed(excs)


class Lifecycle:
    """See the module.

    Attributes:
        groups: what starts and stops, by group.
        last: runs until all groups have ended: the recorders of events, the watch of the lease.
        state: ``new``, ``starting``, ``running`` (set by who starts), ``stopping``, ``stopped``.
    """

    def __init__(self, graceful_timeout: float) -> None:
        self._graceful = graceful_timeout
        self._hurry = asyncio.Event()
        self._failures: list[BaseException] = []
        self._failed = asyncio.Event()
        self.groups = {group: RunnableGroup(group, self.fail) for group in Group}
        self.last = RunnableGroup("Last", self.fail)
        self.state = "new"

    @property
    def busy(self) -> bool:
        """Whether anything of the groups runs."""
        return any(group.busy for group in self.groups.values())

    def fail(self, error: BaseException) -> None:
        """Something went wrong: stop, and report it."""
        if self.state == "stopped":
            log.error("runnable failed after the stop error=%r", error)
            return
        self._failures.append(error)
        self._failed.set()

    def hurry(self) -> None:
        """No grace, from now on."""
        self._graceful = 0.0
        self._hurry.set()

    async def run(
        self,
        stop: asyncio.Event,
        *,
        start: Callable[[], Coroutine[Any, Any, None]],
        resign: Callable[[], Awaitable[None]],
    ) -> None:
        """Start, run until ``stop`` is set or something fails, stop.

        Raises: CancelledError: the caller was cancelled; the stop has been done all the same, and a second
            cancellation has taken its grace.
        """
        self.state = "starting"
        starting = asyncio.create_task(start(), name="manager-start")
        starting.add_done_callback(self._start_ended)
        ends = [
            asyncio.create_task(stop.wait(), name="manager-stop-wanted"),
            asyncio.create_task(self._failed.wait(), name="manager-failed"),
        ]
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            for failure in self._failures:
                log.error("manager cancelled, and failed error=%r", failure)
            raise
        finally:
            self.state = "stopping"
            starting.cancel()  # before anything is awaited: nothing may start from here on
            for end in ends:
                end.cancel()
            try:
                await self._stop(starting, resign)
            finally:
                self.state = "stopped"

    def outcome(self) -> None:
        """Raise what went wrong: the one failure itself, several as :class:`RunFailed`."""
        others = [failure for failure in self._failures if not isinstance(failure, Exception)]
        for failure in others or (self._failures if len(self._failures) == 1 else ()):
            raise failure
        if self._failures:
            raise RunFailed([f for f in self._failures if isinstance(f, Exception)])

    def report(self, error: Exception) -> None:
        """One more failure, found when all is over."""
        self._failures.append(error)

    def _start_ended(self, starting: asyncio.Task[None]) -> None:
        if not starting.cancelled() and (error := starting.exception()) is not None:
            self.fail(only(error))

    # ------------------------------------------------------------------ the end

    async def _stop(self, starting: asyncio.Task[None], resign: Callable[[], Awaitable[None]]) -> None:
        in_order = asyncio.create_task(self._stop_in_order(starting), name="manager-stop")
        hurry = asyncio.create_task(self._hurry.wait(), name="manager-hurry")
        grace = None if self._graceful < 0 else self._graceful
        impatient: asyncio.CancelledError | None = None
        try:
            if grace != 0:
                await asyncio.wait({in_order, hurry}, timeout=grace, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError as error:  # once more: no grace, but the lease is not left behind
            self._graceful, impatient = 0.0, error
        hurry.cancel()
        if not in_order.done():
            self._give_up(in_order)
            await asyncio.sleep(0)  # what obeys at once is not left behind
            await asyncio.sleep(0)
        await resign()
        last = asyncio.create_task(self.last.stop(), name="stop-Last")
        await asyncio.wait({last}, timeout=_LAST_WORDS_SECONDS)
        if impatient is not None:
            raise impatient

    async def _stop_in_order(self, starting: asyncio.Task[None]) -> None:
        await asyncio.wait({starting})
        async with asyncio.TaskGroup() as stopping:
            stopping.create_task(self.groups[Group.WARMUP].stop(), name="stop-Warmup")
            for group in STOP_ORDER:
                await self.groups[group].stop()

    def _give_up(self, in_order: asyncio.Task[None]) -> None:
        """Time is up: everything is told to end at once, and nothing is waited for."""
        running = [name for group in self.groups.values() for name in group.running]
        if self._graceful > 0:
            self._failures.append(
                ManagerError(f"did not stop within {self._graceful:g} s; still running: {', '.join(running)}")
            )
        in_order.cancel()
        for group in self.groups.values():
            group.cancel()
