"""StatefulSet: observe its pods and revisions, decide, and carry it out."""

from __future__ import annotations

from manager.builder import ControllerBuilder
from manager.errors import AlreadyExists, ApiError, Conflict, NotFound
from manager.manager import Manager
from manager.ownwrites import OwnWrites
from manager.resources import CONTROLLERREVISIONS, PERSISTENTVOLUMECLAIMS, PODS, STATEFULSETS
from manager.selectors import selector_from
from manager.types import Obj, Request, Result

from .. import history, revisions
from .. import pods as p
from ..acting import Children, Owners, is_namespace_ending
from ..ownership import Claims, sort_out
from ..templates import REVISION_LABEL
from ..times import Clock
from ..world import World
from .decide import Revisions, decide
from .identity import new_claims, ordinal_of


class StatefulSetReconciler:
    """Keeps the numbered pods of each StatefulSet, in order."""

    def __init__(self, manager: Manager, world: World, clock: Clock) -> None:
        self._client = manager.live
        self._world = world
        self._clock = clock
        self._events = manager.events("statefulset-controller")
        self._owners = Owners(manager.live, STATEFULSETS, world.statefulsets)
        self._own = OwnWrites(lambda: world.pods.resource_version)
        self._children = Children(self._client, PODS, self._own, self._events)

    async def reconcile(self, request: Request) -> Result:
        """One step towards size and template."""
        group = str(request)
        statefulset = self._owners.get(request)
        if statefulset is None:
            self._own.forget(group)
            return Result()
        pods = await self._pods(statefulset, group)
        known = await self._revisions(statefulset, pods)
        plan = decide(statefulset, pods, known, self._clock())
        try:
            for ordinal, pod in plan.create.items():
                await self._create(statefulset, group, ordinal, pod)
            for pod in plan.recreate:
                note = f"StatefulSet {request} is recreating failed Pod {p.name_of(pod)}"
                self._events.event(statefulset, "Warning", "RecreatingFailedPod", note)
            for pod in [*plan.recreate, *plan.delete]:
                await self._delete(statefulset, group, pod)
        finally:
            await self._owners.report(statefulset, plan.status)
        return Result(requeue_after=plan.look_again)

    async def _pods(self, statefulset: Obj, group: str) -> list[Obj]:
        selector = selector_from(p.spec_of(statefulset).get("selector"))
        seen = self._own.view(group, self._world.candidates(self._world.pods, statefulset))
        claims = sort_out(statefulset, selector, seen)
        # Only pods whose name is one of the set's can be members.
        adopt = [pod for pod in claims.adopt if ordinal_of(statefulset, pod) is not None]
        wanted = Claims(claims.kept, adopt, claims.release)
        return await self._children.claim(STATEFULSETS, statefulset, group, wanted)

    async def _revisions(self, statefulset: Obj, pods: list[Obj]) -> Revisions:
        present = self._world.owned(self._world.revisions, p.uid_of(statefulset))
        current = str(p.status_of(statefulset).get("currentRevision") or "")
        in_use = {current, *(p.labels_of(pod).get(REVISION_LABEL, "") for pod in pods)}
        update = await revisions.sync(self._client, self._owners, statefulset, present, in_use)
        templates = {p.name_of(r): history.template_of(r) for r in [*present, update]}
        if current not in templates:
            current = p.name_of(update)
        return Revisions(current, p.name_of(update), templates)

    async def _create(self, statefulset: Obj, group: str, ordinal: int, pod: Obj) -> None:
        name, owner = p.name_of(pod), p.name_of(statefulset)
        try:
            await self._ensure_claims(statefulset, ordinal, name)
            made = await self._client.create(PODS, pod)
        except AlreadyExists:
            # Our own, not in the cache yet, or a stranger's of that name: its end brings us back.
            return
        except ApiError as error:
            if is_namespace_ending(error):
                return
            note = f"create Pod {name} in StatefulSet {owner} failed error: {error.message}"
            self._events.event(statefulset, "Warning", "FailedCreate", note)
            raise
        self._own.wrote(group, made)
        note = f"create Pod {name} in StatefulSet {owner} successful"
        self._events.event(statefulset, "Normal", "SuccessfulCreate", note, action=f"Create-{name}"[:128])

    async def _ensure_claims(self, statefulset: Obj, ordinal: int, pod: str) -> None:
        for claim in new_claims(statefulset, ordinal):
            name = p.name_of(claim)
            if self._world.claims.get(name, p.namespace_of(statefulset)) is not None:
                continue
            try:
                await self._client.create(PERSISTENTVOLUMECLAIMS, claim)
            except AlreadyExists:
                continue
            note = f"create Claim {name} Pod {pod} in StatefulSet {p.name_of(statefulset)} success"
            self._events.event(statefulset, "Normal", "SuccessfulCreate", note, action=f"Create-{name}"[:128])

    async def _delete(self, statefulset: Obj, group: str, pod: Obj) -> None:
        try:
            await self._client.delete(PODS, p.name_of(pod), p.namespace_of(pod), uid=p.uid_of(pod))
        except (NotFound, Conflict):
            self._own.deleted(group, pod)
            return
        self._own.deleted(group, pod)
        note = f"delete Pod {p.name_of(pod)} in StatefulSet {p.name_of(statefulset)} successful"
        self._events.event(
            statefulset, "Normal", "SuccessfulDelete", note, action=f"Delete-{p.name_of(pod)}"[:128]
        )


def add(manager: Manager, world: World, clock: Clock) -> None:
    """Register the controller."""
    reconciler = StatefulSetReconciler(manager, world, clock)
    builder = ControllerBuilder(manager, "statefulset").for_(STATEFULSETS).owns(PODS)
    builder.owns(CONTROLLERREVISIONS).options(max_concurrent=2).build(reconciler)
