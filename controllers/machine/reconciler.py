"""The Machine controller's loop: observe, decide, act, once for each key.

In: a Machine's name. Out: at most one cloud call, patches of the node, and the status when it changed. The
cloud and the API server own all state; the only memory is the rate limiter of cloud calls. Nothing is waited
for: an operation under way is looked at again after the provider's poll interval, or when the node changes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime

from api import keys
from api.conditions import conditions_of
from controllers.machine.attempts import AttemptBook
from controllers.machine.decide import decide, needs_cloud
from controllers.machine.events import transitions
from controllers.machine.model import (
    Action,
    AddFinalizer,
    CloudAction,
    CreateInstance,
    DeleteMachine,
    DeleteNode,
    DeletePod,
    Limits,
    Observation,
    PatchNode,
    Plan,
    RemoveFinalizer,
)
from controllers.resources import MACHINES
from manager.client import Client
from manager.errors import Conflict, NotFound
from manager.events import EventRecorder
from manager.ownwrites import OwnWrites
from manager.resources import NODES, PODS
from manager.store import Store
from manager.types import Obj, Request, Result
from provisioner import CloudProvider, Instance, InstanceState
from provisioner import errors as cloud_errors

log = logging.getLogger("kaito.controllers.machine")

BY_INSTANCE = "instance"  # name of the index on nodes, and on Machines: what their instance is called


def instance_name(provider: CloudProvider, machine: Obj) -> str:
    """What the Machine's instance is called. Raises ``CloudError`` when it is another cloud's."""
    meta, status = machine["metadata"], machine.get("status") or {}
    return provider.instance_name(str(meta["name"]), str(meta["uid"]), str(status.get("providerID") or ""))


@dataclass(frozen=True, slots=True)
class MachineReconciler:
    """Turns Machines into nodes with one cloud provider."""

    client: Client
    machines: Store
    nodes: Store
    provider: CloudProvider
    recorder: EventRecorder
    clock: Callable[[], datetime]
    limits: Limits
    attempts: AttemptBook
    own: OwnWrites

    async def reconcile(self, request: Request) -> Result:
        """Move one Machine one step nearer to its node, or to being gone."""
        cached = self.machines.get(request.name)
        if cached is None:
            self.attempts.forget(request.name)
            self.own.forget(request.name)
            return Result()
        machine = self.own.newest(request.name, cached)
        now = self.clock()
        obs = await self._observe(machine, now)
        plan = decide(obs, now)
        # What these steps answer belongs into the status of this very reconcile, so decide again with it.
        # They run out by themselves: finalizer, then one create or delete, after which there is one or none.
        for _ in range(4):
            if AddFinalizer() in plan.actions:
                obs = replace(obs, machine=await self._set_finalizer(obs.machine, present=True))
            elif plan.cloud is not None:
                obs = await self._call(obs, plan.cloud, now)
            else:
                break
            plan = decide(obs, now)
        await self._act(obs, plan)
        return Result(requeue_after=plan.requeue_after)

    # ------------------------------------------------------------------ observe

    async def _observe(self, machine: Obj, now: datetime) -> Observation:
        obs = Observation(
            machine=machine,
            attempts=self.attempts.of(machine),
            poll_interval=self.provider.poll_interval,
            limits=self.limits,
        )
        try:
            obs = replace(obs, instance_name=instance_name(self.provider, machine))
        except cloud_errors.CloudError as error:
            return self._refused(obs, error, now)
        if needs_cloud(obs, now):
            obs = await self._look_up(obs, now)
        obs = replace(obs, nodes=tuple(self.nodes.by_index(BY_INSTANCE, obs.instance_name)))
        if obs.deleting and obs.instance is not None:
            obs = replace(obs, pods=await self._pods_on(obs.nodes))
        return obs

    async def _look_up(self, obs: Observation, now: datetime) -> Observation:
        try:
            instance = await self.provider.get(obs.instance_name)
        except cloud_errors.NotFound:
            return replace(obs, asked=True, instance=None, cloud_error=None)
        except cloud_errors.CloudError as error:
            return self._refused(obs, error, now)
        if instance.state is InstanceState.RUNNING and not obs.deleting:
            self.attempts.forget(obs.name)
        wait = instance.look_again or obs.poll_interval
        return replace(obs, asked=True, instance=instance, cloud_error=None, poll_interval=wait)

    async def _pods_on(self, nodes: tuple[Obj, ...]) -> tuple[Obj, ...]:
        pods: list[Obj] = []
        for node in nodes:
            selector = f"spec.nodeName={node['metadata']['name']}"
            pods += (await self.client.list(PODS, field_selector=selector)).items
        return tuple(pods)

    # ------------------------------------------------------------------ act

    async def _call(self, obs: Observation, action: CloudAction, now: datetime) -> Observation:
        # An instance that failed is cleared away and counts as a refused attempt.
        failed = obs.instance.failure if obs.instance is not None and not obs.deleting else None
        try:
            if isinstance(action, CreateInstance):
                log.info("creating instance machine=%s type=%s", obs.name, action.request.instance_types[0])
                instance: Instance | None = await self.provider.create(action.request)
            else:
                log.info("deleting instance machine=%s", obs.name)
                await self.provider.delete(obs.instance_name)
                instance = replace(obs.instance, state=InstanceState.DELETING) if obs.instance else None
        except cloud_errors.InstanceExists:
            return await self._look_up(obs, now)
        except cloud_errors.NotFound:
            instance = None
        except cloud_errors.CloudError as error:
            return self._refused(obs, error, now)
        wait = (instance.look_again if instance else None) or obs.poll_interval
        obs = replace(obs, asked=True, instance=instance, cloud_error=None, poll_interval=wait)
        return self._refused(obs, failed, now) if failed is not None else obs

    def _refused(self, obs: Observation, error: cloud_errors.CloudError, now: datetime) -> Observation:
        log.warning("cloud refused machine=%s reason=%s code=%s", obs.name, error.reason, error.code)
        attempts = self.attempts.failed(obs.machine, error, now)
        return replace(obs, cloud_error=error, attempts=attempts)

    async def _act(self, obs: Observation, plan: Plan) -> None:
        leave = RemoveFinalizer() in plan.actions
        for action in plan.actions:
            await self._carry_out(obs, action)
        if leave:
            await self._set_finalizer(obs.machine, present=False)
            self.attempts.forget(obs.name)
        else:
            # After the node's patch: the status says "registered" only when the node has been made ours.
            await self._write_status(obs, plan.status)

    async def _carry_out(self, obs: Observation, action: Action) -> None:
        try:
            match action:
                case PatchNode(node, patch):
                    await self.client.patch(NODES, node, patch)
                case DeleteNode(node, uid):
                    await self.client.delete(NODES, node, uid=uid)
                case DeletePod(namespace, name, uid):
                    await self.client.delete(PODS, name, namespace, uid=uid)
                case DeleteMachine(uid):
                    note = "The node did not join the cluster in time; the Machine is given up"
                    self.recorder.event(obs.machine, "Warning", "RegistrationTimeout", note)
                    await self.client.delete(MACHINES, obs.name, uid=uid)
        except NotFound:
            return  # absent is what all of these want, or it will be observed next time
        except Conflict:
            if isinstance(action, PatchNode):
                raise
            # A namesake with another uid is not the object that was meant.

    async def _set_finalizer(self, machine: Obj, *, present: bool) -> Obj:
        meta = machine["metadata"]
        others = [item for item in meta.get("finalizers") or [] if item != keys.TERMINATION_FINALIZER]
        wanted = [*others, keys.TERMINATION_FINALIZER] if present else others
        patch: Obj = {"metadata": {"finalizers": wanted, "resourceVersion": meta["resourceVersion"]}}
        try:
            return await self.client.patch(MACHINES, meta["name"], patch)
        except NotFound:
            if present:
                raise
            return machine

    async def _write_status(self, obs: Observation, status: Obj) -> None:
        before = obs.machine.get("status") or {}
        if status == before:
            return
        try:
            written = await self.client.patch(MACHINES, obs.name, {"status": status}, subresource="status")
        except NotFound:
            return
        self.own.wrote(obs.name, written)
        for event in transitions(obs.conditions, conditions_of({"status": status})):
            self.recorder.event(obs.machine, event.type, event.reason, event.note)
