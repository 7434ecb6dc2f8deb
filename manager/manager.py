"""What holds a process of controllers together: one client, one cache, one life.

In: runnables, checks, an election. Out: :meth:`Manager.run`, which starts groups in the order of ``Group``, each
when the one before it is ready, and stops them (``lifecycle``); the lease is given back when all of them
have ended, and the last events are written after that. The first failure stops everything; it is raised together
with what went wrong while stopping. A lost lease stops without grace: another process may be at work already,
and this one must end. A manager runs once. Semantics: controller-runtime's manager.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from prometheus_client import CollectorRegistry, Gauge, PlatformCollector, ProcessCollector

from manager import debug
from manager.authfilter import AuthFilter
from manager.cache import Cache
from manager.cache_options import CacheOptions
from manager.cached import CachedClient
from manager.client import Client
from manager.cluster import Cluster
from manager.config import RestConfig
from manager.controller import ControllerDefaults
from manager.controller_metrics import ControllerMetrics, MetricFamilies
from manager.errors import ManagerError
from manager.events import EventRecorder
from manager.health import Check, Probes, probe_app
from manager.leader import LeaderElection, LeaderElector
from manager.lifecycle import Lifecycle
from manager.lifecycle import RunFailed as RunFailed
from manager.loopwatch import LoopLag, watch_blocking
from manager.memory import Tuning
from manager.profiling import check_bind, debug_app
from manager.resources import LEASES
from manager.rest_metrics import RestMetrics
from manager.runnables import Entry, Group, Ready, Runnable
from manager.servers import OFF, Handler, HttpServer, metrics_app

log = logging.getLogger("kaito.manager.manager")


class LeaderLost(ManagerError):
    """The lease was lost; the process must exit, there is no way back to standby."""


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
        controller: how the controllers work that do not say otherwise.
        cache: what is watched of each kind, and how; None: everything.
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
        controller: ControllerDefaults | None = None,
        cache: CacheOptions | None = None,
        tune_gc: bool | None = None,
        name: str = "kaito",
    ) -> None:
        self.name = name
        self.controller_defaults = controller or ControllerDefaults()
        self.metrics = CollectorRegistry()
        ProcessCollector(registry=self.metrics)
        PlatformCollector(registry=self.metrics)
        self._families = MetricFamilies(self.metrics)
        self._rest_metrics = RestMetrics(self.metrics)
        self._lag = LoopLag(self.metrics)
        self.live = self._client(config)
        self.cache = Cache(self.live, cache)
        self.live.write_observer = self.cache.consistency
        self.client: Client = CachedClient(self.live, self.cache)
        self.probes = Probes()
        self._life = Lifecycle(graceful_timeout)
        self._tuning = Tuning() if (not debug.enabled() if tune_gc is None else tune_gc) else None
        self._clusters: list[Cluster] = []
        self._names: set[str] = set()
        self.elected = asyncio.Event()
        """Set once this process leads and what needs leadership has started; also when there is no election."""
        self.add(
            lambda: self.cache.run(), name="cache", group=Group.CACHES, ready=lambda: self.cache.wait_for_sync()
        )
        self.add_readyz(
            "cache", lambda: None if self._life.state == "running" else f"manager is {self._life.state}"
        )
        self._election = leader_election
        self._leading = False
        if leader_election is not None:
            self._status = Gauge(
                "leader_election_master_status", "1 while this process leads.", ("name",), registry=self.metrics
            ).labels(leader_election.lease_name)
            leaders = self._life.groups[Group.LEADER_ELECTION]
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
        return f"<Manager {self.name} {self._life.state} runnables={len(self._names)} {self.cache!r}>"

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
        if self._life.state in ("stopping", "stopped"):
            raise ManagerError(f"{name} cannot be added: the manager stops")
        if name in self._names:
            raise ManagerError(f"there is a runnable named {name} already")
        where = group or (Group.LEADER_ELECTION if needs_leader else Group.OTHERS)
        self._names.add(name)
        if warmup is not None and where is Group.LEADER_ELECTION:
            self._life.groups[Group.WARMUP].add(Entry(f"{name}-warmup", warmup))
        self._life.groups[where].add(Entry(name, runnable, ready))

    def add_cluster(self, name: str, config: RestConfig, cache: CacheOptions | None = None) -> Cluster:
        """Another cluster to read and write; its cache is filled before anything else of ours starts.

        Raises:
            ManagerError: the name is taken, or the manager stops.
        """
        cluster = Cluster(name, self._client(config), cache)
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
        self._life.last.add(Entry(f"events-{component}", recorder.run))
        return recorder

    def controller_metrics(self, name: str) -> ControllerMetrics:
        """The metrics of one controller; the builder's."""
        return ControllerMetrics(self._families, name)

    @property
    def stopped(self) -> bool:
        """Whether its one life is over."""
        return self._life.state == "stopped"

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
        if secure is None:
            return HttpServer(bind, metrics_app(self.metrics), "metrics")
        from manager.metrics_tls import certificate  # costs the import of a cryptographic library

        serving, watcher = certificate(secure.cert_dir, self.metrics)
        if watcher is not None:
            self.add(watcher.run, name="metrics-certificate", group=Group.HTTP_SERVERS)
        check = AuthFilter(self.live) if secure.authorize else None
        return HttpServer(bind, metrics_app(self.metrics, check), "metrics", tls=serving.context)

    # ------------------------------------------------------------------ life

    async def run(self, stop: asyncio.Event) -> None:
        """Run until ``stop`` is set or something fails, then stop gracefully.

        Raises:
            LeaderLost: the lease was lost.
            ManagerError: it was started before, something could not be started, or stopping took too long.
            Exception: what the one runnable that failed raised.
            RunFailed: more than one thing went wrong.
        """
        if self._life.state != "new":
            raise ManagerError("the manager was started before")
        with ExitStack() as watches:
            leaks = watches.enter_context(debug.TaskWatch()) if debug.enabled() else None
            if blocking := watch_blocking():
                watches.enter_context(blocking)
            self._lag.start()
            watches.callback(self._lag.stop)
            if self._tuning is not None:
                self._tuning.begin()
                watches.callback(self._tuning.undo)
            try:
                await self._life.run(stop, start=self._start, resign=self._resign)
            finally:
                for client in (self.live, *(cluster.live for cluster in self._clusters)):
                    await client.close()
            if leaks is not None and not self._life.busy and (left := await leaks.left()):
                self._life.report(ManagerError(f"tasks were left running: {', '.join(left)}"))
        self._life.outcome()

    async def _start(self) -> None:
        groups = self._life.groups
        await self._life.last.start()
        for group in (Group.HTTP_SERVERS, Group.WEBHOOKS, Group.CACHES):
            await groups[group].start()
        if self._tuning is not None:
            self._tuning.caches_are_full()
        for group in (Group.OTHERS, Group.WARMUP):
            await groups[group].start()
        self._life.state = "running"  # a standby is ready: it serves its probes and its caches are warm
        if self._election is not None:
            await self._win(self._election)
        await groups[Group.LEADER_ELECTION].start()
        self.elected.set()

    # ------------------------------------------------------------------ leadership

    async def _win(self, election: LeaderElection) -> None:
        self._elector.start()
        await self._elector.acquired()
        self._leading = True
        self._status.set(1)
        self._tell(election, "became leader", "Lead")
        self._life.last.add(Entry("leader-lost", self._until_lost))

    async def _until_lost(self) -> None:
        await self._elector.lost()
        self._life.hurry()
        self.elected.clear()
        raise LeaderLost("the leader lease was lost; this process must be restarted")

    async def _resign(self) -> None:
        if self._election is None:
            self.elected.clear()
            return
        await self._elector.stop(work_ended=not self._life.groups[Group.LEADER_ELECTION].busy)
        self.elected.clear()
        self._status.set(0)
        if self._leading:
            self._leading = False
            self._tell(self._election, "stopped leading", "Resign")

    def _tell(self, election: LeaderElection, what: str, action: str) -> None:
        log.info("%s lease=%s identity=%s", what, election.lease_name, election.identity)
        lease = {
            "apiVersion": LEASES.api_version,
            "kind": LEASES.kind,
            "metadata": {"name": election.lease_name, "namespace": election.namespace},
        }
        # Actions differ, or the second event would count as a repeat of the first.
        self._recorder.event(lease, "Normal", "LeaderElection", f"{election.identity} {what}", action=action)
