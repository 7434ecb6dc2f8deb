"""What holds a process of controllers together: one client, one cache, one life.

In: runnables, checks, an election. Out: :meth:`Manager.run`, which starts groups in the order of ``Group``, each
when the one before it is ready, and stops them in :data:`STOP_ORDER`; the lease is given back when all of them
have ended, and the last events are written after that. The first failure stops everything; it is raised together
with what went wrong while stopping. A lost lease stops without grace: another process may be at work already,
and this one must end. A manager runs once. Semantics: controller-runtime's manager."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from prometheus_client import CollectorRegistry, Counter, Gauge, PlatformCollector, ProcessCollector

from manager import debug
from manager.authfilter import AuthFilter
from manager.cache import Cache
from manager.client import Client
from manager.cluster import Cluster
from manager.config import RestConfig
from manager.controller_metrics import ControllerMetrics, MetricFamilies
from manager.errors import ManagerError
from manager.events import EventRecorder
from manager.health import Check, Probes, probe_app
from manager.leader import LeaderElection, LeaderElector
from manager.loopwatch import LoopLag, watch_blocking
from manager.memory import Tuning
from manager.profiling import check_bind, debug_app
from manager.resources import LEASES
from manager.runnables import Entry, Group, Ready, Runnable, RunnableGroup, only
from manager.selfsigned import serving_context
from manager.servers import OFF, Handler, HttpServer, metrics_app

log = logging.getLogger("kaito.manager.manager")

STOP_ORDER = (Group.OTHERS, Group.LEADER_ELECTION, Group.CACHES, Group.WEBHOOKS, Group.HTTP_SERVERS)
"""One after the other; ``Warmup`` stops beside them."""

_LAST_EVENTS_SECONDS = 5.0


class LeaderLost(ManagerError):
    """The lease was lost; the process must exit, there is no way back to standby."""


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


@dataclass(frozen=True, slots=True)
class SecureMetrics:
    """Metrics over TLS.

    Attributes:
        cert_dir: folder of ``tls.crt`` and ``tls.key``; None takes those of the usual place, or a self-signed one.
        authorize: let only those read whom the API server allows ``get`` on the path. The process then needs the
            ClusterRole ``system:auth-delegator``.
    """

    cert_dir: Path | None = None
    authorize: bool = True


class _RestMetrics:
    def __init__(self, registry: CollectorRegistry) -> None:
        self._total = Counter(
            "rest_client_requests_total", "Requests by outcome.", ("code", "method", "host"), registry=registry
        )

    def finished(self, method: str, code: str, host: str) -> None:
        self._total.labels(code, method, host.partition("://")[2]).inc()


class Manager:
    """See the module.

    Args:
        config: the API server.
        leader_election: None runs without a lease.
        metrics_bind: ``host:port`` (port 0: a free one), or ``"0"`` for no server.
        metrics_secure: None serves plain HTTP to everybody.
        health_bind: as ``metrics_bind``, for the probes.
        debug_bind: the same for looking inside (``profiling``); loopback addresses only.
        graceful_timeout: seconds that stopping may take; 0 does not wait, negative waits for ever.
        tune_gc: set the process's garbage collector up for large caches (``memory``); None: unless misuse is
            looked for, because test processes run many managers.
        name: of this program, for the user agent and the field manager.
    """

    def __init__(
        self,
        config: RestConfig,
        *,
        leader_election: LeaderElection | None = None,
        metrics_bind: str = "127.0.0.1:0",
        metrics_secure: SecureMetrics | None = None,
        health_bind: str = "0",
        debug_bind: str = "0",
        graceful_timeout: float = 30.0,
        tune_gc: bool | None = None,
        name: str = "kaito",
    ) -> None:
        self.name = name
        self.metrics = CollectorRegistry()
        ProcessCollector(registry=self.metrics)
        PlatformCollector(registry=self.metrics)
        self._families = MetricFamilies(self.metrics)
        self._rest_metrics = _RestMetrics(self.metrics)
        self._lag = LoopLag(self.metrics)
        self.live = self._client(config)
        self.cache = Cache(self.live)
        self.probes = Probes()
        self._graceful = graceful_timeout
        self._hurry = asyncio.Event()  # the lease is lost: no grace
        self._tuning = Tuning() if (not debug.enabled() if tune_gc is None else tune_gc) else None
        self._clusters: list[Cluster] = []
        self._names: set[str] = set()
        self._failures: list[BaseException] = []
        self._failed = asyncio.Event()
        self._groups = {group: RunnableGroup(group, self._fail) for group in Group}
        self._last = RunnableGroup("Last", self._fail)  # runs until all groups have ended: events, and the lease
        self._state = "new"
        self.elected = asyncio.Event()
        """Set once this process leads and what needs leadership has started; also when there is no election."""
        self.add(
            lambda: self.cache.run(), name="cache", group=Group.CACHES, ready=lambda: self.cache.wait_for_sync()
        )
        self.add_readyz("cache", lambda: None if self._state == "running" else f"manager is {self._state}")
        self._election = leader_election
        self._leading = False
        if leader_election is not None:
            self._status = Gauge(
                "leader_election_master_status", "1 while this process leads.", ("name",), registry=self.metrics
            ).labels(leader_election.lease_name)
            leaders = self._groups[Group.LEADER_ELECTION]
            self._elector = LeaderElector(config, leader_election, user_agent=name, working=lambda: leaders.busy)
            self._recorder = self.events("leader-election")
            self.add_healthz("leaderElection", self._elector.problem)
        self._health: HttpServer | None = None
        self._metrics: HttpServer | None = None
        self._debug: HttpServer | None = None
        if health_bind not in OFF:
            self._health = self._serve(HttpServer(health_bind, probe_app(self.probes), "health"))
        if metrics_bind not in OFF:
            self._metrics = self._serve(self._metrics_server(metrics_bind, metrics_secure))
        if debug_bind not in OFF:
            check_bind(debug_bind)
            self._debug = self._serve(HttpServer(debug_bind, debug_app(self._lag), "debug"))

    def __repr__(self) -> str:
        return f"<Manager {self.name} {self._state} runnables={len(self._names)} {self.cache!r}>"

    # ------------------------------------------------------------------ composition

    def add(
        self,
        runnable: Runnable,
        *,
        name: str,
        needs_leader: bool = True,
        warmup: Runnable | None = None,
        group: Group | None = None,
        ready: Ready | None = None,
    ) -> None:
        """Something to run until cancelled; started at once if its turn has come already.

        Args:
            needs_leader: whether it waits for leadership; chooses the group, unless ``group`` does.
            warmup: for what needs leadership: run before, on a standby too, so that taking over is quick.
            ready: what starts after it waits for this to return; raising, or returning False, stops the manager.

        Raises:
            ManagerError: the name is taken, or the manager stops.
        """
        if self._state in ("stopping", "stopped"):
            raise ManagerError(f"{name} cannot be added: the manager stops")
        if name in self._names:
            raise ManagerError(f"there is a runnable named {name} already")
        where = group or (Group.LEADER_ELECTION if needs_leader else Group.OTHERS)
        self._names.add(name)
        if warmup is not None and where is Group.LEADER_ELECTION:
            self._groups[Group.WARMUP].add(Entry(f"{name}-warmup", warmup))
        self._groups[where].add(Entry(name, runnable, ready))

    def add_cluster(self, name: str, config: RestConfig) -> Cluster:
        """Another cluster to read and write; its cache is filled before anything else of ours starts.

        Raises:
            ManagerError: the name is taken, or the manager stops.
        """
        cluster = Cluster(name, self._client(config))
        self.add(
            lambda: cluster.cache.run(),
            name=f"cluster-{name}",
            group=Group.CACHES,
            ready=lambda: cluster.cache.wait_for_sync(),
        )
        self._clusters.append(cluster)
        return cluster

    def add_healthz(self, name: str, check: Check) -> None:
        """A check of ``/healthz``: is this process beyond help?"""
        self.probes.health[name] = check

    def add_readyz(self, name: str, check: Check) -> None:
        """A check of ``/readyz``: can it do its work now?"""
        self.probes.ready[name] = check

    def add_metrics_handler(self, path: str, handler: Handler) -> None:
        """Another path of the metrics server, behind the same filter; not ``/metrics`` itself.

        Raises:
            ManagerError: the path is taken, the manager has been started, or there is no metrics server.
        """
        if self._metrics is None:
            raise ManagerError(f"{path} cannot be served: the metrics server is off")
        self._metrics.add(path, handler)

    def events(self, component: str) -> EventRecorder:
        """A recorder of events that this component reports."""
        recorder = EventRecorder(self.live, component)
        self._last.add(Entry(f"events-{component}", recorder.run))
        return recorder

    def controller_metrics(self, name: str) -> ControllerMetrics:
        """The metrics of one controller; the builder's."""
        return ControllerMetrics(self._families, name)

    @property
    def metrics_address(self) -> tuple[str, int] | None:
        """Where metrics are served, once started."""
        return self._metrics.address if self._metrics else None

    @property
    def health_address(self) -> tuple[str, int] | None:
        """Where probes are answered, once started."""
        return self._health.address if self._health else None

    @property
    def debug_address(self) -> tuple[str, int] | None:
        """Where the process can be looked into, once started."""
        return self._debug.address if self._debug else None

    def _client(self, config: RestConfig) -> Client:
        return Client(config, user_agent=self.name, field_manager=self.name, observer=self._rest_metrics)

    def _serve(self, server: HttpServer) -> HttpServer:
        self.add(server.run, name=f"{server.what}-server", group=Group.HTTP_SERVERS, ready=server.ready)
        return server

    def _metrics_server(self, bind: str, secure: SecureMetrics | None) -> HttpServer:
        check = AuthFilter(self.live) if secure is not None and secure.authorize else None
        tls = serving_context(secure.cert_dir) if secure is not None else None
        return HttpServer(bind, metrics_app(self.metrics, check), "metrics", tls=tls)

    # ------------------------------------------------------------------ life

    async def run(self, stop: asyncio.Event) -> None:
        """Run until ``stop`` is set or something fails, then stop gracefully.

        Raises:
            LeaderLost: the lease was lost.
            ManagerError: it was started before, something could not be started, or stopping took too long.
            Exception: what the one runnable that failed raised.
            RunFailed: more than one thing went wrong.
        """
        if self._state != "new":
            raise ManagerError("the manager was started before")
        self._state = "starting"
        with ExitStack() as watches:
            leaks = watches.enter_context(debug.TaskWatch()) if debug.enabled() else None
            if blocking := watch_blocking():
                watches.enter_context(blocking)
            self._lag.start()
            if self._tuning is not None:
                self._tuning.begin()
            try:
                await self._until(stop)
            except asyncio.CancelledError:
                for failure in self._failures:
                    log.error("manager cancelled, and failed error=%r", failure)
                raise
            ended = not any(group.busy for group in self._groups.values())
            if leaks is not None and ended and (left := await leaks.left()):
                self._failures.append(ManagerError(f"tasks were left running: {', '.join(left)}"))
        self._raise()

    async def _until(self, stop: asyncio.Event) -> None:
        starting = asyncio.create_task(self._start(), name="manager-start")
        starting.add_done_callback(self._start_ended)
        ends = [
            asyncio.create_task(stop.wait(), name="manager-stop-wanted"),
            asyncio.create_task(self._failed.wait(), name="manager-failed"),
        ]
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:  # also when run() itself is cancelled
            self._state = "stopping"
            starting.cancel()  # before anything is awaited: nothing may start from here on
            for end in ends:
                end.cancel()
            try:
                await self._stop(starting)
            finally:
                self._lag.stop()
                if self._tuning is not None:
                    self._tuning.undo()
                self._state = "stopped"

    async def _start(self) -> None:
        await self._last.start()
        for group in (Group.HTTP_SERVERS, Group.WEBHOOKS, Group.CACHES):
            await self._groups[group].start()
        if self._tuning is not None:
            self._tuning.caches_are_full()
        for group in (Group.OTHERS, Group.WARMUP):
            await self._groups[group].start()
        self._state = "running"  # a standby is ready: it serves its probes and its caches are warm
        if self._election is not None:
            await self._win(self._election)
        await self._groups[Group.LEADER_ELECTION].start()
        self.elected.set()

    def _start_ended(self, starting: asyncio.Task[None]) -> None:
        if not starting.cancelled() and (error := starting.exception()) is not None:
            self._fail(only(error))

    async def _win(self, election: LeaderElection) -> None:
        self._elector.start()
        await self._elector.acquired()
        self._leading = True
        self._status.set(1)
        self._tell(election, "became leader", "Lead")
        self._last.add(Entry("leader-lost", self._until_lost))

    async def _until_lost(self) -> None:
        await self._elector.lost()
        self._graceful = 0.0
        self._hurry.set()
        self.elected.clear()
        raise LeaderLost("the leader lease was lost; this process must be restarted")

    def _tell(self, election: LeaderElection, what: str, action: str) -> None:
        log.info("%s lease=%s identity=%s", what, election.lease_name, election.identity)
        lease = {
            "apiVersion": LEASES.api_version,
            "kind": LEASES.kind,
            "metadata": {"name": election.lease_name, "namespace": election.namespace},
        }
        # Actions differ, or the second event would count as a repeat of the first.
        self._recorder.event(lease, "Normal", "LeaderElection", f"{election.identity} {what}", action=action)

    # ------------------------------------------------------------------ the end

    async def _stop(self, starting: asyncio.Task[None]) -> None:
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
        if self._election is not None:
            await self._resign(self._election)
        await asyncio.wait(
            {asyncio.create_task(self._last.stop(), name="stop-Last")}, timeout=_LAST_EVENTS_SECONDS
        )
        for client in (self.live, *(cluster.live for cluster in self._clusters)):
            await client.close()
        if impatient is not None:
            raise impatient

    async def _stop_in_order(self, starting: asyncio.Task[None]) -> None:
        await asyncio.wait({starting})
        async with asyncio.TaskGroup() as stopping:
            stopping.create_task(self._groups[Group.WARMUP].stop(), name="stop-Warmup")
            for group in STOP_ORDER:
                await self._groups[group].stop()

    def _give_up(self, in_order: asyncio.Task[None]) -> None:
        """Time is up: everything is told to end at once, and nothing is waited for."""
        running = [name for group in self._groups.values() for name in group.running]
        if self._graceful > 0:
            self._failures.append(
                ManagerError(f"did not stop within {self._graceful:g} s; still running: {', '.join(running)}")
            )
        in_order.cancel()
        for group in self._groups.values():
            group.cancel()

    async def _resign(self, election: LeaderElection) -> None:
        await self._elector.stop(work_ended=not self._groups[Group.LEADER_ELECTION].busy)
        self.elected.clear()
        self._status.set(0)
        if self._leading:
            self._leading = False
            self._tell(election, "stopped leading", "Resign")

    def _fail(self, error: BaseException) -> None:
        if self._state == "stopped":
            log.error("runnable failed after the stop error=%r", error)
            return
        self._failures.append(error)
        self._failed.set()

    def _raise(self) -> None:
        others = [failure for failure in self._failures if not isinstance(failure, Exception)]
        for failure in others or (self._failures if len(self._failures) == 1 else ()):
            raise failure
        if self._failures:
            raise RunFailed([f for f in self._failures if isinstance(f, Exception)])
