"""Groups of things that run until they are cancelled: started together, ready together, stopped together.

In: runnables, before or after their group has started. Out: tasks that the group owns, and one call of
``failed`` for each that ends in an error. A runnable that returns has done its work, which is no error; one that
is cancelled by anybody but the group would be a silent loss, and is. Nothing starts in a group that has been
stopped, even if it was never started. The order of the groups is the manager's. Semantics: controller-runtime's
runnable groups.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from manager.errors import ManagerError

Runnable = Callable[[], Coroutine[Any, Any, None]]
Ready = Callable[[], Coroutine[Any, Any, bool | None]]
"""Returns once the runnable is ready; raising, or returning False, says that it will not be."""


class Group(StrEnum):
    """When a runnable starts, in this order. It stops in the order of ``lifecycle.STOP_ORDER``."""

    HTTP_SERVERS = "HTTPServers"
    WEBHOOKS = "Webhooks"
    CACHES = "Caches"
    OTHERS = "Others"
    WARMUP = "Warmup"
    LEADER_ELECTION = "LeaderElection"


@dataclass(frozen=True, slots=True)
class Entry:
    """One runnable. ``ready`` holds up the start of the next group; None: ready at once."""

    name: str
    run: Runnable
    ready: Ready | None = None


class RunnableGroup:
    """See the module.

    Args:
        failed: called once per failure, in the event loop, with what to report.
    """

    def __init__(self, name: str, failed: Callable[[BaseException], None]) -> None:
        self.name = name
        self._failed = failed
        self._waiting: list[Entry] = []
        self._tasks: set[asyncio.Task[Any]] = set()
        self._started = False
        self._stopped = False
        self._context = contextvars.copy_context()

    def __repr__(self) -> str:
        state = "stopped" if self._stopped else "started" if self._started else "waiting"
        return f"<RunnableGroup {self.name} {state} waiting={len(self._waiting)} running={len(self._tasks)}>"

    @property
    def busy(self) -> bool:
        """Whether anything of it runs; may be asked from any thread."""
        return bool(self._tasks)

    @property
    def running(self) -> list[str]:
        """The names of what runs."""
        return sorted(task.get_name() for task in self._tasks)

    def add(self, entry: Entry) -> None:
        """Have it run with the group, or at once if the group has started.

        Raises:
            ManagerError: the group has been stopped.
        """
        if self._stopped:
            raise ManagerError(f"{entry.name} cannot be added: the manager stops")
        if not self._started:
            self._waiting.append(entry)
            return
        self._spawn(entry.name, entry.run())
        if entry.ready is not None:
            self._spawn(f"{entry.name}-ready", _readiness(entry.name, entry.ready))

    async def start(self) -> None:
        """Start all that is waiting and return when all of it is ready.

        Raises:
            ManagerError: the group was started or stopped before, or something said that it will not be ready.
            Exception: what a ready check raised.
        """
        if self._started or self._stopped:
            raise ManagerError(f"the group {self.name} cannot start now: {self!r}")
        self._started = True
        self._context = (
            contextvars.copy_context()
        )  # what is added later belongs to the manager too, not to who adds
        waiting, self._waiting = self._waiting, []
        for entry in waiting:
            self._spawn(entry.name, entry.run())
        checks = [(entry.name, entry.ready) for entry in waiting if entry.ready is not None]
        if not checks:
            return
        try:
            async with asyncio.TaskGroup() as group:
                for name, ready in checks:
                    group.create_task(_readiness(name, ready), name=f"{name}-ready")
        except BaseExceptionGroup as failures:
            raise only(failures) from failures

    def cancel(self) -> None:
        """Let nothing start any more, and ask what runs to end."""
        self._stopped = True
        self._waiting.clear()
        for task in list(self._tasks):
            task.cancel()

    async def stop(self) -> None:
        """Cancel, and wait until all has ended, however long that takes."""
        self.cancel()
        while self._tasks:
            await asyncio.wait(set(self._tasks))

    def _spawn(self, name: str, work: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.get_running_loop().create_task(work, name=name, context=self._context.copy())
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            if not self._stopped:
                self._failed(ManagerError(f"{task.get_name()} was cancelled from outside"))
            return
        error = task.exception()
        if error is not None:
            self._failed(only(error))


async def _readiness(name: str, ready: Ready) -> None:
    if await ready() is False:
        raise ManagerError(f"{name} did not become ready")


def only(error: BaseException) -> BaseException:
    """The error in a group of one: groups are how tasks report, not what a caller wants to catch. A group of
    several stays what it is."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error
