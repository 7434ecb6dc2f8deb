"""The Workspace controller's loop: observe, decide, act, once for each key.

In: the key of a Workspace. Out: Machines, node labels, the workload with all that belongs to it, and the status
when it changed. The API server owns all state, and nothing is waited for: every step that takes time ends in a
change of an object that is watched, or in a pod's answer. All that is remembered between two reconciles is what
the API server answered to the last write, until the cache shows it, so that a lagging cache makes neither a second
write nor a second event; what pods said last; and how long such stages took, for estimates.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import datetime

from api import keys
from api.conditions import INFERENCE_READY, JOB_STARTED, conditions_of
from api.reasons import Cause, Reason
from api.validation import DEFAULT, Switches
from controllers.resources import WORKSPACES
from controllers.workspace.claims import Claims
from controllers.workspace.decide import decide
from controllers.workspace.events import transitions
from controllers.workspace.history import History
from controllers.workspace.model import (
    DEFAULT_RULES,
    Action,
    AddFinalizer,
    Annotate,
    Apply,
    CreateMachine,
    CreateOnce,
    DeleteMachine,
    DeleteOwned,
    Failure,
    LabelNode,
    Merge,
    NodeRules,
    Observation,
    RemoveFinalizer,
    Why,
)
from controllers.workspace.nodeapi import MACHINE_API, NodeApi
from controllers.workspace.observe import Stores, observe
from controllers.workspace.podreader import Reports
from controllers.workspace.recreations import Recreations
from controllers.workspace.sharing import claim_of, key_of
from controllers.workspace.stages import completed, kind_of
from controllers.workspace.status import is_written
from controllers.workspace.upgrade import RETRY, UpgradeGate
from manager.client import Client
from manager.errors import AlreadyExists, ApiError, Conflict, NotFound
from manager.events import EventRecorder
from manager.finalizers import with_finalizer, without_finalizer
from manager.meta import finalizers_of
from manager.ownwrites import OwnWrites
from manager.resources import NODES
from manager.types import Obj, Request, Resource, Result

log = logging.getLogger("kaito.controllers.workspace")

FIELD_MANAGER = "kaito-workspace"


@dataclass(frozen=True, slots=True)
class WorkspaceReconciler:
    """Turns Workspaces into nodes and a serving workload."""

    client: Client
    stores: Stores
    recorder: EventRecorder
    clock: Callable[[], datetime]
    registry: str
    own: OwnWrites
    gate: UpgradeGate
    wake: Callable[[str], Awaitable[None]]
    switches: Switches = DEFAULT
    operator: str = ""
    node_api: NodeApi = MACHINE_API
    rules: NodeRules = DEFAULT_RULES
    claims: Claims = field(default_factory=Claims)
    recreations: Recreations = field(default_factory=Recreations)
    reports: Reports | None = None
    history: History = field(default_factory=History)

    async def reconcile(self, request: Request) -> Result:
        """Move one Workspace one step nearer to serving, or to being gone.

        Raises:
            ApiError: the API server refused a step. The status says so already; the queue tries again later.
        """
        cached = self.stores.workspaces.get(request.name, request.namespace)
        if cached is None:
            self.own.forget(str(request))
            self.gate.forget(str(request))
            await self._wake()
            self.claims.forget(key_of(request.namespace, request.name))
            self.recreations.forget(key_of(request.namespace, request.name))
            if self.reports is not None:
                self.reports.forget(request)
            return Result()
        obj = self.own.newest(str(request), cached)
        obs = await observe(
            self.client,
            self.stores,
            obj,
            self.registry,
            self.switches,
            node_api=self.node_api,
            rules=self.rules,
            decided=self.claims,
            recreations=self.recreations,
            operator=self.operator,
        )
        obs = self._remembering(request, obs)
        plan = decide(obs, self.clock())
        # No await since the world was read, so nobody else has chosen the same nodes meanwhile.
        self.claims.note(claim_of(obj), plan.status.get("workerNodes") or ())
        if self.reports is not None:
            self.reports.ask(request, plan.ask)
        self.gate.settle(str(request), obs, outdated=plan.outdated)
        if plan.outdated and self.gate.enter(str(request)):
            obs = replace(obs, children=replace(obs.children, upgrade=True))
            plan = decide(obs, self.clock())
        refused: list[tuple[Failure, ApiError]] = []
        for action in plan.actions:
            try:
                await self._carry_out(obs, action)
            except ApiError as error:
                failure = _failure(obs, action, error)
                if failure is None:
                    raise
                refused.append((failure, error))
        status = plan.status
        if refused:
            obs = replace(obs, failures=tuple(failure for failure, _ in refused))
            status = decide(obs, self.clock()).status
        await self._write_status(obs, status)
        await self._wake()
        if refused:
            raise refused[0][1]
        waits = RETRY if plan.outdated and self.gate.enabled else None
        return Result(requeue_after=plan.requeue_after or waits)

    def _remembering(self, request: Request, obs: Observation) -> Observation:
        """The observation with what pods have said and what such Workspaces took before."""
        kind = kind_of(obs)
        self.history.record(kind, completed(obs))
        reports = self.reports.known(request, obs.pods) if self.reports is not None else {}
        return replace(obs, reports=reports, past=self.history.past(kind))

    async def _wake(self) -> None:
        if due := self.gate.due():
            await self.wake(due)

    async def _carry_out(self, obs: Observation, action: Action) -> None:
        match action:
            case AddFinalizer():
                await self._set_finalizers(obs, with_finalizer(obs.obj, keys.WORKSPACE_FINALIZER))
            case RemoveFinalizer():
                await self._release(obs)
            case CreateMachine(body):
                await self._create_machine(obs, body)
            case LabelNode(node, labels):
                await self.client.patch(NODES, node, {"metadata": {"labels": dict(labels)}})
            case Apply(resource, body):
                log.info("applying kind=%s workspace=%s/%s", resource.kind, obs.namespace, obs.name)
                await self.client.apply(resource, body, field_manager=FIELD_MANAGER)
            case CreateOnce(resource, body):
                await self._create_once(obs, resource, body)
            case Merge(resource, name, body):
                await self.client.patch(resource, name, body, namespace=obs.namespace)
            case DeleteMachine(name, uid):
                log.info(
                    "deleting kind=%s machine=%s workspace=%s/%s", obs.node_api.kind, name, obs.namespace, obs.name
                )
                await self._delete(obs.node_api.resource, name, None, uid)
            case DeleteOwned(resource, uid, name, why):
                await self._delete(resource, name or obs.name, obs.namespace, uid)
                if why:
                    self.recorder.event(obs.obj, "Warning", "GroupRestarted", why)
            case Annotate(resource, name, annotations):
                body = {"metadata": {"annotations": dict(annotations)}}
                await self.client.patch(resource, name, body, namespace=obs.namespace)

    async def _create_machine(self, obs: Observation, body: Obj) -> None:
        name = body["metadata"]["name"]
        try:
            await self.client.create(obs.node_api.resource, body)
        except AlreadyExists:
            return  # made by an earlier reconcile that the cache has not caught up with
        self.recreations.made(key_of(obs.namespace, obs.name), name, self.clock())
        kind = obs.node_api.kind
        log.info("created kind=%s machine=%s workspace=%s/%s", kind, name, obs.namespace, obs.name)
        self.recorder.event(obs.obj, "Normal", obs.node_api.created, f"Created {kind} {name}")

    async def _create_once(self, obs: Observation, resource: Resource, body: Obj) -> None:
        try:
            await self.client.create(resource, body)
        except AlreadyExists:
            return  # ours, which the cache does not show yet; or somebody else's, which it will show
        log.info("created kind=%s workspace=%s/%s", resource.kind, obs.namespace, obs.name)

    async def _delete(self, resource: Resource, name: str, namespace: str | None, uid: str) -> None:
        try:
            await self.client.delete(resource, name, namespace, propagation="Background", uid=uid)
        except (NotFound, Conflict):
            return  # gone, or a namesake that was not meant

    async def _release(self, obs: Observation) -> None:
        try:
            await self._set_finalizers(obs, without_finalizer(obs.obj, keys.WORKSPACE_FINALIZER))
        except NotFound:
            return

    async def _set_finalizers(self, obs: Observation, wanted: Obj) -> None:
        # The resourceVersion keeps a finalizer that somebody else has set in between.
        meta = {"finalizers": finalizers_of(wanted), "resourceVersion": obs.obj["metadata"]["resourceVersion"]}
        await self.client.patch(WORKSPACES, obs.name, {"metadata": meta}, namespace=obs.namespace)

    async def _write_status(self, obs: Observation, status: Obj) -> None:
        if is_written(status, obs.obj.get("status")):
            return
        try:
            written = await self.client.patch(
                WORKSPACES, obs.name, {"status": status}, namespace=obs.namespace, subresource="status"
            )
        except NotFound:
            return
        self.own.wrote(str(Request(obs.namespace, obs.name)), written)
        before, after = conditions_of(obs.obj), conditions_of({"status": status})
        for event in transitions(before, after):
            self.recorder.event(obs.obj, event.type, event.reason, event.note)


def _failure(obs: Observation, action: Action, error: ApiError) -> Failure | None:
    """Which condition tells this refusal; None where only trying again helps."""
    text = f"{error.reason}: {error.message}"
    match action:
        case CreateMachine(body):
            facts = {"machine": body["metadata"]["name"], "error": text}
            return Failure(obs.node_api.condition, Why.of(Cause(obs.node_api.refused, facts)))
        case LabelNode() if not isinstance(error, NotFound | Conflict):
            return Failure(obs.node_api.condition, Why.of(Cause(Reason.RECONCILE_FAILED, {"error": text})))
        case Apply() if not isinstance(error, Conflict):
            return Failure(INFERENCE_READY, Why.of(Cause(Reason.RECONCILE_FAILED, {"error": text})))
        case CreateOnce() | Merge() if not isinstance(error, Conflict | NotFound):
            return Failure(JOB_STARTED, Why.of(Cause(Reason.RECONCILE_FAILED, {"error": text})))
    return None
