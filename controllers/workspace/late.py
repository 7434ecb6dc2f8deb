"""Machines and NodeClaims are watched as soon as the cluster serves them, whenever that is.

In: discovery, asked again from time to time while a kind is missing; the workspace controller. Out: one more
store of what was made, one more source of the controller, and every Workspace looked at once more. A kind that
is missing holds nothing up: it is told in a condition, and installing its CRD needs no restart.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass

from manager.controller import Controller
from manager.errors import ManagerError
from manager.handlers import MapFunction, enqueue_mapped
from manager.manager import Manager
from manager.sources import KindSource
from manager.store import IndexFunction, Store
from manager.types import Request, Resource

log = logging.getLogger("kaito.controllers.workspace.late")


@dataclass(frozen=True, slots=True)
class LateKind:
    """A kind that may come to be served.

    Attributes:
        made: where its store goes once it is filled; decisions read it.
        poll: seconds between two questions whether it is served.
    """

    mgr: Manager
    controller: Controller
    resource: Resource
    index: tuple[str, IndexFunction]
    requests: MapFunction
    made: dict[Resource, Store]
    workspaces: Store
    poll: float

    async def run(self) -> None:
        """Wait until the kind is served, watch it, and be done. Runs until then or until cancelled."""
        resource = self.resource
        await until_served(self.mgr, resource, self.poll)
        log.info("watching kind=%s, which is served now", resource.kind)
        informer = self.mgr.cache.informer(resource)
        informer.add_index(*self.index)
        # A decision on a store that is not filled would make Machines anew that are there.
        await informer.wait_synced()
        self.made[resource] = informer.store
        await self.controller.watch(KindSource(self.mgr.cache, resource, enqueue_mapped(self.requests)))
        for workspace in self.workspaces.list():
            meta = workspace["metadata"]
            self.controller.queue.add(Request(meta["namespace"], meta["name"]))


async def until_served(mgr: Manager, resource: Resource, poll: float) -> None:
    """Return once the cluster serves a kind. A cluster that cannot be asked is asked again."""
    while True:
        try:
            if await mgr.live.discover(resource.group, resource.kind, resource.version) is not None:
                return
        except ManagerError as error:
            log.warning("whether kind=%s is served cannot be told: %s", resource.kind, error)
        await asyncio.sleep(poll)
