"""What holds a process of controllers together: one client, one cache, one life.

Start order: probe and metrics servers; cache, until every informer has its first list; runnables that need no
leader; leadership; runnables that need it. Stop order is the reverse, within ``graceful_timeout``; the lease is
given back last, when nothing of ours runs any more. The first failure stops everything and is raised. A lost lease
stops without grace: another process may be at work already, and this one must end. Semantics: controller-runtime's
manager.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from prometheus_client import CollectorRegistry, Gauge, PlatformCollector, ProcessCollector

from manager.cache import Cache
from manager.cached import CachedClient
from manager.client import Client
from manager.config import RestConfig
from manager.controller import ControllerDefaults
from manager.controller_metrics import ControllerMetrics, MetricFamilies
from manager.errors import ManagerError
from manager.events import EventRecorder
from manager.leader import LeaderElection, LeaderElector
from manager.rest_metrics import RestMetrics
from manager.servers import Check, HttpServer, Probes, metrics_server, probe_server

log = logging.getLogger("kaito.manager.manager")

Runnable = Callable[[], Coroutine[Any, Any, None]]


class LeaderLost(ManagerError):
    """The lease was lost; the process must exit, there is no way back to standby."""


@dataclass(frozen=True, slots=True)
class _Entry:
    name: str
    run: Runnable
    needs_leader: bool
    warmup: Runnable | None


class Manager:
    """See the module.

    Args:
        config: the API server.
        leader_election: None runs without a lease.
        metrics_bind: ``host:port`` (port 0: a free one), or ``"0"`` for no server.
        health_bind: the same, for the probes.
        graceful_timeout: seconds that stopping may take; 0 does not wait, negative waits for ever.
        controller: how the controllers work that do not say otherwise.
        name: of this program, for the user agent and the field manager.
    """

    def __init__(
        self,
        config: RestConfig,
        *,
        leader_election: LeaderElection | None = None,
        metrics_bind: str = "127.0.0.1:0",
        health_bind: str = "0",
        graceful_timeout: float = 30.0,
        controller: ControllerDefaults | None = None,
        name: str = "kaito",
    ) -> None:
        self.name = name
        self.controller_defaults = controller or ControllerDefaults()
        self.metrics = CollectorRegistry()
        ProcessCollector(registry=self.metrics)
        PlatformCollector(registry=self.metrics)
        self._families = MetricFamilies(self.metrics)
        self._config = config
        self.live = Client(config, user_agent=name, field_manager=name, observer=RestMetrics(self.metrics))
        self.cache = Cache(self.live)
        self.client: Client = CachedClient(self.live, self.cache)
        self.probes = Probes()
        self._election = leader_election
        self._graceful = graceful_timeout
        self._entries: list[_Entry] = []
        self._names: set[str] = set()
        self._recorders: list[EventRecorder] = []
        self._health = None if health_bind == "0" else probe_server(health_bind, self.probes)
        self._metrics = None if metrics_bind == "0" else metrics_server(metrics_bind, self.metrics)
        self._state = "new"
        self._groups: dict[bool, asyncio.TaskGroup] = {}
        self._recording: asyncio.TaskGroup | None = None
        self.elected = asyncio.Event()
        """Set while this process leads; without an election, once the controllers run."""

    def __repr__(self) -> str:
        return f"<Manager {self.name} {self._state} runnables={len(self._entries)} {self.cache!r}>"

    # ------------------------------------------------------------------ composition

    def add(
        self, runnable: Runnable, *, name: str, needs_leader: bool = True, warmup: Runnable | None = None
    ) -> None:
        """Something to run until cancelled; started at once if its turn has come already.

        Args:
            runnable: the work.
            name: unique in this manager.
            needs_leader: whether only the leader runs it.
            warmup: run before leadership; ends when the work may start.

        Raises:
            ManagerError: the name is taken, or the manager stops.
        """
        if self._state == "stopping":
            raise ManagerError(f"{name} cannot be added: the manager stops")
        if name in self._names:
            raise ManagerError(f"there is a runnable named {name} already")
        self._names.add(name)
        entry = _Entry(name, runnable, needs_leader, warmup)
        self._entries.append(entry)
        if warmup is not None and False in self._groups:
            self._groups[False].create_task(warmup(), name=f"warmup-{name}")
        group = self._groups.get(needs_leader)
        if group is not None:
            group.create_task(runnable(), name=name)

    def add_healthz(self, name: str, check: Check) -> None:
        """A check of ``/healthz``: is this process beyond help?"""
        self.probes.health[name] = check

    def add_readyz(self, name: str, check: Check) -> None:
        """A check of ``/readyz``: can it do its work now?"""
        self.probes.ready[name] = check

    def events(self, component: str) -> EventRecorder:
        """A recorder of events that this component reports."""
        recorder = EventRecorder(self.live, component)
        self._recorders.append(recorder)
        if self._recording is not None:
            self._recording.create_task(recorder.run(), name=f"events-{component}")
        return recorder

    def controller_metrics(self, name: str) -> ControllerMetrics:
        """The metrics of one controller; the builder's."""
        return ControllerMetrics(self._families, name)

    @property
    def stopped(self) -> bool:
        """Whether its one life is over."""
        return self._state == "stopped"

    @property
    def metrics_address(self) -> tuple[str, int] | None:
        """Where metrics are served, once started."""
        return self._metrics.address if self._metrics else None

    @property
    def health_address(self) -> tuple[str, int] | None:
        """Where probes are answered, once started."""
        return self._health.address if self._health else None

    # ------------------------------------------------------------------ life

    async def run(self, stop: asyncio.Event) -> None:
        """Run until ``stop`` is set, then stop gracefully.

        Raises:
            LeaderLost: the lease was lost.
            ManagerError: it was started before, or something could not be started.
            Exception: what the first runnable that failed raised.
        """
        if self._state != "new":
            raise ManagerError("the manager was started before")
        self._state = "starting"
        self.add_readyz("cache", lambda: None if self._state == "running" else f"manager is {self._state}")
        recorders: asyncio.Task[None] | None = None
        try:
            for server in self._servers():
                await server.start()
            recorders = asyncio.create_task(self._record(), name="events")
            await self._until(stop, self._run_cache())
        finally:
            self._state = "stopping"
            if recorders is not None:
                recorders.cancel()
                await asyncio.gather(recorders, return_exceptions=True)
            for server in reversed(self._servers()):
                await server.stop()
            await self.live.close()
            self._state = "stopped"

    async def _run_cache(self) -> None:
        async with _cancelled_after(self.cache.run(), "cache"):
            await self.cache.wait_for_sync()
            await self._run_group(needs_leader=False, then=self._run_leader)

    async def _run_leader(self) -> None:
        if self._election is None:
            self.elected.set()
            await self._run_group(needs_leader=True)
            return
        gauge = Gauge(
            "leader_election_master_status", "1 while this process leads.", ("name",), registry=self.metrics
        )
        status = gauge.labels(self._election.lease_name)
        elector = LeaderElector(self._config, self._election)
        self.add_healthz("leaderElection", elector.problem)
        self._state = "running"  # a standby is ready: it serves its probes and its caches are warm
        async with elector:
            await elector.acquired()
            status.set(1)
            self.elected.set()
            log.info("leading lease=%s identity=%s", self._election.lease_name, elector.identity)
            try:
                await self._until_lost(elector)
            finally:
                status.set(0)
                self.elected.clear()

    async def _until_lost(self, elector: LeaderElector) -> None:
        work = asyncio.create_task(self._run_group(needs_leader=True), name="leader-work")
        lost = asyncio.create_task(elector.lost(), name="leader-lost")
        try:
            await asyncio.wait({work, lost}, return_when=asyncio.FIRST_COMPLETED)
            if lost.done() and not work.done():
                self._graceful = 0.0
                raise LeaderLost("the leader lease was lost; this process must be restarted")
            await work
        finally:
            lost.cancel()
            work.cancel()
            await asyncio.gather(lost, work, return_exceptions=True)

    async def _run_group(self, *, needs_leader: bool, then: Runnable | None = None) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                self._groups[needs_leader] = group
                for entry in self._entries:
                    if entry.needs_leader == needs_leader:
                        group.create_task(entry.run(), name=entry.name)
                    if entry.warmup is not None and not needs_leader:
                        group.create_task(entry.warmup(), name=f"warmup-{entry.name}")
                if needs_leader:
                    self._state = "running"
                if then is not None:
                    group.create_task(then(), name="leader")
                else:
                    await asyncio.Event().wait()
        except BaseExceptionGroup as failures:
            raise _first(failures) from failures
        finally:
            self._groups.pop(needs_leader, None)

    async def _until(self, stop: asyncio.Event, work: Coroutine[Any, Any, None]) -> None:
        """Run the work until ``stop``; then cancel it and give it its time to end."""
        task = asyncio.create_task(work, name="manager")
        stopping = asyncio.create_task(stop.wait(), name="manager-stop")
        try:
            await asyncio.wait({task, stopping}, return_when=asyncio.FIRST_COMPLETED)
        finally:  # also when run() itself is cancelled
            self._state = "stopping"
            task.cancel()
            stopping.cancel()
            await asyncio.wait({task, stopping}, timeout=None if self._graceful < 0 else self._graceful)
        if not task.done():
            if self._graceful > 0:
                raise ManagerError(f"did not stop within {self._graceful:.0f} s")
        elif not task.cancelled():
            task.result()

    async def _record(self) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                self._recording = group
                for recorder in self._recorders:
                    group.create_task(recorder.run(), name=f"events-{recorder.component}")
                await asyncio.Event().wait()  # a group without tasks would end, and refuse later recorders
        finally:
            self._recording = None

    def _servers(self) -> list[HttpServer]:
        return [server for server in (self._health, self._metrics) if server is not None]


class _cancelled_after:
    """Runs a coroutine beside the block; its failure ends the block, the block's end cancels it."""

    def __init__(self, work: Coroutine[Any, Any, None], name: str) -> None:
        self._work = work
        self._name = name

    async def __aenter__(self) -> None:
        self._group = asyncio.TaskGroup()
        await self._group.__aenter__()
        self._task = self._group.create_task(self._work, name=self._name)

    async def __aexit__(self, kind: Any, error: Any, trace: Any) -> None:
        self._task.cancel()
        try:
            await self._group.__aexit__(kind, error, trace)
        except BaseExceptionGroup as failures:
            raise _first(failures) from failures


def _first(failures: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first leaf: groups are how tasks report, not what a caller wants to catch."""
    failure: BaseException = failures
    while isinstance(failure, BaseExceptionGroup):
        failure = failure.exceptions[0]
    return failure
