"""One reconcile of a Workspace, decided.

In: an observation and the time. Out: a plan: actions in order, and the status. Pure and synchronous; the command
line asks the same function, so it cannot disagree with the operator. What the API server refused while the plan
was carried out comes back as a failure in the observation, and the status is decided anew with it.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from api import keys
from api.conditions import INFERENCE_READY, JOB_STARTED, RESOURCE_READY, Status
from api.reasons import Cause
from api.v1alpha1 import WorkspaceState
from controllers.workspace.deletion import deletion
from controllers.workspace.findings import Finding
from controllers.workspace.inference_status import inference_finding
from controllers.workspace.machines import machine_body
from controllers.workspace.model import (
    Action,
    AddFinalizer,
    CreateMachine,
    LabelNode,
    Observation,
    Plan,
    Why,
)
from controllers.workspace.nodes import Selection, select
from controllers.workspace.pace import asking, look_again
from controllers.workspace.resource_status import next_limit, resource_findings
from controllers.workspace.status import status_of, whole
from controllers.workspace.target import Target, target_of
from controllers.workspace.tuning.steps import Run, released, tuning_run
from controllers.workspace.workload.render import unusable
from controllers.workspace.workload.steps import workload_steps


def decide(obs: Observation, now: datetime) -> Plan:
    """What to do about this Workspace, and what its status says."""
    if obs.deleting:
        return deletion(obs, now)
    held = keys.WORKSPACE_FINALIZER in (obs.obj["metadata"].get("finalizers") or [])
    # First of all: a Machine of a Workspace without a finalizer can be left behind.
    first: tuple[Action, ...] = () if held else (AddFinalizer(),)
    target = target_of(obs, now)
    if isinstance(target, Target):
        target = unusable(target) or target
    if isinstance(target, Cause):
        return Plan(actions=first, status=_refused_status(obs, target, now))
    selection = select(obs, target, now)
    resource = resource_findings(obs, target, selection, now)
    resource_ready = resource[-1].status == Status.TRUE
    if target.tuning is not None:
        run = tuning_run(obs, target, target.tuning, nodes_ready=resource_ready, now=now)
        return _tuning(obs, target, run, selection, resource, first, now)
    workload = workload_steps(obs, target, nodes_ready=resource_ready)
    parts = (*resource, inference_finding(workload.told(obs), now))
    actions = (
        *first,
        *_node_actions(obs, target, selection),
        *workload.actions,
    )
    status = status_of(obs, (*parts, *whole(parts[1:])), now, nodes=selection.nodes, count=target.count)
    times = (workload.retry, look_again(obs, now), next_limit(obs, target, selection, now))
    again = min((seconds for seconds in times if seconds is not None), default=None)
    return Plan(actions, status, again, workload.outdated, ask=asking(obs), findings=parts)


def _tuning(
    obs: Observation,
    target: Target,
    run: Run,
    selection: Selection,
    resource: tuple[Finding, Finding],
    first: tuple[Action, ...],
    now: datetime,
) -> Plan:
    if run.over:
        selection, resource = replace(selection, create=()), released(target, selection, resource)
    findings = (*resource, run.finding, *whole((), blocked_by=run.blocked(resource[-1])))
    nodes, count = selection.nodes, target.count
    status = status_of(obs, findings, now, nodes=nodes, count=count, state=run.state, tuning=run.told)
    times = (run.retry, look_again(obs, now), None if run.over else next_limit(obs, target, selection, now))
    again = min((seconds for seconds in times if seconds is not None), default=None)
    actions = (*first, *_node_actions(obs, target, selection), *run.actions)
    return Plan(actions, status, again, ask=asking(obs), findings=(*resource, run.finding))


def _node_actions(obs: Observation, target: Target, selection: Selection) -> tuple[Action, ...]:
    create: tuple[Action, ...] = ()
    if obs.machine_api:
        create = tuple(CreateMachine(machine_body(obs, target, name)) for name in selection.create)
    wanted = (keys.ACCELERATOR_LABEL, keys.ACCELERATOR_NVIDIA)
    label = tuple(
        LabelNode(node["metadata"]["name"], (wanted,))
        for node in selection.nodes
        if target.needs_gpu_nodes and (node["metadata"].get("labels") or {}).get(wanted[0]) != wanted[1]
    )
    return (*create, *label)


def _refused_status(obs: Observation, cause: Cause, now: datetime) -> dict[str, object]:
    """Nothing is made for it; what runs already is told as it is."""
    why = Why.of(cause)
    findings: list[Finding] = []
    state = None
    if obs.workspace is not None and obs.workspace.tuning is not None and obs.workload is None:
        kept = obs.owns(obs.children.job)
        findings.append(Finding(RESOURCE_READY, Status.UNKNOWN if kept else Status.FALSE, why))
        findings.append(Finding(JOB_STARTED, Status.UNKNOWN if kept else Status.FALSE, why))
        state = WorkspaceState.PENDING
    elif obs.workload is not None:
        findings += [Finding(RESOURCE_READY, Status.UNKNOWN, why), inference_finding(obs, now)]
    else:
        findings += [
            Finding(RESOURCE_READY, Status.FALSE, why),
            Finding(INFERENCE_READY, Status.FALSE, why),
        ]
    used = (obs.obj.get("status") or {}).get("workerNodes") or []
    nodes = [node for node in obs.nodes if obs.deployed and node["metadata"]["name"] in used]
    return status_of(obs, (*findings, *whole((), blocked_by=why)), now, nodes=nodes, state=state)
