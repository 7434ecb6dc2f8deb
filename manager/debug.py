"""Whether misuse is looked for: a mutated cache object, a blocked event loop, a read before sync, a leaked task.

The checks cost time and memory, so they are off in production and on in our tests. They never change what correct
code does; they only make wrong code fail where the mistake is.

:class:`TaskWatch` is the check for leaked tasks: it knows every task that was created, directly or through others,
within its block, because a task inherits the context of its creator. Loops of several watches keep one factory.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
import weakref
from collections.abc import Coroutine
from typing import Any, Self, cast

ENV = "MANAGER_DEBUG"
"""Set to anything but ``0`` or nothing to turn the checks on."""

_GRACE_SECONDS = 0.1
_watch: contextvars.ContextVar[TaskWatch | None] = contextvars.ContextVar("task_watch", default=None)


def enabled() -> bool:
    """Whether this process looks for misuse; asked when a manager or a cache is made, not on hot paths."""
    return os.environ.get(ENV, "") not in ("", "0")


class TaskWatch:
    """A context manager; tasks that begin inside and do not end are told by :meth:`left`."""

    def __init__(self) -> None:
        self._tasks: weakref.WeakSet[asyncio.Task[Any]] = weakref.WeakSet()
        self._token: contextvars.Token[TaskWatch | None] | None = None

    def __enter__(self) -> Self:
        loop = asyncio.get_running_loop()
        if not isinstance(loop.get_task_factory(), _Factory):
            loop.set_task_factory(cast(Any, _Factory(loop.get_task_factory())))
        self._token = _watch.set(self)
        return self

    def __exit__(self, *_: object) -> None:
        if self._token is not None:
            _watch.reset(self._token)

    async def left(self) -> list[str]:
        """The names of the tasks that are still there, after a moment for those that are about to end."""
        alive = self._alive()
        if alive:
            await asyncio.wait(alive, timeout=_GRACE_SECONDS)
        return sorted(task.get_name() for task in self._alive())

    def _alive(self) -> list[asyncio.Task[Any]]:
        current = asyncio.current_task()
        return [task for task in self._tasks if not task.done() and task is not current]

    def add(self, task: asyncio.Task[Any]) -> None:
        """Watch this task too."""
        self._tasks.add(task)


class _Factory:
    """A task factory that tells the watch of the creating context; otherwise the loop's previous one."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __call__(
        self, loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, Any], **options: Any
    ) -> asyncio.Future[Any]:
        task = self._inner(loop, work, **options) if self._inner else asyncio.Task(work, loop=loop, **options)
        context: contextvars.Context | None = options.get("context")
        watch = _watch.get() if context is None else context.get(_watch)
        if watch is not None and isinstance(task, asyncio.Task):
            watch.add(task)
        return task
