"""Ends namespaces: deletes all that they hold, and lets them go when they are empty.

In: a namespace that is being deleted and still has the ``kubernetes`` finalizer. Out: deletions of every kind that
discovery lists, conditions that say what is left and what holds it, and at the end the finalizer's removal.
Never is a namespace let go while a kind could not be listed: what it may hold would be left behind.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from manager.builder import ControllerBuilder
from manager.client import Client
from manager.errors import ApiError, MethodNotAllowed, NotFound
from manager.manager import Manager
from manager.resources import NAMESPACES
from manager.types import Obj, Request, Result

from . import pods as p
from .acting import Owners
from .conditions import make, set_condition
from .discovery import Served, discover
from .times import Clock
from .world import World

log = logging.getLogger("kaito.local.workloads.namespaces")

_FINALIZER = "kubernetes"
_PARALLEL = 8
_SLOWEST = 5.0  # seconds between two looks at a namespace that does not get empty


@dataclass(slots=True)
class Remains:
    """What a pass found left: counts by kind and by finalizer, and what failed."""

    kinds: Counter[str] = field(default_factory=Counter)
    finalizers: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    undiscovered: Sequence[str] = ()

    @property
    def is_empty(self) -> bool:
        """Whether the namespace can go."""
        return not self.kinds and not self.failures and not self.undiscovered


def conditions(namespace: Obj, remains: Remains, now: datetime) -> list[Obj]:
    """The conditions that tell what the namespace waits for, as the built-in controller words them."""
    kinds = ", ".join(f"{k} has {n} resource instances" for k, n in sorted(remains.kinds.items()))
    held = ", ".join(f"{f} in {n} resource instances" for f, n in sorted(remains.finalizers.items()))
    facts = (
        (
            "NamespaceDeletionDiscoveryFailure",
            bool(remains.undiscovered),
            ("DiscoveryFailed", f"Discovery failed for some groups: {', '.join(remains.undiscovered)}"),
            ("ResourcesDiscovered", "All resources successfully discovered"),
        ),
        (
            "NamespaceDeletionContentFailure",
            bool(remains.failures),
            ("ContentDeletionFailed", "; ".join(remains.failures)),
            ("ContentDeleted", "All content successfully deleted, may be waiting on finalization"),
        ),
        (
            "NamespaceContentRemaining",
            bool(remains.kinds),
            ("SomeResourcesRemain", f"Some resources are remaining: {kinds}"),
            ("ContentRemoved", "All content successfully removed"),
        ),
        (
            "NamespaceFinalizersRemaining",
            bool(remains.finalizers),
            ("SomeFinalizersRemain", f"Some content in the namespace has finalizers remaining: {held}"),
            ("ContentHasNoFinalizers", "All content-preserving finalizers finished"),
        ),
    )
    result: list[Obj] = list(p.status_of(namespace).get("conditions") or ())
    for kind, is_so, yes, no in facts:
        status = "True" if is_so else "False"
        result = set_condition(result, make(kind, status, *(yes if is_so else no), now))
    return result


class NamespaceReconciler:
    """Empties and finalizes namespaces."""

    def __init__(self, manager: Manager, world: World, clock: Clock) -> None:
        self._client = manager.live
        self._clock = clock
        self._owners = Owners(manager.live, NAMESPACES, world.namespaces)
        self._passes: dict[str, int] = {}

    async def reconcile(self, request: Request) -> Result:
        """One pass over everything in the namespace."""
        namespace = self._owners.get(request)
        if namespace is None or not _is_ending(namespace):
            self._passes.pop(request.name, None)
            return Result()
        remains = await empty(self._client, request.name)
        if remains.is_empty:
            await self._finalize(request.name)
            self._passes.pop(request.name, None)
            return Result()
        passes = self._passes[request.name] = self._passes.get(request.name, 0) + 1
        if passes > 1:
            # Most namespaces are empty at the second look, and nobody reads conditions that live for 100 ms.
            status = {
                **p.status_of(namespace),
                "conditions": conditions(namespace, remains, self._clock()),
            }
            await self._owners.report(namespace, status)
        return Result(requeue_after=min(_SLOWEST, 0.05 * 2**passes))

    async def _finalize(self, name: str) -> None:
        try:
            live = await self._client.get(NAMESPACES, name)
            if _is_ending(live):
                rest = [f for f in p.spec_of(live).get("finalizers") or () if f != _FINALIZER]
                live = {**live, "spec": {**p.spec_of(live), "finalizers": rest}}
                await self._client.replace(NAMESPACES, live, subresource="finalize")
        except NotFound:
            return
        log.info("namespace finalized name=%s", name)


def _is_ending(namespace: Obj) -> bool:
    return p.is_terminating(namespace) and _FINALIZER in (p.spec_of(namespace).get("finalizers") or ())


async def empty(client: Client, namespace: str) -> Remains:
    """Ask for the deletion of everything in the namespace, and say what is left."""
    catalogue = await discover(client)
    remains = Remains(undiscovered=catalogue.missing)
    limit = asyncio.Semaphore(_PARALLEL)

    async def one(served: Served) -> None:
        async with limit:
            try:
                await _empty_one(client, namespace, served, remains)
            except ApiError as error:
                remains.failures.append(f"{served.resource.group_kind}: {error.message}")

    async with asyncio.TaskGroup() as tasks:
        for served in catalogue.in_namespaces():
            tasks.create_task(one(served))
    remains.failures.sort()
    return remains


async def _empty_one(client: Client, namespace: str, served: Served, remains: Remains) -> None:
    resource = served.resource
    try:
        found = (await client.list(resource, namespace)).items
    except (NotFound, MethodNotAllowed):
        return  # its CRD has just gone, or it cannot be listed after all
    fresh = [obj for obj in found if not p.is_terminating(obj)]
    if fresh and served.can("deletecollection"):
        body: Obj = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"}
        await client.request("DELETE", resource.path(namespace), body=body)
    else:
        for obj in fresh:
            try:
                await client.delete(resource, p.name_of(obj), namespace, propagation="Background")
            except NotFound:
                continue
    left = (await client.list(resource, namespace)).items if fresh else found
    if left:
        remains.kinds[f"{resource.plural}.{resource.group}"] += len(left)
    for obj in left:
        remains.finalizers.update(p.meta_of(obj).get("finalizers") or ())


def add(manager: Manager, world: World, clock: Clock) -> None:
    """Register the controller."""
    reconciler = NamespaceReconciler(manager, world, clock)
    ControllerBuilder(manager, "namespace").for_(NAMESPACES).options(max_concurrent=4).build(reconciler)
