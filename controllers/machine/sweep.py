"""The sweep: every two minutes, what one reconcile cannot see because an object of it is gone.

In: live lists of the cloud's instances and of Machines and NodeClaims, and the cached nodes. Out: deletions, few
at a time; events and metrics about what is held back. It runs on the leader only. What it remembers (first sights)
is lost with the process, and then every window begins anew: that is the safe side.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta

from controllers.machine.consistency import inconsistencies
from controllers.machine.garbage import (
    Claim,
    Finding,
    Sweep,
    SweepLimits,
    Watch,
    What,
    World,
    continued,
    gc_decide,
)
from controllers.machine.kinds import Kind
from controllers.machine.metrics import MachineMetrics
from controllers.machine.nodes import remove_node
from controllers.machine.reconciler import instance_name
from manager.client import Client
from manager.errors import Conflict, ManagerError, NotFound
from manager.events import EventRecorder
from manager.store import Store
from manager.types import Obj
from provisioner import CloudProvider, Instance, InstanceState
from provisioner import errors as cloud_errors

log = logging.getLogger("kaito.controllers.machine.sweep")

_AT_ONCE = 8
_CONSISTENCY_EVERY = timedelta(minutes=10)


class Sweeper:
    """See the module.

    Args:
        kinds: tells which kinds are served at the moment.
        sleep: waits between two passes.
    """

    def __init__(
        self,
        client: Client,
        provider: CloudProvider,
        nodes: Store,
        kinds: Callable[[], tuple[Kind, ...]],
        recorder: EventRecorder,
        metrics: MachineMetrics,
        clock: Callable[[], datetime],
        limits: SweepLimits,
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._client, self._provider, self._nodes, self._kinds = client, provider, nodes, kinds
        self._recorder, self._metrics, self._clock, self._limits = recorder, metrics, clock, limits
        self._sleep = sleep
        self._watch: Watch | None = None
        self._checked: datetime | None = None
        self._held: set[tuple[What, str]] = set()

    def __repr__(self) -> str:
        return f"<Sweeper {self._watch}>"

    async def run(self) -> None:
        """Sweep until cancelled. A pass that fails is told and does not end it."""
        while True:
            try:
                await self.sweep()
            except ManagerError as error:
                log.warning("sweep failed: %s", error)
            await self._sleep(self._limits.period)

    async def sweep(self) -> Sweep:
        """One pass; what was decided.

        Raises:
            ManagerError: the API server could not be asked.
        """
        world = await self._observe()
        now = self._clock()
        sweep = gc_decide(world, now, self._limits)
        self._watch = sweep.watch
        await self._act(sweep)
        if self._checked is None or now - self._checked >= _CONSISTENCY_EVERY:
            self._checked = now
            self._check(world)
        return sweep

    # ------------------------------------------------------------------ observe

    async def _observe(self) -> World:
        began = self._clock()
        instances = await self._instances()
        claims: list[Claim] = []
        listed: set[str] = set()
        for kind in self._kinds():
            try:
                found = (await self._client.list(kind.resource)).items
            except NotFound:
                continue  # the kind is not served any more; nothing is concluded about its objects
            listed.add(kind.name)
            claims += [Claim(kind, obj, self._name(obj), kind.serves(obj)) for obj in found]
        nodes = tuple((name, node) for node in self._nodes.list() if (name := self._provider.instance_of(node)))
        return World(
            tuple(claims), instances, nodes, frozenset(listed), continued(self._watch, began, self._limits)
        )

    async def _instances(self) -> tuple[Instance, ...] | None:
        try:
            return tuple(await self._provider.list())
        except cloud_errors.CloudError as error:
            log.warning("the cloud's instances cannot be listed: %s", error)
            return None

    def _name(self, obj: Obj) -> str:
        try:
            return instance_name(self._provider, obj)
        except cloud_errors.CloudError:
            return ""  # another cloud's

    # ------------------------------------------------------------------ act

    async def _act(self, sweep: Sweep) -> None:
        held = {(item.what, item.name) for item in sweep.findings if item.held}
        for item in sweep.findings:
            if item.held and (item.what, item.name) not in self._held:
                log.warning("left over and kept: %s; %s", item.why, item.held)
                self._metrics.swept(str(item.what), "held")
                if item.claim is not None:
                    note = f"{item.why}. Not done: {item.held}"
                    self._recorder.event(item.claim.obj, "Warning", "ReplacementHeld", note)
        self._held = held
        places = asyncio.Semaphore(_AT_ONCE)

        async def remove(item: Finding) -> None:
            async with places:
                await self._remove(item)

        async with asyncio.TaskGroup() as group:
            for item in sweep.findings:
                if not item.held:
                    group.create_task(remove(item), name=f"sweep {item.what} {item.name}")

    async def _remove(self, item: Finding) -> None:
        try:
            done = await self._removed(item)
        except (NotFound, cloud_errors.NotFound):
            done = True  # gone by itself
        except (ManagerError, cloud_errors.CloudError) as error:
            log.warning("left over and not removed yet: %s; %s", item.why, error)
            self._metrics.swept(str(item.what), "failed")
            return
        if done:
            self._metrics.swept(str(item.what), "removed")

    async def _removed(self, item: Finding) -> bool:
        log.warning("removing what is left over: %s", item.why)
        if item.what is What.INSTANCE:
            await self._provider.delete(item.name)
        elif item.node is not None:
            await remove_node(self._client, item.name, str(item.node["metadata"]["uid"]))
        elif item.claim is not None:
            if item.what is What.LOST and await self._exists(item.claim.instance):
                return False
            kind, obj = item.claim.kind, item.claim.obj
            try:
                await self._client.delete(kind.resource, item.name, uid=item.claim.uid)
            except Conflict:
                return False  # a namesake was made meanwhile
            self._recorder.event(obj, "Warning", str(item.what), item.why)
            self._metrics.disrupted(kind, obj, "garbage_collected" if kind.knative else str(item.what))
        return True

    async def _exists(self, instance: str) -> bool:
        """Asked by its own name: a list that came up short must not cost a node."""
        try:
            return (await self._provider.get(instance)).state is not InstanceState.DELETING
        except cloud_errors.NotFound:
            return False

    def _check(self, world: World) -> None:
        nodes = dict(world.nodes)
        for claim in world.claims:
            node = nodes.get(claim.instance)
            if not claim.served or node is None or not claim.has(claim.kind.initialized):
                continue
            for note in inconsistencies(claim.obj, node):
                self._recorder.event(claim.obj, "Warning", "FailedConsistencyCheck", note)
                self._metrics.inconsistent("node_shape")
