"""One controller: keys come out of its queue, a reconciler looks at each, and the outcome decides what is next.

Informers' events go into the queue (``handlers``); a fixed number of workers take keys out. Outcomes, as
controller-runtime has them:

======================  =========================================  ================
the reconciler          next                                       result label
======================  =========================================  ================
raises                  again, after the key's back-off            error
raises TerminalError    nothing, until an event comes              error
asks ``requeue_after``  back-off reset, again after that time      requeue_after
returns                 back-off reset                             success
======================  =========================================  ================

A conflict is not worth an error in the log: the next look at fresher data settles it. Every exception counts as
one; what a Go controller calls a panic is an exception here that is not of ``manager``'s own tree.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import uuid
from collections.abc import Callable
from typing import Protocol

from manager.cache import CacheNotSynced
from manager.controller_metrics import ControllerMetrics
from manager.errors import Conflict, ManagerError, TerminalError
from manager.informer import Registration
from manager.queue import PriorityQueue, QueueShutDown
from manager.types import Request, Result

log = logging.getLogger("kaito.manager.controller")

SYNC_SECONDS = 120.0
reconcile_id: contextvars.ContextVar[str] = contextvars.ContextVar("reconcile_id", default="")
"""The id of the reconcile that runs in this context, for logs."""


class Reconciler(Protocol):
    """What an operator's author writes."""

    async def reconcile(self, request: Request) -> Result:
        """Look at the world behind one key and move it one step nearer to what it should be. Must not wait."""
        ...


class Controller:
    """See the module. Made by ``ControllerBuilder``.

    Args:
        name: unique in the process; labels metrics and logs.
        reconciler: called for each key, never twice at once for the same key.
        start: registers the handlers with their informers and gives the registrations to wait for.
        max_concurrent: workers.
        reconcile_timeout: seconds after which a reconcile is cancelled and counts as an error; None: never.
    """

    def __init__(
        self,
        name: str,
        reconciler: Reconciler,
        start: Callable[[PriorityQueue[Request]], list[Registration]],
        metrics: ControllerMetrics,
        *,
        max_concurrent: int = 1,
        reconcile_timeout: float | None = None,
    ) -> None:
        self.name = name
        self._reconciler = reconciler
        self._start = start
        self._metrics = metrics
        self._max_concurrent = max_concurrent
        self._timeout = reconcile_timeout
        self.queue: PriorityQueue[Request] | None = None

    def __repr__(self) -> str:
        return f"<Controller {self.name} {self.queue!r}>"

    async def run(self) -> None:
        """Sync, then work until cancelled; running reconciles are cancelled and awaited, queued keys are dropped.

        Raises:
            ManagerError: it was started before.
            CacheNotSynced: the initial lists did not come within two minutes.
        """
        if self.queue is not None:
            raise ManagerError(f"controller {self.name} was started before")
        self.queue = PriorityQueue(observer=self._metrics.queue)
        self._metrics.watch(self.queue, self._max_concurrent)
        registrations = self._start(self.queue)
        try:
            async with asyncio.timeout(SYNC_SECONDS):
                for registration in registrations:
                    await registration.wait_synced()
        except TimeoutError:
            missing = ", ".join(sorted(repr(r) for r in registrations if not r.has_synced))
            raise CacheNotSynced(f"controller {self.name} waited {SYNC_SECONDS:.0f} s for {missing}") from None
        log.info("controller started controller=%s workers=%d", self.name, self._max_concurrent)
        try:
            async with asyncio.TaskGroup() as group:
                for number in range(self._max_concurrent):
                    group.create_task(self._work(self.queue), name=f"worker-{self.name}-{number}")
        finally:
            self.queue.shut_down()

    async def _work(self, queue: PriorityQueue[Request]) -> None:
        while True:
            try:
                request, priority = await queue.get()
            except QueueShutDown:
                return
            try:
                with self._metrics.active():
                    await self._reconcile(queue, request, priority)
            finally:
                queue.done(request)

    async def _reconcile(self, queue: PriorityQueue[Request], request: Request, priority: int) -> None:
        reconcile_id.set(uuid.uuid4().hex)
        deadline = asyncio.timeout(self._timeout)
        try:
            with self._metrics.timed():
                async with deadline:
                    result = await self._reconciler.reconcile(request)
            after, wanted = result.requeue_after, result.priority  # a reconciler that returned None fails here
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise  # this worker is being stopped
            # The reconciler waited for something that somebody else cancelled. To a task group the worker would
            # look as if it had been stopped, and the controller would be dead without a word.
            self._failed(queue, request, priority, error, timeout=False)
        except Exception as error:
            timeout = isinstance(error, TimeoutError) and deadline.expired()
            self._failed(queue, request, priority, error, timeout=timeout)
        else:
            queue.forget(request)
            if after is not None and after >= 0:
                self._metrics.outcome("requeue_after")
                queue.add(request, after=after, priority=priority if wanted is None else wanted)
            else:
                self._metrics.outcome("success")

    def _failed(
        self,
        queue: PriorityQueue[Request],
        request: Request,
        priority: int,
        error: BaseException,
        *,
        timeout: bool,
    ) -> None:
        causes = _leaves(error)
        terminal = all(isinstance(cause, TerminalError) for cause in causes)
        panic = not timeout and not all(isinstance(cause, ManagerError) for cause in causes)
        self._metrics.outcome("error", terminal=terminal, panic=panic, timeout=timeout)
        if terminal:
            log.error("reconcile failed for good controller=%s request=%s error=%s", self.name, request, error)
            return
        queue.add(request, rate_limited=True, priority=priority)
        failures = queue.failures(request)
        words = "controller=%s request=%s failures=%d error=%s"
        if all(isinstance(cause, Conflict) for cause in causes):
            log.debug("reconcile met a conflict, trying again " + words, self.name, request, failures, error)
        elif timeout:
            log.warning("reconcile over its deadline, trying again " + words, self.name, request, failures, error)
        elif not panic:
            log.warning("reconcile failed, trying again " + words, self.name, request, failures, error)
        else:
            log.error(
                "reconcile raised, trying again " + words, self.name, request, failures, error, exc_info=error
            )


def _leaves(error: BaseException) -> list[BaseException]:
    """What failed: the members of an exception group, which is how a reconciler's own task groups report."""
    if isinstance(error, BaseExceptionGroup):
        return [leaf for member in error.exceptions for leaf in _leaves(member)]
    return [error]
