"""What one reconcile does about the workload of a Workspace.

In: an observation, its target, and whether the nodes are there. Out: :class:`Steps`. Pure. An object of somebody
else stops everything. Running pods are replaced only for an edit of the Workspace or of what it names: a newer
operator that would make them differently says so (``outdated``) and leaves them, until it is asked.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from api import keys
from api.conditions import INFERENCE_READY
from api.reasons import Cause, Reason
from controllers.workspace.adapters import adapters_map
from controllers.workspace.children import Whose, whose
from controllers.workspace.engine_config import config_hash
from controllers.workspace.model import Action, Annotate, Apply, DeleteOwned, Failure, Observation, Why
from controllers.workspace.owned import annotated, digest, is_applied, with_fingerprint
from controllers.workspace.revisions import content, revision_steps
from controllers.workspace.rollout import replicas
from controllers.workspace.service import headless_service, service
from controllers.workspace.target import Target
from controllers.workspace.workload.mounts import Mounts, mounts_for
from controllers.workspace.workload.render import render, resource_of
from controllers.workspace.workload.replacing import kept_strategy, stale_members, torn_members
from manager.resources import CONFIGMAPS, DEPLOYMENTS, PODS, SERVICES, STATEFULSETS
from manager.types import Obj, Resource

RETRY = 30.0  # seconds; nothing tells us when somebody else's object goes


@dataclass(frozen=True, slots=True)
class Steps:
    """Actions in order, what stands in their way, and whether a newer pod template waits to be asked for."""

    actions: tuple[Action, ...] = ()
    obstacle: Cause | None = None
    outdated: bool = False
    retry: float | None = None

    def told(self, obs: Observation) -> Observation:
        """The observation with what is in the way or has just begun, so that the status tells it."""
        cause = self.obstacle or self._begun(obs)
        if cause is None:
            return obs
        return replace(obs, failures=(*obs.failures, Failure(INFERENCE_READY, Why.of(cause))))

    def _begun(self, obs: Observation) -> Cause | None:
        """Else the status would still wait for nodes that are there, and be written once more."""
        if obs.workload is not None:
            return None
        for action in self.actions:
            if isinstance(action, Apply) and action.resource in (DEPLOYMENTS, STATEFULSETS):
                return Cause(Reason.WORKLOAD_PENDING, {"ready": 0, "wanted": replicas(action.body)})
        return None


def workload_steps(obs: Observation, target: Target, *, nodes_ready: bool) -> Steps:
    """The steps towards the workload that the target asks for."""
    grouped = resource_of(target) is STATEFULSETS
    needed = list(_needed(obs, target, grouped))
    for resource, name, stored in needed:
        if whose(obs.name, obs.uid, stored) is Whose.FOREIGN:
            return Steps(
                obstacle=Cause(Reason.WORKLOAD_CONFLICT, {"kind": resource.kind, "name": name}), retry=RETRY
            )
    left = [item for item in needed if whose(obs.name, obs.uid, item[2]) is Whose.LEFTOVER]
    if left:
        actions = tuple(
            DeleteOwned(resource, stored["metadata"]["uid"], name)
            for resource, name, stored in left
            if stored is not None and not stored["metadata"].get("deletionTimestamp")
        )
        return Steps(actions, Cause(Reason.LEFTOVER, {"kind": left[0][0].kind, "name": left[0][1]}))
    if not nodes_ready and obs.workload is None:
        return Steps()
    config = config_hash(obs, target)
    if isinstance(config, Cause):
        return Steps(obstacle=config)
    return _steps(obs, target, grouped, config)


def _needed(obs: Observation, target: Target, grouped: bool) -> Iterator[tuple[Resource, str, Obj | None]]:
    children = obs.children
    if grouped:
        yield STATEFULSETS, obs.name, children.statefulset
        yield SERVICES, obs.name + keys.HEADLESS_SUFFIX, children.headless
    else:
        yield DEPLOYMENTS, obs.name, obs.deployment
    if target.template is None:  # what a template serves, and where, only its author knows
        yield SERVICES, obs.name, obs.service
        yield CONFIGMAPS, obs.name + keys.ADAPTERS_CONFIG_SUFFIX, children.adapters


def _steps(obs: Observation, target: Target, grouped: bool, config: str) -> Steps:
    revision, history = revision_steps(obs)
    actions = list(history)
    if target.template is None:
        data = adapters_map(obs, target.inference)
        actions += _applied(CONFIGMAPS, data, obs.children.adapters)
        actions += _applied(SERVICES, service(obs, grouped=grouped), obs.service)
    if grouped:
        actions += _applied(SERVICES, headless_service(obs), obs.children.headless)
    more, outdated = _workload(obs, target, config, revision)
    return Steps((*actions, *more), outdated=outdated)


def _applied(resource: Resource, wanted: Obj, stored: Obj | None) -> list[Action]:
    body = with_fingerprint(wanted)
    return [] if is_applied(body, stored) else [Apply(resource, body)]


def _workload(obs: Observation, target: Target, config: str, revision: int) -> tuple[list[Action], bool]:
    running, resource = obs.workload, resource_of(target)
    mounts = mounts_for(target.inference, running)
    body = render(obs, target, mounts, config)
    notes = _notes(obs, target, mounts, config, body, revision)
    held = None if running is None or obs.children.upgrade else _held(running, notes)
    if running is not None and held is not None:
        kind = STATEFULSETS if running is obs.children.statefulset else DEPLOYMENTS
        return [*([Annotate(kind, obs.name, held)] if held else []), *_let_go(obs, target)], True
    stored, other, kind = obs.deployment, obs.children.statefulset, STATEFULSETS
    if resource is STATEFULSETS:
        stored, other, kind = other, stored, DEPLOYMENTS
    same = _annotations(stored).get(keys.TEMPLATE_HASH) == notes[keys.TEMPLATE_HASH]
    if stored is not None and same and resource is DEPLOYMENTS and (kept := kept_strategy(stored)):
        body["spec"]["strategy"] = kept
    actions = _applied(resource, annotated(body, notes), stored)
    # One that changes its kind, because its model spans more nodes now, or fewer: two would want the same GPUs.
    if other is not None and obs.owns(other) and not other["metadata"].get("deletionTimestamp"):
        actions = [DeleteOwned(kind, other["metadata"]["uid"]), *actions]
    return [*actions, *_let_go(obs, target)], False


def _notes(
    obs: Observation, target: Target, mounts: Mounts, config: str, body: Obj, revision: int
) -> dict[str, str]:
    """What is noted on the workload: from what its pods were made, by which operator, and for which revision.

    An edit that makes no other pods changes none of it: an annotation is a new generation of a Deployment too.
    """
    asked = content(obs.obj)
    if isinstance(asked.get("inference"), dict):
        asked["inference"] = {key: value for key, value in asked["inference"].items() if key != "adapters"}
    template = digest([body["kind"], body["spec"]["template"]])
    stored = _annotations(obs.workload)
    inputs, same = digest([asked, mounts.to_text(), config]), stored.get(keys.TEMPLATE_HASH) == template
    by = stored.get(keys.RENDERED_BY, "") if same else obs.children.operator
    since = stored.get(keys.WORKSPACE_REVISION, "") if same else str(revision)
    upgrade = obs.children.upgrade and bool(stored) and stored.get(keys.INPUTS_HASH, inputs) == inputs
    upgraded = stored.get(keys.UPGRADED_TO, "") if same else obs.children.operator if upgrade else ""
    notes = {
        keys.INPUTS_HASH: inputs,
        keys.TEMPLATE_HASH: template,
        keys.RENDERED_BY: by,
        keys.UPGRADED_TO: upgraded,
        keys.WORKSPACE_REVISION: since,
        keys.ADAPTER_MOUNTS: mounts.to_text() if target.template is None else "",
    }
    return {key: value for key, value in notes.items() if value}


def _held(running: Obj, notes: dict[str, str]) -> tuple[tuple[str, str], ...] | None:
    """Whether the pods that run must stay as they are, and what is to be noted on their workload then.

    They must where the same wish gives other pods than it gave an earlier operator; and where nothing tells from
    what they were made, which is how releases before this one left them.
    """
    stored = _annotations(running)
    if keys.INPUTS_HASH not in stored:
        return ((keys.INPUTS_HASH, notes[keys.INPUTS_HASH]),)
    if stored[keys.INPUTS_HASH] != notes[keys.INPUTS_HASH]:
        return None
    if stored.get(keys.TEMPLATE_HASH) == notes[keys.TEMPLATE_HASH]:
        return None
    return ()


def _let_go(obs: Observation, target: Target) -> list[Action]:
    """Members of a group that serve nobody: of an earlier revision, or left by one that started anew."""
    group = obs.children.statefulset
    if group is None or not obs.owns(group):
        return []
    gone, why = stale_members(group, obs.pods), ""
    if not gone and target.layout.distributed:
        gone, late = torn_members(group, obs.pods)
        why = f"Pod {late} started anew after the others were ready: all pods of the group are replaced"
    return [
        # One word for the group: with its first pod.
        DeleteOwned(PODS, pod["metadata"]["uid"], pod["metadata"]["name"], why if pod is gone[0] else "")
        for pod in gone
    ]


def _annotations(obj: Obj | None) -> dict[str, str]:
    return ((obj or {}).get("metadata") or {}).get("annotations") or {}
