"""The Machine controller's loop: observe, decide, act, once for each key; NodeClaims go the same way.

In: a Machine's name. Out: at most one cloud call, patches of the node, and the status when it changed. The
cloud and the API server own all state; the token of a cloud operation is kept on the Machine in the reconcile that
started it. What is remembered here (waits, histories, counts) may be lost at any time. Nothing is waited for: an
operation under way is looked at again after the provider's poll interval, or when the node changes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from api import keys
from api.conditions import Condition, conditions_of, is_true, render_time
from controllers.machine.attempts import AttemptBook, LookBook
from controllers.machine.decide import decide, needs_cloud
from controllers.machine.drain import leaving, volumes
from controllers.machine.events import told
from controllers.machine.evict import Evictions
from controllers.machine.kinds import Kind
from controllers.machine.metrics import MachineMetrics
from controllers.machine.model import (
    Action,
    AddFinalizer,
    Annotate,
    CloudAction,
    CreateInstance,
    DeleteMachine,
    DeleteNode,
    DeletePod,
    EvictPod,
    Limits,
    Observation,
    PatchNode,
    Plan,
    RemoveFinalizer,
)
from controllers.machine.nodes import remove_node
from controllers.machine.progress import History
from controllers.machine.replacements import ReplacementBook
from controllers.resources import VOLUME_ATTACHMENTS
from manager.client import Client
from manager.errors import Conflict, Forbidden, Invalid, NotFound
from manager.events import EventRecorder
from manager.ownwrites import OwnWrites
from manager.resources import NODES, PODS
from manager.store import Store
from manager.types import Obj, Request, Result
from provisioner import CloudProvider, Instance, InstanceState
from provisioner import errors as cloud_errors

log = logging.getLogger("kaito.controllers.machine")

BY_INSTANCE = "instance"  # name of the index on nodes, and on Machines: what their instance is called
_STEPS = 6  # finalizer, evictions, one create or delete and what it finds; more would be a loop
_UNDER_WAY = (InstanceState.CREATING, InstanceState.DELETING)


def instance_name(provider: CloudProvider, machine: Obj) -> str:
    """What the Machine's instance is called. Raises ``CloudError`` when it is another cloud's."""
    meta, status = machine["metadata"], machine.get("status") or {}
    # Upstream's provisioner made instances for Machines by other rules; what it wrote down leads to them.
    known = status.get("providerID") or (meta.get("annotations") or {}).get(keys.LINKED) or ""
    return provider.instance_name(str(meta["name"]), str(meta["uid"]), str(known))


@dataclass(frozen=True, slots=True)
class Memory:
    """What one process remembers about all Machines of all kinds. None of it is needed to be right."""

    history: History
    replaced: ReplacementBook
    metrics: MachineMetrics


@dataclass(frozen=True, slots=True)
class MachineReconciler:
    """Turns objects of one kind into nodes with one cloud provider."""

    kind: Kind
    client: Client
    machines: Store
    nodes: Store
    provider: CloudProvider
    recorder: EventRecorder
    evictions: Evictions
    clock: Callable[[], datetime]
    limits: Limits
    attempts: AttemptBook
    looks: LookBook
    memory: Memory
    own: OwnWrites

    async def reconcile(self, request: Request) -> Result:
        """Move one Machine one step nearer to its node, or to being gone."""
        cached = self.machines.get(request.name)
        if cached is None:
            self.attempts.forget(request.name)
            self.looks.forget(request.name)
            self.own.forget(request.name)
            return Result()
        machine = self.own.newest(request.name, cached)
        now = self.clock()
        obs = await self._observe(machine, now)
        plan = decide(obs, now)
        # What these steps answer belongs into the status of this very reconcile, so decide again with it.
        for _ in range(_STEPS):
            if AddFinalizer() in plan.actions:
                obs = replace(obs, machine=await self._set_finalizer(obs.machine, present=True))
                self.memory.metrics.created(self.kind, obs.machine)
            elif any(isinstance(action, EvictPod) for action in plan.actions):
                obs = await self._evict(obs, plan)
            elif plan.cloud is not None:
                obs = await self._call(obs, plan.cloud, now)
            else:
                break
            plan = decide(obs, now)
        try:
            await self._act(obs, plan, now)
        except Conflict:
            # The node changed while it was made ours. What the cloud has said is kept, or it would be asked again.
            if not obs.deleting and not is_true(obs.conditions, self.kind.registered):
                await self._write_status(obs, decide(replace(obs, nodes=()), now).status)
            raise
        return Result(requeue_after=plan.requeue_after)

    # ------------------------------------------------------------------ observe

    async def _observe(self, machine: Obj, now: datetime) -> Observation:
        obs = Observation(
            machine=machine,
            kind=self.kind,
            attempts=self.attempts.of(machine),
            poll_interval=self.provider.poll_interval,
            limits=self.limits,
            replaced=self.memory.replaced.of(machine["metadata"]["name"]),
        )
        try:
            obs = replace(obs, instance_name=instance_name(self.provider, machine))
        except cloud_errors.CloudError as error:
            return self._refused(obs, error, now)
        nodes = tuple(self.nodes.by_index(BY_INSTANCE, obs.instance_name))
        obs = replace(obs, nodes=nodes, look_at=self.looks.not_before(machine, now, joined=bool(nodes)))
        if obs.deleting:
            obs = replace(obs, pods=await self._pods_on(obs.nodes))
            if nodes and not obs.operation and not leaving(obs.pods, now):
                obs = replace(obs, volumes=await self._volumes(obs))
        return await self._look_up(obs, now) if needs_cloud(obs, now) else obs

    async def _look_up(self, obs: Observation, now: datetime) -> Observation:
        try:
            if obs.operation:
                instance = await self.provider.resume(obs.instance_name, obs.operation)
            else:
                instance = await self.provider.get(obs.instance_name)
        except cloud_errors.NotFound:
            obs = await self._keep(obs, "", now)
            return replace(obs, asked=True, instance=None, cloud_error=None)
        except cloud_errors.CloudError as error:
            return self._refused(obs, error, now)
        if instance.state is InstanceState.RUNNING and not obs.deleting:
            self.attempts.forget(obs.name)
        return await self._saw(obs, instance, now, obs.operation if instance.state in _UNDER_WAY else "")

    async def _saw(self, obs: Observation, instance: Instance, now: datetime, operation: str) -> Observation:
        started = obs.operation_started
        if instance.state is InstanceState.RUNNING and started is not None and obs.operation:
            self.memory.history.took(instance.instance_type, (now - started).total_seconds())
            self.memory.metrics.phase(self.kind, "launch", instance.instance_type, (now - started).total_seconds())
            usual = self.memory.history.usual(instance.instance_type)
            self.memory.metrics.usual(instance.instance_type, usual or 0.0)
        obs = await self._keep(obs, operation, now)
        wait = instance.look_again or self.provider.poll_interval
        if instance.state in _UNDER_WAY:
            self.looks.looked(obs.machine, now + timedelta(seconds=wait), joined=bool(obs.nodes))
        else:
            self.looks.forget(obs.name)
        return replace(
            obs,
            asked=True,
            instance=instance,
            cloud_error=None,
            poll_interval=wait,
            usual=self.memory.history.usual(instance.instance_type),
        )

    async def _pods_on(self, nodes: tuple[Obj, ...]) -> tuple[Obj, ...]:
        pods: list[Obj] = []
        for node in nodes:
            selector = f"spec.nodeName={node['metadata']['name']}"
            pods += (await self.client.list(PODS, field_selector=selector)).items
        return tuple(pods)

    async def _volumes(self, obs: Observation) -> tuple[str, ...]:
        try:
            attachments = (await self.client.list(VOLUME_ATTACHMENTS)).items
        except (NotFound, Forbidden) as error:
            log.warning("volumes are not waited for machine=%s: %s", obs.name, error)
            return ()
        return volumes(attachments, obs.nodes, obs.pods)

    # ------------------------------------------------------------------ the cloud

    async def _call(self, obs: Observation, action: CloudAction, now: datetime) -> Observation:
        # An instance that failed is cleared away and counts as a refused attempt.
        failed = obs.instance.failure if obs.instance is not None and not obs.deleting else None
        try:
            if isinstance(action, CreateInstance):
                log.info("creating instance machine=%s type=%s", obs.name, action.request.instance_types[0])
                created = await self.provider.create(action.request)
                obs = await self._saw(obs, created, now, created.operation)
            else:
                log.info("deleting instance machine=%s", obs.name)
                operation = await self.provider.delete(obs.instance_name)
                later = now + timedelta(seconds=self.provider.poll_interval)
                self.looks.looked(obs.machine, later, joined=bool(obs.nodes))
                going = replace(obs.instance, state=InstanceState.DELETING) if obs.instance else None
                obs = replace(await self._keep(obs, operation, now), asked=True, instance=going, cloud_error=None)
        except cloud_errors.InstanceExists:
            return await self._look_up(obs, now)
        except cloud_errors.NotFound:
            obs = replace(await self._keep(obs, "", now), asked=True, instance=None, cloud_error=None)
        except cloud_errors.CloudError as error:
            return self._refused(obs, error, now)
        return self._refused(obs, failed, now) if failed is not None else obs

    def _refused(self, obs: Observation, error: cloud_errors.CloudError, now: datetime) -> Observation:
        log.warning("cloud refused machine=%s reason=%s code=%s", obs.name, error.reason, error.code)
        attempts = self.attempts.failed(obs.machine, error, now)
        return replace(obs, cloud_error=error, attempts=attempts)

    async def _keep(self, obs: Observation, operation: str, now: datetime) -> Observation:
        """Keep the operation's token on the Machine: whoever comes after us looks at it and starts no other."""
        if operation == obs.operation:
            return obs
        started = render_time(now) if operation else None
        annotations = {keys.CLOUD_OPERATION: operation or None, keys.CLOUD_OPERATION_STARTED: started}
        return replace(obs, machine=await self._annotate(obs.machine, annotations))

    # ------------------------------------------------------------------ act

    async def _evict(self, obs: Observation, plan: Plan) -> Observation:
        blocked = []
        for action in plan.actions:
            if isinstance(action, EvictPod):
                held = await self.evictions.ask(action)
                if held is None:
                    self._pod_event(action, "Evicted pod")
                else:
                    blocked.append(held)
        return replace(obs, evicted=True, blocked=tuple(blocked))

    async def _act(self, obs: Observation, plan: Plan, now: datetime) -> None:
        leave = RemoveFinalizer() in plan.actions
        for action in plan.actions:
            await self._carry_out(obs, action)
        if leave:
            try:
                await self._set_finalizer(obs.machine, present=False)
            except NotFound:
                return  # somebody was quicker
            self.attempts.forget(obs.name)
            self.memory.metrics.terminated(self.kind, obs.machine, now)
        else:
            # After the node's patch: the status says "registered" only when the node has been made ours.
            await self._write_status(obs, plan.status)

    async def _carry_out(self, obs: Observation, action: Action) -> None:
        try:
            match action:
                case PatchNode(node, patch):
                    await self.client.patch(NODES, node, patch)
                case Annotate(annotations):
                    await self._annotate(obs.machine, annotations)
                case DeleteNode(node, uid):
                    await remove_node(self.client, node, uid)
                    self.memory.metrics.node_terminated(self.kind, obs.machine)
                case DeletePod(namespace, name, uid, grace):
                    await self.client.delete(PODS, name, namespace, uid=uid, grace_seconds=grace)
                    self._pod_event(action, "Evicted pod: its node goes now")
                case DeleteMachine(uid, reason, note, counts):
                    if counts:
                        self.memory.replaced.given_up(obs.name, uid)
                    self.recorder.event(obs.machine, "Warning", reason, note)
                    self.memory.metrics.disrupted(self.kind, obs.machine, reason)
                    await self.client.delete(self.kind.resource, obs.name, uid=uid)
        except NotFound:
            return  # absent is what all of these want, or it will be observed next time
        except Conflict:
            if isinstance(action, PatchNode | DeleteNode):
                raise
            # A namesake with another uid is not the object that was meant.

    def _pod_event(self, pod: EvictPod | DeletePod, note: str) -> None:
        meta = {"namespace": pod.namespace, "name": pod.name, "uid": pod.uid}
        self.recorder.event({"apiVersion": "v1", "kind": "Pod", "metadata": meta}, "Normal", "Evicted", note)

    async def _annotate(self, machine: Obj, annotations: Mapping[str, str | None]) -> Obj:
        name, patch = machine["metadata"]["name"], {"metadata": {"annotations": dict(annotations)}}
        try:
            written = await self.client.patch(self.kind.resource, name, patch)
        except NotFound:
            return machine
        if written["metadata"]["uid"] == machine["metadata"]["uid"]:
            self.own.wrote(name, written)
            return written
        return machine

    async def _set_finalizer(self, machine: Obj, *, present: bool) -> Obj:
        meta = machine["metadata"]
        others = [item for item in meta.get("finalizers") or [] if item != keys.TERMINATION_FINALIZER]
        wanted = [*others, keys.TERMINATION_FINALIZER] if present else others
        patch: Obj = {"metadata": {"finalizers": wanted, "resourceVersion": meta["resourceVersion"]}}
        written = await self.client.patch(self.kind.resource, meta["name"], patch)
        self.own.wrote(meta["name"], written)
        return written

    async def _write_status(self, obs: Observation, status: Obj) -> None:
        before = obs.machine.get("status") or {}
        if status == before:
            return
        try:
            written = await self.client.patch(
                self.kind.resource, obs.name, {"status": status}, subresource="status"
            )
        except NotFound:
            return
        except Invalid as error:
            if not obs.deleting:
                raise
            # An object of an older, laxer schema takes no status any more. It must be able to go all the same.
            log.warning("status not written machine=%s: %s", obs.name, error)
            return
        self.own.wrote(obs.name, written)
        after = conditions_of({"status": status})
        for event in told(obs, after):
            self.recorder.event(event.regarding or obs.machine, event.type, event.reason, event.note)
        self._count(obs, after)

    def _count(self, obs: Observation, after: tuple[Condition, ...]) -> None:
        for phase, type_ in zip(("launched", "registered", "initialized"), self.kind.dependents, strict=True):
            if is_true(after, type_) and not is_true(obs.conditions, type_):
                self.memory.metrics.reached(self.kind, obs.machine, phase)
        if is_true(after, self.kind.initialized):
            self.memory.replaced.works(obs.name)
