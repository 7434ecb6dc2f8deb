"""Deployment: observe its ReplicaSets, decide, and carry it out."""

from __future__ import annotations

from collections.abc import Iterable

from manager.builder import ControllerBuilder
from manager.errors import AlreadyExists, ApiError, Conflict, NotFound
from manager.manager import Manager
from manager.meta import controller_of
from manager.ownwrites import OwnWrites
from manager.resources import DEPLOYMENTS, PODS, REPLICASETS
from manager.selectors import selector_from
from manager.types import Obj, Request, Result

from .. import pods as p
from ..acting import Children, Owners, is_namespace_ending
from ..conditions import make, set_condition
from ..ownership import sort_out
from ..replicaset.decide import wanted
from ..templates import same_template
from ..times import Clock
from ..world import World, request_for
from .decide import Plan, decide
from .revisions import find_new


class DeploymentReconciler:
    """Moves each Deployment towards its template and size."""

    def __init__(self, manager: Manager, world: World, clock: Clock) -> None:
        self._client = manager.live
        self._world = world
        self._clock = clock
        self._events = manager.events("deployment-controller")
        self._owners = Owners(manager.live, DEPLOYMENTS, world.deployments)
        self._own = OwnWrites(lambda: world.replicasets.resource_version)
        self._children = Children(self._client, REPLICASETS, self._own, self._events)

    async def reconcile(self, request: Request) -> Result:
        """One step of the rollout, or of scaling, and the report."""
        group = str(request)
        deployment = self._owners.get(request)
        if deployment is None:
            self._own.forget(group)
            return Result()
        selector = selector_from(p.spec_of(deployment).get("selector"))
        if not selector:
            self._events.event(deployment, "Warning", "SelectingAll", "This deployment is selecting all pods.")
            return Result()
        seen = self._own.view(group, self._world.candidates(self._world.replicasets, deployment))
        replicasets = await self._children.claim(
            DEPLOYMENTS, deployment, group, sort_out(deployment, selector, seen)
        )
        running = self._old_pods_running(deployment, replicasets)
        plan = decide(deployment, replicasets, self._clock(), old_pods_running=running)
        await self._act(deployment, group, plan)
        return Result(requeue_after=plan.look_again)

    def _old_pods_running(self, deployment: Obj, replicasets: list[Obj]) -> bool:
        new = find_new(deployment, replicasets)
        return any(
            not p.is_finished(pod)
            for rs in replicasets
            if new is None or p.uid_of(rs) != p.uid_of(new)
            for pod in self._world.owned(self._world.pods, p.uid_of(rs))
        )

    async def _act(self, deployment: Obj, group: str, plan: Plan) -> None:
        if plan.create is not None:
            await self._create(deployment, group, plan)
        for change in plan.changes:
            rs = change.replicaset
            changed = await self._client.patch(
                REPLICASETS, p.name_of(rs), change.patch, namespace=p.namespace_of(rs)
            )
            self._own.wrote(group, changed)
            if change.note:
                self._tell_scaling(deployment, change.note)
        for rs in plan.delete:
            try:
                await self._client.delete(
                    REPLICASETS, p.name_of(rs), p.namespace_of(rs), uid=p.uid_of(rs), propagation="Background"
                )
            except (NotFound, Conflict):
                pass  # gone already
            self._own.deleted(group, rs)
        await self._owners.report(deployment, plan.status, plan.annotations)

    async def _create(self, deployment: Obj, group: str, plan: Plan) -> None:
        wanted_rs = plan.create
        assert wanted_rs is not None  # noqa: S101 - the caller looked
        name, size = p.name_of(wanted_rs), wanted(wanted_rs)
        try:
            made = await self._client.create(REPLICASETS, wanted_rs)
        except AlreadyExists:
            await self._resolve_namesake(deployment, group, wanted_rs)
            return
        except ApiError as error:
            if is_namespace_ending(error):
                return
            message = f'Failed to create new replica set "{name}": {error.message}'
            self._events.event(deployment, "Warning", "ReplicaSetCreateError", message)
            failed = make(
                "Progressing", "False", "ReplicaSetCreateError", message, self._clock(), update_time=True
            )
            conditions = set_condition(plan.status.get("conditions"), failed)
            await self._owners.report(deployment, {**plan.status, "conditions": conditions})
            raise
        self._own.wrote(group, made)
        if size:
            self._tell_scaling(deployment, f"Scaled up replica set {name} from 0 to {size}")

    def _tell_scaling(self, deployment: Obj, note: str) -> None:
        # Each step of a rollout is news; the recorder tells events of one object apart by their action.
        self._events.event(deployment, "Normal", "ScalingReplicaSet", note, action=note[:128])

    async def _resolve_namesake(self, deployment: Obj, group: str, wanted_rs: Obj) -> None:
        """The name is taken: by ourselves a moment ago, or by something else, which a new hash avoids."""
        present = await self._client.get(REPLICASETS, p.name_of(wanted_rs), p.namespace_of(deployment))
        controller = controller_of(present)
        ours = controller is not None and controller.get("uid") == p.uid_of(deployment)
        if ours and same_template(p.spec_of(present)["template"], p.spec_of(wanted_rs)["template"]):
            self._own.wrote(group, present)
            return
        count = int(p.status_of(deployment).get("collisionCount") or 0) + 1
        await self._owners.report(deployment, {**p.status_of(deployment), "collisionCount": count})
        raise Conflict(409, "Conflict", f"the name {p.name_of(wanted_rs)} is taken by another ReplicaSet")

    def of_pod(self, pod: Obj) -> Iterable[Request]:
        """The Deployment of a pod whose end it may be waiting for (Recreate only)."""
        reference = controller_of(pod)
        if reference is None or reference.get("kind") != "ReplicaSet":
            return []
        rs = self._world.replicasets.get(str(reference["name"]), p.namespace_of(pod))
        owner = controller_of(rs) if rs else None
        if owner is None or owner.get("kind") != "Deployment":
            return []
        deployment = self._world.deployments.get(str(owner["name"]), p.namespace_of(pod))
        if deployment is None or (p.spec_of(deployment).get("strategy") or {}).get("type") != "Recreate":
            return []
        return [request_for(deployment)]


def add(manager: Manager, world: World, clock: Clock) -> None:
    """Register the controller."""
    reconciler = DeploymentReconciler(manager, world, clock)
    builder = ControllerBuilder(manager, "deployment").for_(DEPLOYMENTS).owns(REPLICASETS)
    builder.watches(PODS, reconciler.of_pod).options(max_concurrent=5).build(reconciler)
