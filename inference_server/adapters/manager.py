"""Keeps the engine's adapters as the wanted list says, while requests are answered.

In: the list's file, an engine, a fetcher, a folder. Out: choices for requests and the observed list. One task
looks at the world, asks `decide` and acts; fetches are tasks beside it, so that a slow registry holds up
nothing. A new set is loaded first and then takes the old one's place in one assignment; a request keeps what it
began with. A failure leaves what serves as it is, and is tried again, later each time.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from api.adapters import AdapterList, ObservedAdapters, WantedAdapter
from inference_server.adapters.artifact import InvalidAdapter
from inference_server.adapters.decide import Artifact, Failure, LoadedSet, Observation, Planned, Step, decide
from inference_server.adapters.fetch import Fetcher
from inference_server.adapters.lastgood import LastGood
from inference_server.adapters.metrics import AdapterMetrics
from inference_server.adapters.model import AdapterChoice
from inference_server.adapters.slots import Slots
from inference_server.adapters.view import observed, why_not
from inference_server.adapters.wanted import ListFile, ListInvalid, Source, source_of
from inference_server.oci.backoff import Backoff
from inference_server.oci.errors import FetchError
from inference_server.protocol import EngineError, UnknownAdapter

logger = logging.getLogger("kaito.inference_server.adapters.manager")

ALL = "*"


async def _nothing() -> None:
    pass


@dataclass(frozen=True, slots=True)
class Pace:
    """How often things are looked at and tried, in seconds."""

    poll: float = 1.0
    passing: Backoff = field(default_factory=lambda: Backoff(first=1.0, most=60.0))
    lasting: Backoff = field(default_factory=lambda: Backoff(first=15.0, most=300.0))  # somebody must act first


class AdapterManager:
    """Implements `inference_server.adapters.model.Adapters`."""

    def __init__(
        self,
        file: ListFile,
        fetcher: Fetcher,
        slots: Callable[[Callable[[], None]], Slots],
        last_good: LastGood,
        *,
        metrics: AdapterMetrics,
        closed: Callable[[], Awaitable[None]] = _nothing,
        pace: Pace | None = None,
        rng: random.Random | None = None,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self._file = file
        self._fetcher = fetcher
        self._wake = asyncio.Event()
        self._slots = slots(self._wake.set)
        self._record = last_good
        self.metrics = metrics
        self._closed = closed
        self._pace = pace or Pace()
        self._rng = rng or random.Random()  # noqa: S311  spreads attempts; nothing secret
        self._clock = clock or (lambda: asyncio.get_running_loop().time())
        self._wanted = AdapterList()
        self._list_problem = ""
        self._tasks: dict[Source, asyncio.Task[Artifact]] = {}
        self._artifacts: dict[Source, Artifact] = {}
        self._failures: dict[Source, Failure] = {}
        self._set_failure: tuple[Planned, Failure] | None = None
        self._in_force: LoadedSet | None = None
        self._last_good: Planned | None = None
        self._problems: dict[str, str] = {}
        self._loading = False
        self._settled = asyncio.Event()
        self._loop: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return (
            f"<AdapterManager wanted={len(self._wanted.adapters)} artifacts={len(self._artifacts)} "
            f"fetching={len(self._tasks)} failures={len(self._failures)} slots={self._slots.loaded()}>"
        )

    # -- for the server ------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """See the protocol."""
        self._slots.open()
        self._take(self._file.read_now)
        await self._recall()
        self._loop = asyncio.create_task(self._run(), name="adapters")
        settled = asyncio.create_task(self._settled.wait(), name="adapters-settled")
        try:
            await asyncio.wait((settled, self._loop), return_when=asyncio.FIRST_COMPLETED)
        finally:
            settled.cancel()

    async def stop(self) -> None:
        """See the protocol."""
        loop, self._loop = self._loop, None
        if loop is not None:
            loop.cancel()
            await asyncio.gather(loop, return_exceptions=True)
        fetches = list(self._tasks.values())
        self._tasks.clear()
        for fetch in fetches:
            fetch.cancel()
        for outcome in await asyncio.gather(*fetches, return_exceptions=True):
            if isinstance(outcome, Artifact):
                outcome.held.release()
        sets = [self._last_good, self._in_force.planned if self._in_force else None]
        for artifact in (*self._artifacts.values(), *(a for s in sets if s for _, a in s.adapters)):
            artifact.held.release()
        self._artifacts.clear()
        self._in_force = self._last_good = None
        await self._closed()
        await asyncio.to_thread(self._slots.close)

    def observed(self) -> ObservedAdapters:
        """See the protocol."""
        return observed(
            self._observe(),
            self._problems,
            loading=self._loading,
            draining=self._slots.draining(),
            list_problem=self._list_problem,
        )

    def names(self) -> tuple[str, ...]:
        """See the protocol."""
        return tuple(self._in_force.slots) if self._in_force else ()

    def choose(self, name: str | None) -> AdapterChoice:
        """See the protocol."""
        loaded = self._in_force
        if name is None:
            return self._slots.lend(ALL, loaded.combined if loaded else None)
        if name == "":
            return AdapterChoice("")
        if loaded is not None and name in loaded.slots:
            return self._slots.lend(name, loaded.slots[name])
        there = f"those there: {', '.join(self.names())}" if self.names() else "there is none"
        reason = why_not(name, self.observed())
        raise UnknownAdapter(
            f"the adapter {name[:100]!r} cannot serve yet ({reason}); {there}"
            if reason
            else f"there is no adapter {name[:100]!r}; {there}"
        )

    # -- the loop ------------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        while True:
            self._wake.clear()
            try:
                wake_at = await self._reconcile()
            except Exception:
                logger.exception("a round of the adapters failed; the next one sees the same world")
                wake_at = None
            now = self._clock()
            wait = min(self._pace.poll, max(wake_at - now, 0.0) if wake_at is not None else self._pace.poll)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._wake.wait()
            self._take(self._file.read_if_settled)

    async def _reconcile(self) -> float | None:
        """One round; returns when the next is due at the latest."""
        self._collect()
        step = decide(self._observe())
        self._problems = dict(step.problems)
        for source in step.give_up:
            self._give_up(self._tasks.pop(source))
        for source in step.begin:
            self._begin(source)
        if step.switch is not None:
            await self._switch(step.switch)
            return self._clock()
        self._note(step)
        self._forget()
        try:
            sweep_at = await self._slots.sweep(self._clock())
        except EngineError as error:
            logger.warning("adapter not unloaded error=%s", error)
            sweep_at = None
        self.metrics.slots.set(self._slots.loaded())
        return min((at for at in (step.wake_at, sweep_at) if at is not None), default=None)

    def _observe(self) -> Observation:
        return Observation(
            wanted=self._wanted,
            fetching=frozenset(self._tasks),
            artifacts=self._artifacts,
            failures=self._failures,
            in_force=self._in_force,
            limits=self._fetcher.limits,
            last_good=self._last_good,
            set_failure=self._set_failure,
            now=self._clock(),
        )

    def _take(self, read: Callable[[], AdapterList | None]) -> None:
        try:
            wanted = read()
        except ListInvalid as error:
            self._list_problem = str(error)
            self.metrics.failures.labels("ListInvalid").inc()
            logger.warning("list of adapters not taken error=%s", error)
            return
        if wanted is not None:
            self._list_problem = ""
            self._wanted = wanted
            self._set_failure = None
            self._failures.clear()  # whoever changed the list may have changed the world
            logger.info("adapters wanted revision=%s count=%s", wanted.revision, len(wanted.adapters))

    async def _recall(self) -> None:
        """What was last in force before this process, if its files are still there."""
        found = self._record.read()
        if found is None:
            return
        revision, record = found
        pairs: list[tuple[WantedAdapter, Artifact]] = []
        for wanted, _, _ in record:
            try:
                artifact = await self._fetcher.cached(source_of(wanted))
            except (FetchError, InvalidAdapter):
                artifact = None
            if artifact is None:
                for _, found_before in pairs:
                    found_before.held.release()
                return
            pairs.append((wanted, artifact))
        self._last_good = Planned(revision, tuple(pairs), fallback=True)

    # -- fetching ------------------------------------------------------------------------------------------------

    def _begin(self, source: Source) -> None:
        task = asyncio.create_task(self._fetcher.fetch(source), name=f"adapter-{source.image or source.path}")
        task.add_done_callback(lambda _: self._wake.set())
        self._tasks[source] = task

    @staticmethod
    def _give_up(task: asyncio.Task[Artifact]) -> None:
        def forget(ended: asyncio.Task[Artifact]) -> None:
            if not ended.cancelled() and ended.exception() is None:
                ended.result().held.release()

        task.add_done_callback(forget)
        task.cancel()

    def _collect(self) -> None:
        """The outcomes of fetches that have ended."""
        for source, task in list(self._tasks.items()):
            if not task.done():
                continue
            del self._tasks[source]
            try:
                self._artifacts[source] = task.result()
                self._failures.pop(source, None)
            except FetchError as error:
                self._failed(source, error.reason, str(error), transient=error.transient, wish=error.retry_after)
            except InvalidAdapter as error:
                self._failed(source, "Invalid", str(error), transient=False)
            except asyncio.CancelledError:
                continue
            except Exception as error:
                logger.exception("adapter fetch failed source=%s", source.image or source.path)
                self._failed(source, "Internal", f"unexpected: {type(error).__name__}: {error}", transient=False)

    def _failed(
        self, source: Source, reason: str, message: str, *, transient: bool, wish: float | None = None
    ) -> None:
        before = self._failures.get(source)
        self._failures[source] = self._failure(before, reason, message, transient=transient, wish=wish)
        logger.warning("adapter failed source=%s reason=%s error=%s", source.image or source.path, reason, message)

    def _failure(
        self,
        before: Failure | None,
        reason: str,
        message: str,
        *,
        transient: bool,
        wish: float | None = None,
    ) -> Failure:
        count = before.failures + 1 if before else 1
        pace = self._pace.passing if transient else self._pace.lasting
        self.metrics.failures.labels(reason).inc()
        return Failure(reason, message, count, self._clock() + pace.delay(count, self._rng, at_least=wish))

    def _forget(self) -> None:
        """Artifacts that neither the list nor the set in force needs; their files may go."""
        needed = {source_of(wanted) for wanted in self._wanted.adapters}
        kept = {id(a) for _, a in self._in_force.planned.adapters} if self._in_force else set()
        for source, artifact in list(self._artifacts.items()):
            if source not in needed:
                del self._artifacts[source]
                if id(artifact) not in kept:
                    artifact.held.release()
        for source in set(self._failures) - needed:
            del self._failures[source]

    # -- switching -----------------------------------------------------------------------------------------------

    async def _switch(self, planned: Planned) -> None:
        began = self._clock()
        self._loading = True
        try:
            loaded = await self._slots.load(planned)
        except (InvalidAdapter, FetchError, EngineError) as error:
            self._slots.retire_all_but(self._in_force)
            if planned.fallback:
                self._last_good = None
                logger.warning("last good adapters cannot be loaded error=%s", error)
            else:
                before = self._set_failure[1] if self._set_failure else None
                transient = isinstance(error, FetchError) and error.transient
                self._set_failure = (planned, self._failure(before, "Load", str(error), transient=transient))
                logger.warning("adapters not loaded revision=%s error=%s", planned.revision, error)
            return
        finally:
            self._loading = False
        before_set, self._in_force = self._in_force, loaded
        self._slots.retire_all_but(loaded)
        self._release(before_set, loaded)
        if not planned.fallback:
            self._set_failure = None
            self._record.write(planned)
            await self._tidy_store(planned)
        self._release_last_good(loaded)
        self.metrics.switched(loaded, self._clock() - began)
        logger.info(
            "adapters in force revision=%s adapters=%s",
            planned.revision,
            ", ".join(f"{w.name}={w.strength:g}" for w, _ in planned.adapters) or "none",
        )

    def _release(self, before: LoadedSet | None, after: LoadedSet) -> None:
        """Let go of the artifacts that only the old set had."""
        kept = {id(a) for _, a in after.planned.adapters} | {id(a) for a in self._artifacts.values()}
        for _, artifact in before.planned.adapters if before else ():
            if id(artifact) not in kept:
                artifact.held.release()

    def _release_last_good(self, loaded: LoadedSet) -> None:
        last, self._last_good = self._last_good, None
        kept = {id(a) for _, a in loaded.planned.adapters} | {id(a) for a in self._artifacts.values()}
        for _, artifact in last.adapters if last else ():
            if id(artifact) not in kept:
                artifact.held.release()

    async def _tidy_store(self, planned: Planned) -> None:
        self._fetcher.known = {source_of(w): (a.digest, a.key) for w, a in planned.adapters}
        try:
            removed = await self._fetcher.store.remove_unused(self._record.keys_of_all())
        except OSError as error:
            logger.warning("store not tidied error=%s", error.strerror or error)
        else:
            if removed:
                logger.info("adapters removed from the store count=%s", len(removed))

    def _note(self, step: Step) -> None:
        """After a round without a switch: whether the list is in force, or has had its first try."""
        in_force = (
            self._in_force is not None
            and not self._in_force.planned.fallback
            and self._in_force.planned.revision == self._wanted.revision
            and tuple(wanted for wanted, _ in self._in_force.planned.adapters) == self._wanted.adapters
        )
        self.metrics.in_force.set(1 if in_force else 0)
        tried = self._failures or step.problems or self._set_failure
        if in_force or (tried and not self._tasks):
            self._settled.set()
