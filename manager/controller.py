"""One controller: keys come out of its queue, a reconciler looks at each, and the outcome decides what is next.

Sources put keys into the queue; a fixed number of workers take them out, once every source's handler has dealt
with its initial list. Outcomes, as controller-runtime has them:

=========================  =========================================  ================
the reconciler             next                                       result label
=========================  =========================================  ================
raises, or gives an error  again, after the key's back-off            error
the same, TerminalError    nothing, until an event comes              error
asks ``requeue_after``     back-off reset, again after that time      requeue_after
asks ``requeue``           again, after the key's back-off            requeue
returns                    back-off reset                             success
=========================  =========================================  ================

A conflict is not worth an error in the log: the next look at fresher data settles it. Every exception counts as
an error; what a Go controller calls a panic is an exception here that is not of ``manager``'s own tree. The
controller owns its queue and its workers. It never reconciles one key twice at once, and nothing before its
sources are synced.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol
from weakref import WeakValueDictionary

from manager.cache import CacheNotSynced
from manager.controller_metrics import ControllerMetrics
from manager.errors import Conflict, ManagerError, TerminalError
from manager.queue import PriorityQueue, QueueShutDown
from manager.ratelimit import ItemExponential, RateLimiter
from manager.reconcile_log import controller_fields, log_fields, reconcile_id, request_in_work
from manager.sources import Source
from manager.types import Request, Resource, Result

log = logging.getLogger("kaito.manager.controller")

_TURN = 0.01  # seconds that a worker whose reconciles never wait may keep the event loop


class Reconciler(Protocol):
    """What an operator's author writes."""

    async def reconcile(self, request: Request) -> Result:
        """Look at the world behind one key and move it one step nearer to what it should be. Must not wait."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ControllerDefaults:
    """How controllers work, unless one of them says otherwise.

    Attributes:
        max_concurrent: workers.
        group_kind_concurrency: workers by ``Kind.group`` (``Kind`` for the core group) of the reconciled kind.
        cache_sync_timeout: seconds that all sources together have to start and to sync.
        recover_panic: whether an unexpected exception is an error like any other; else it ends the controller.
        needs_leader: run only while this process leads.
        warmup: start sources and queue before leadership, so that a new leader has hot caches.
        reconcile_timeout: seconds after which a reconcile is cancelled and counts as an error; None or 0: never.
        rate_limiter: makes the rate limiter of one controller's queue.
        skip_name_validation: allow names that another controller of this process has.
    """

    max_concurrent: int = 1
    group_kind_concurrency: Mapping[str, int] = field(default_factory=dict)
    cache_sync_timeout: float = 120.0
    recover_panic: bool = True
    needs_leader: bool = True
    warmup: bool = False
    reconcile_timeout: float | None = None
    rate_limiter: Callable[[], RateLimiter[Request]] = ItemExponential
    skip_name_validation: bool = False


class Controller:
    """See the module. Made by ``ControllerBuilder``.

    Args:
        name: unique in the process; labels metrics and logs.
        reconciler: called for each key, never twice at once for the same key.
        sources: what puts keys into the queue; see also :meth:`watch`.
        metrics: where it counts.
        options: how it works.
        resource: the reconciled kind, for logs.
        abandoned: whether nobody will run it any more, because its manager has ended; its name is free then.
        rng: makes the ids of reconciles.

    Raises:
        ManagerError: another controller of this process has the name, or there would be no worker.
    """

    def __init__(
        self,
        name: str,
        reconciler: Reconciler,
        sources: Iterable[Source] = (),
        *,
        metrics: ControllerMetrics,
        options: ControllerDefaults | None = None,
        resource: Resource | None = None,
        abandoned: Callable[[], bool] = lambda: False,
        rng: random.Random | None = None,
    ) -> None:
        self.name = name
        self._options = options = options or ControllerDefaults()
        if options.max_concurrent < 1:
            raise ManagerError(f"controller {name}: max_concurrent is {options.max_concurrent}; it needs a worker")
        self._abandoned = abandoned
        if not options.skip_name_validation:
            _claim_name(self)
        self.queue: PriorityQueue[Request] = PriorityQueue(rate_limiter=options.rate_limiter())
        self._reconciler = reconciler
        self._sources = [*sources]
        self._metrics = metrics
        self._timeout = options.reconcile_timeout or None
        group, kind = (resource.group, resource.kind) if resource else ("", "")
        self._fields = f"controller={name} controllerGroup={group} controllerKind={kind}"
        self._rng = rng or random.Random()  # noqa: S311 - ids tell runs apart, they guard nothing
        self._sources_start = asyncio.Lock()
        self._sources_state = "new"
        self._ran = False
        metrics.watch(self.queue, options.max_concurrent)

    def __repr__(self) -> str:
        return f"<Controller {self.name} sources={len(self._sources)} {self._sources_state} {self.queue!r}>"

    # ------------------------------------------------------------------ sources

    async def watch(self, source: Source) -> None:
        """One more source. Before the start it is only noted; afterwards it is started at once, and waited for.

        Raises:
            CacheNotSynced: it did not start and sync in time.
        """
        self._sources.append(source)
        if self._sources_state != "new":
            await self._bring_up([source])

    async def warmup(self) -> None:
        """Start the sources and wait until they are synced, without working on anything; once, whoever asks first.

        Raises:
            CacheNotSynced: they did not start and sync in time.
        """
        async with self._sources_start:
            if self._sources_state == "new":
                self._sources_state = "starting"
                await self._bring_up(self._sources)
                self._sources_state = "synced"
            elif self._sources_state == "starting":
                raise ManagerError(f"controller {self.name}: its sources were started before, without success")

    async def _bring_up(self, sources: Iterable[Source]) -> None:
        missing = dict(enumerate(sources))

        async def bring_up(number: int, source: Source) -> None:
            await source.start(self.queue)
            await source.wait_synced()
            del missing[number]

        limit = self._options.cache_sync_timeout
        try:
            async with asyncio.timeout(limit), asyncio.TaskGroup() as group:
                for number, source in [*missing.items()]:
                    group.create_task(bring_up(number, source), name=f"source-{self.name}-{number}")
        except TimeoutError:
            raise CacheNotSynced(
                f"controller {self.name} waited {limit:g} s for {', '.join(map(str, missing.values()))}; "
                "is each kind served (is its CRD installed?), and may this account list and watch it?"
            ) from None
        except BaseExceptionGroup as failures:
            raise _leaves(failures)[0] from failures

    # ------------------------------------------------------------------ work

    async def run(self) -> None:
        """Sync, then work until cancelled; running reconciles are cancelled and awaited, queued keys are dropped.

        Raises:
            ManagerError: it was started before.
            CacheNotSynced: the sources did not start and sync in time.
            Exception: what a reconciler raised, where panics are not recovered.
        """
        if self._ran:
            raise ManagerError(f"controller {self.name} was started before")
        self._ran = True
        try:
            await self.warmup()
            log.info("controller started %s workers=%d", self._fields, self._options.max_concurrent)
            async with asyncio.TaskGroup() as group:
                for number in range(self._options.max_concurrent):
                    group.create_task(self._work(), name=f"worker-{self.name}-{number}")
        except BaseExceptionGroup as failures:
            raise _leaves(failures)[0] from failures
        finally:
            self.queue.shut_down()
            _release_name(self)

    async def _work(self) -> None:
        queue, metrics, time = self.queue, self._metrics, asyncio.get_running_loop().time
        controller_fields.set(self._fields)
        turn = time()
        while True:
            try:
                request, priority = await queue.get()
            except QueueShutDown:
                return
            metrics.active += 1
            began = time()
            try:
                await self._reconcile(request, priority)
            finally:
                ended = time()
                queue.done(request)
                metrics.active -= 1
                metrics.seconds.observe(ended - began)
            if ended - turn > _TURN:
                await asyncio.sleep(0)  # neither get() nor reconcile() lets others run unless it has to wait
                turn = ended

    async def _reconcile(self, request: Request, priority: int) -> None:
        reconcile_id.set(self._new_id())
        request_in_work.set(request)
        deadline: asyncio.Timeout | None = None
        result: Result | None = None
        error: BaseException | None
        try:
            if self._timeout is None:
                result = await self._reconciler.reconcile(request)
            else:
                deadline = asyncio.timeout(self._timeout)
                async with deadline:
                    result = await self._reconciler.reconcile(request)
            if not isinstance(result, Result):
                raise TypeError(f"the reconciler returned {result!r} where a Result is due")  # noqa: TRY301
            error = result.error
        except asyncio.CancelledError as cancelled:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise  # this worker is being stopped
            # The reconciler waited for something that somebody else cancelled. To a task group the worker would
            # look as if it had been stopped, and the controller would be dead without a word.
            error = ManagerError("the reconciler was cancelled from elsewhere")
            error.__cause__ = cancelled
        except Exception as raised:
            error = raised
        expired = deadline is not None and deadline.expired()
        if expired:
            self._metrics.timeouts += 1
        if error is not None:
            self._failed(request, priority, result, error, expired=expired)
        elif result is not None:
            self._follow(request, priority, result)

    def _follow(self, request: Request, priority: int, result: Result) -> None:
        queue, metrics, wanted = self.queue, self._metrics, result.priority
        if result.requeue_after is not None:
            queue.forget(request)
            queue.add(request, after=result.requeue_after, priority=priority if wanted is None else wanted)
            metrics.requeue_after += 1
        elif result.requeue:
            queue.add(request, rate_limited=True, priority=priority if wanted is None else wanted)
            metrics.requeue += 1
        else:
            queue.forget(request)
            metrics.success += 1

    def _failed(
        self, request: Request, priority: int, result: Result | None, error: BaseException, *, expired: bool
    ) -> None:
        causes = _leaves(error)
        metrics = self._metrics
        metrics.error += 1
        if isinstance(result, Result):
            priority = priority if result.priority is None else result.priority
            if result.requeue or result.requeue_after is not None:
                log.warning("a result beside an error is ignored %s result=%s", log_fields(), result)
        late = expired and all(isinstance(cause, TimeoutError) for cause in causes)
        panic = not late and not all(isinstance(cause, ManagerError) for cause in causes)
        if panic:
            metrics.panics += 1
            if not self._options.recover_panic:
                raise error
        if all(isinstance(cause, TerminalError) for cause in causes):
            metrics.terminal += 1
            log.error("reconcile failed for good %s error=%s", log_fields(), error)
            return
        self.queue.add(request, rate_limited=True, priority=priority)
        words = "%s failures=%d error=%s"
        facts = (log_fields(), self.queue.failures(request), error)
        if all(isinstance(cause, Conflict) for cause in causes):
            log.debug("reconcile met a conflict, trying again " + words, *facts)
        elif late:
            log.warning("reconcile over its deadline of %g s, trying again " + words, self._timeout, *facts)
        elif panic:
            log.error("reconcile raised, trying again " + words, *facts, exc_info=error)
        else:
            log.warning("reconcile failed, trying again " + words, *facts)

    def _new_id(self) -> str:
        """A random UUID (version 4); the standard library's takes three times as long and asks the kernel."""
        bits = self._rng.getrandbits(128) & ~(0xF << 76) & ~(0x3 << 62) | (0x4 << 76) | (0x2 << 62)
        text = f"{bits:032x}"
        return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


# ---------------------------------------------------------------------- names

# A name labels the metrics of a process: two controllers of one name would count into one series. It is free again
# once its controller has run or will never run; held weakly for those that were made and dropped.
_names: WeakValueDictionary[str, Controller] = WeakValueDictionary()


def _claim_name(controller: Controller) -> None:
    if _is_taken(controller.name):
        gc.collect()  # a holder that nobody can reach any more is no holder
    if _is_taken(controller.name):
        raise ManagerError(
            f"there is a controller named {controller.name} in this process already; "
            "choose another name, or set skip_name_validation where both are meant"
        )
    _names[controller.name] = controller


def _is_taken(name: str) -> bool:
    holder = _names.get(name)
    return holder is not None and not holder._abandoned()


def _release_name(controller: Controller) -> None:
    if _names.get(controller.name) is controller:
        del _names[controller.name]


def _leaves(error: BaseException) -> list[BaseException]:
    """What failed: the members of an exception group, which is how a reconciler's own task groups report."""
    if isinstance(error, BaseExceptionGroup):
        return [leaf for member in error.exceptions for leaf in _leaves(member)]
    return [error]
