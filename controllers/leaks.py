"""The leak audit of a running operator: every few minutes, as gauges that an alert can watch.

In: the cloud's list and the manager's cache. Out: ``kaito_orphaned_*`` and one log line for each orphan that is
new. It changes nothing: what is deleted, and when, is the Machine controller's. Only the leader audits. An audit
that fails leaves the gauges as they are and is counted; the time of the last one that ended well tells how old
they are.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import datetime

from prometheus_client import CollectorRegistry, Counter, Gauge

from controllers.audit import Audit, Rates, World, audit
from controllers.resources import MACHINES, NODECLAIMS
from controllers.settings import utc_now
from manager.client import Client
from manager.errors import ManagerError, NotFound
from manager.manager import Manager
from manager.resources import NODES
from manager.store import Store
from manager.types import Obj
from provisioner import CloudProvider
from provisioner.errors import CloudError

log = logging.getLogger("kaito.controllers.leaks")

INTERVAL = 300.0  # seconds; a list of the pools costs one request


class LeakGauges:
    """The metrics of one operator."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.instances = Gauge(
            "kaito_orphaned_instances", "Cloud instances of ours that no Machine owns.", registry=registry
        )
        self.gpu_hours = Gauge(
            "kaito_orphaned_gpu_hours",
            "GPU-hours of the instances that no Machine owns, since they were made.",
            registry=registry,
        )
        self.cost = Gauge(
            "kaito_orphaned_cost_per_hour",
            "What the instances that no Machine owns cost per hour, where a price is known.",
            ("currency",),
            registry=registry,
        )
        self.done_at = Gauge(
            "kaito_leak_audit_timestamp_seconds", "When the last audit ended well.", registry=registry
        )
        self.failures = Counter(
            "kaito_leak_audit_failures_total", "Audits that cloud or cluster did not answer.", registry=registry
        )

    def show(self, found: Audit, now: datetime) -> None:
        """Publish what an audit found; a currency that no orphan costs any more goes to zero."""
        self.instances.set(len(found.orphans))
        self.gpu_hours.set(found.gpu_hours)
        known = {sample.labels["currency"] for metric in self.cost.collect() for sample in metric.samples}
        for currency in {*known, *found.per_hour}:
            self.cost.labels(currency).set(found.per_hour.get(currency, 0.0))
        self.done_at.set(now.timestamp())


class LeakWatch:
    """See the module."""

    def __init__(
        self,
        provider: CloudProvider,
        client: Client,
        nodes: Store,
        gauges: LeakGauges,
        *,
        rates: Rates,
        interval: float = INTERVAL,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self._provider = provider
        self._client = client
        self._nodes = nodes
        self._gauges = gauges
        self._rates = rates
        self._interval = interval
        self._clock = clock
        self._told: frozenset[str] = frozenset()

    def __repr__(self) -> str:
        return f"<LeakWatch every {self._interval:.0f} s, {len(self._told)} orphans>"

    async def run(self) -> None:
        """Audit until cancelled."""
        while True:
            try:
                await self.look()
            except (CloudError, ManagerError) as error:
                self._gauges.failures.inc()
                log.warning("no leak audit could be made: %s", error)
            await asyncio.sleep(self._interval)

    async def look(self) -> Audit:
        """One audit. Raises ``CloudError`` and ``ManagerError``."""
        instances = await self._provider.list()
        machines = await self._owners()
        found = audit(World(self._provider, instances, machines, self._nodes.list()), self._clock(), self._rates)
        self._gauges.show(found, self._clock())
        for orphan in found.orphans:
            if orphan.name not in self._told:
                log.warning("instance has no Machine instance=%s type=%s", orphan.name, orphan.instance_type)
        self._told = frozenset(orphan.name for orphan in found.orphans)
        return found

    async def _owners(self) -> list[Obj]:
        """What instances are made for, as it is now: a cache that lags would call a new instance an orphan."""
        found: list[Obj] = []
        for resource in (MACHINES, NODECLAIMS):
            try:
                found += (await self._client.list(resource)).items
            except NotFound:
                continue  # the kind is not served here
        return found


def add_leak_audit(
    mgr: Manager,
    provider: CloudProvider,
    rates: Rates,
    *,
    interval: float = INTERVAL,
    clock: Callable[[], datetime] = utc_now,
) -> LeakWatch:
    """Have the leader of ``mgr`` audit."""
    watch = LeakWatch(
        provider,
        mgr.live,
        mgr.cache.informer(NODES).store,
        LeakGauges(mgr.metrics),
        rates=rates,
        interval=interval,
        clock=clock,
    )
    mgr.add(watch.run, name="leak-audit")
    return watch
