"""Wires the controller into a manager: for which kinds, what it watches, and whom a change concerns.

In: a manager, a cloud. Out: one controller for each of Machine and NodeClaim that the cluster serves, and the
sweep. A kind that is not served is looked for from time to time, and its controller added when it appears; nothing
waits for it meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from typing import Any

from controllers.machine.attempts import AttemptBook, LookBook
from controllers.machine.evict import Evictions
from controllers.machine.kinds import KINDS, Kind
from controllers.machine.metered import MeteredProvider
from controllers.machine.metrics import MachineMetrics
from controllers.machine.progress import History
from controllers.machine.reconciler import BY_INSTANCE, MachineReconciler, Memory, instance_name
from controllers.machine.replacements import ReplacementBook
from controllers.machine.sweep import Sweeper
from controllers.settings import MachineSettings
from manager.builder import ControllerBuilder
from manager.errors import ConnectionFailed, ServerError
from manager.manager import Manager
from manager.ownwrites import OwnWrites
from manager.predicates import subject
from manager.ratelimit import ItemExponential
from manager.resources import NODES
from manager.types import Obj, Request
from provisioner import CloudProvider
from provisioner.errors import CloudError

log = logging.getLogger("kaito.controllers.machine.setup")


def add_machine_controller(mgr: Manager, provider: CloudProvider, settings: MachineSettings) -> None:
    """Add what turns Machines and NodeClaims into nodes with ``provider``."""
    served = ServedKinds(mgr, MeteredProvider(provider, mgr.metrics), settings)
    mgr.add(served.run, name="machine-kinds", needs_leader=False)
    mgr.add(served.sweeper.run, name="machine-sweep")


class ServedKinds:
    """The kinds that the cluster serves, each with its controller."""

    def __init__(self, mgr: Manager, provider: CloudProvider, settings: MachineSettings) -> None:
        self._mgr, self._provider, self._settings = mgr, provider, settings
        self._nodes = mgr.cache.informer(NODES).store
        self._nodes.add_index(BY_INSTANCE, self._instance_of_node)
        self._recorder = mgr.events("kaito-machine")
        self._memory = Memory(History(), ReplacementBook(), MachineMetrics(mgr.metrics))
        self._evictions = Evictions(mgr.live)
        self._served: list[Kind] = []
        self.sweeper = Sweeper(
            mgr.live,
            provider,
            self._nodes,
            lambda: tuple(self._served),
            self._recorder,
            self._memory.metrics,
            settings.clock,
            settings.sweep,
        )

    def __repr__(self) -> str:
        return f"<ServedKinds {', '.join(kind.name for kind in self._served) or 'none'}>"

    async def run(self) -> None:
        """Look for the kinds until all are served; then there is nothing left to do."""
        said = ""
        while absent := [kind for kind in KINDS if kind not in self._served]:
            problem = f"the cluster does not serve {' and '.join(kind.resource.plural for kind in absent)}"
            try:
                for kind in absent:
                    resource = kind.resource
                    found = await self._mgr.live.discover(resource.group, resource.kind, resource.version)
                    if found is not None:
                        self._add(kind)
            except (ConnectionFailed, ServerError) as error:
                problem = str(error)
            if len(self._served) < len(KINDS):
                if problem != said and not self._served:
                    log.warning("waiting for a kind to serve: %s", problem)
                    said = problem
                poll = self._settings.kinds_poll
                await asyncio.sleep(poll if self._served else min(poll, 1.0))  # with nothing to do, it is urgent

    def _add(self, kind: Kind) -> None:
        log.info("serving %s", kind.resource.plural)
        mgr, settings = self._mgr, self._settings
        informer = mgr.cache.informer(kind.resource)
        machines = informer.store
        machines.add_index(BY_INSTANCE, self._instance_of_machine)

        def machines_of(node: Obj) -> Iterable[Request]:
            if not informer.has_synced:
                return  # all of the kind are looked at when its first list is in
            for name in self._instance_of_node(node):
                for machine in machines.by_index(BY_INSTANCE, name):
                    if kind.serves(machine):
                        yield Request("", machine["metadata"]["name"])

        reconciler = MachineReconciler(
            kind=kind,
            client=mgr.live,
            machines=machines,
            nodes=self._nodes,
            provider=self._provider,
            recorder=self._recorder,
            evictions=self._evictions,
            clock=settings.clock,
            limits=settings.limits,
            attempts=AttemptBook(),
            looks=LookBook(),
            memory=self._memory,
            own=OwnWrites(lambda: machines.resource_version),
        )

        def is_served(event: Any) -> bool:
            return kind.serves(subject(event))

        builder = ControllerBuilder(mgr, kind.name.lower()).for_(kind.resource, is_served)
        builder.watches(NODES, machines_of).options(
            max_concurrent=settings.max_concurrent, rate_limiter=lambda: ItemExponential(0.2, 60.0)
        )
        builder.build(reconciler)
        self._served.append(kind)

    def _instance_of_machine(self, machine: Obj) -> Iterable[str]:
        try:
            return [instance_name(self._provider, machine)]
        except CloudError:
            return []  # another cloud's; its own reconcile says so

    def _instance_of_node(self, node: Obj) -> Iterable[str]:
        name = self._provider.instance_of(node)
        return [name] if name else []
