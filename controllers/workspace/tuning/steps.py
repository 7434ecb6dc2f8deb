"""What one reconcile does about a tuning Workspace, and what it says of it.

In: an observation, its target, whether the nodes are there, the time. Out: a :class:`Run`. Pure. A failure that
may pass is Kubernetes' to repeat: it restarts the container in place. A failure that repeating does not cure is
stopped here, by giving the Job a deadline that is over, and nothing runs again until the wish changes: then the
Job is deleted, and made anew once its pods are gone, because two runs would want one GPU and write to one
volume. A Job that fits the wish is never touched otherwise. Deleting it by hand runs it again.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from api import keys
from api.catalog import Preset
from api.conditions import JOB_STARTED, RESOURCE_READY, Status
from api.reasons import Cause, Reason
from api.v1alpha1 import TuningSpec, WorkspaceState
from controllers.workspace.children import Whose, whose
from controllers.workspace.findings import Finding, blocking
from controllers.workspace.model import (
    Action,
    Annotate,
    CreateOnce,
    DeleteOwned,
    Merge,
    Observation,
    Why,
)
from controllers.workspace.nodes import Selection
from controllers.workspace.owned import owned_metadata
from controllers.workspace.pods import diagnose, is_leaving, is_running
from controllers.workspace.revisions import revision_steps
from controllers.workspace.target import Target
from controllers.workspace.tuning import runs, status
from controllers.workspace.tuning.job import job as job_body
from controllers.workspace.tuning.job import marked, wish
from controllers.workspace.tuning.runs import Ended
from controllers.workspace.tuning.settings import Settings, settings_of
from manager.resources import JOBS
from manager.types import Obj

RETRY: Final = 30.0  # seconds; nothing tells us when somebody else's Job goes
_STOP: Final = 1  # second since its start that a Job may have been active
_LESS: Final = (  # reasons that tell less than how the process ended
    Reason.CRASH_LOOP,
    Reason.OUT_OF_MEMORY,
    Reason.CONTAINER_STARTING,
    Reason.POD_PENDING,
    Reason.POD_TERMINATING,
)


@dataclass(frozen=True, slots=True)
class Run:
    """The run of a Workspace.

    Attributes:
        finding: the condition ``JobStarted``.
        why: what keeps the run from being complete; None once it is.
        over: nothing runs any more, and no node is made for it.
        told: ``status.tuning``.
    """

    actions: tuple[Action, ...]
    finding: Finding
    why: Why | None
    state: WorkspaceState
    over: bool = False
    told: Obj | None = None
    retry: float | None = None

    def blocked(self, resource: Finding) -> Why | None:
        """Why the Workspace is not ready; None once the run is complete, whatever became of its node."""
        if self.why is None or self.over:
            return self.why
        found = blocking((resource, self.finding))
        return found.why if found is not None else self.why


def tuning_run(obs: Observation, target: Target, spec: TuningSpec, *, nodes_ready: bool, now: datetime) -> Run:
    """The steps towards the adapter that the target asks for."""
    preset, method = target.preset, spec.tuning_method
    if preset is None or method is None:
        raise ValueError("a tuning target has a preset and a method")
    settings = settings_of(obs, spec, method)
    history = (*settings.actions, *revision_steps(obs)[1])
    failed = next((item.why for item in obs.failures if item.condition == JOB_STARTED), None)
    if failed is not None:
        return _waiting(obs, failed, history)
    stored = obs.children.job
    match whose(obs.name, obs.uid, stored):
        case Whose.FOREIGN:
            cause = Cause(Reason.WORKLOAD_CONFLICT, {"kind": JOBS.kind, "name": obs.name})
            return replace(_waiting(obs, Why.of(cause), history), retry=RETRY)
        case Whose.LEFTOVER:
            cause = Cause(Reason.LEFTOVER, {"kind": JOBS.kind, "name": obs.name})
            return _waiting(obs, Why.of(cause), (*history, *_deletion(stored)))
        case Whose.ORPHAN:
            owners = {"metadata": {"ownerReferences": owned_metadata(obs)["ownerReferences"]}}
            return replace(
                _existing(obs, stored, settings, history, now), actions=(Merge(JOBS, obs.name, owners),)
            )
        case Whose.OURS:
            return _existing(obs, stored, settings, history, now)
        case _:
            return _absent(obs, target, spec, preset, settings, history, nodes_ready=nodes_ready)


def _absent(
    obs: Observation,
    target: Target,
    spec: TuningSpec,
    preset: Preset,
    settings: Settings,
    history: tuple[Action, ...],
    *,
    nodes_ready: bool,
) -> Run:
    if settings.problem is not None or settings.text is None:
        return _waiting(obs, Why.of(settings.problem or Cause(Reason.WAITING_FOR_RESOURCE)), history)
    if any(runs.of_job(pod) and not runs.is_over(pod) for pod in obs.pods):
        return _waiting(obs, Why.of(Cause(Reason.JOB_REPLACING, {"name": obs.name})), history)
    if not nodes_ready:
        return _waiting(obs, Why.of(Cause(Reason.WAITING_FOR_RESOURCE)), history)
    body = job_body(obs, target, spec, preset, wish(obs, settings.text))
    pending = Why.of(Cause(Reason.TUNING_JOB_PENDING, {"name": obs.name}))
    return _waiting(obs, pending, (*history, CreateOnce(JOBS, body)))


def _existing(
    obs: Observation, job: Obj | None, settings: Settings, history: tuple[Action, ...], now: datetime
) -> Run:
    assert job is not None  # noqa: S101 - it is somebody's, so it is there
    if job["metadata"].get("deletionTimestamp"):
        return _waiting(obs, Why.of(Cause(Reason.JOB_REPLACING, {"name": obs.name})), history)
    # What it was made of is not known while its settings are missing or broken: then it is left as it is.
    if settings.problem is None and settings.text is not None and marked(job) != wish(obs, settings.text):
        replacing = Why.of(Cause(Reason.JOB_REPLACING, {"name": obs.name}))
        return _waiting(obs, replacing, (*history, *_deletion(job)))
    pod = runs.pod_of(job, obs.pods)
    ended = runs.outcome(job, pod)
    actions = (*history, *_noting(obs, job, ended))
    verdict = runs.verdict(job)
    # Jobs and pods come by two watches: while the pod is seen at work, its last words are still to come.
    if verdict == "Complete" and (pod is None or runs.is_over(pod)):
        return _complete(obs, ended, actions)
    if verdict == "Failed" or (ended is not None and ended.final):
        return _failed(obs, job, ended, actions)
    run = _under_way(obs, pod, ended, actions, now)
    if settings.problem is not None and run.finding.status != Status.TRUE:
        return replace(_waiting(obs, Why.of(settings.problem), actions), told=run.told)
    return run


def _under_way(
    obs: Observation, pod: Obj | None, ended: Ended | None, actions: tuple[Action, ...], now: datetime
) -> Run:
    stored = (obs.obj.get("status") or {}).get("tuning")
    if pod is None:
        pending = Cause(Reason.TUNING_JOB_PENDING, {"name": obs.name})
        return replace(_waiting(obs, Why.of(pending), actions), told=status.figures(stored, None, 0, now))
    name = str(pod["metadata"]["name"])
    own = ended if ended is not None and ended.uid == pod["metadata"].get("uid") else None
    report = obs.reports.get(name)
    progress = report.tune if report is not None and is_running(pod) else None
    told = status.figures(stored, progress, own.restarts if own else 0, now)
    if is_running(pod):
        why = Why.of(status.stage_cause(name, progress, told))
        return Run(actions, _started(), why, WorkspaceState.RUNNING, told=told)
    if own is not None and own.exit_code == 0:  # the Job will say so in a moment
        done = Cause(Reason.TUNING_PUSHING, {"pod": name})
        return Run(actions, _started(), Why.of(done), WorkspaceState.RUNNING, told=told)
    nodes = {str(node["metadata"]["name"]): node for node in obs.nodes}
    cause = diagnose([pod], nodes, obs.reports, now)
    if own is not None and (cause is None or cause.reason in _LESS):
        return Run(actions, _started(), Why.of(status.retry_cause(own)), WorkspaceState.RUNNING, told=told)
    if cause is None or cause.reason in _LESS:
        cause = Cause(Reason.POD_PENDING, {"pod": name}, _look_for(obs))
    return replace(_waiting(obs, Why.of(cause), actions), told=told)


def _complete(obs: Observation, ended: Ended | None, actions: tuple[Action, ...]) -> Run:
    told = status.last_figures(ended) if ended is not None else None
    told = told or (obs.obj.get("status") or {}).get("tuning")
    done = Why(str(Reason.TUNING_JOB_STARTED), status.success_words(told))
    finding = Finding(JOB_STARTED, Status.TRUE, done)
    return Run(actions, finding, None, WorkspaceState.SUCCEEDED, over=True, told=told)


def _failed(obs: Observation, job: Obj, ended: Ended | None, actions: tuple[Action, ...]) -> Run:
    why = Why.of(status.failure_cause(ended, job, obs.namespace))
    told = status.last_figures(ended) if ended is not None else None
    finding = Finding(JOB_STARTED, Status.FALSE, why)
    return Run(actions, finding, why, WorkspaceState.FAILED, over=True, told=told)


def _waiting(obs: Observation, why: Why, actions: tuple[Action, ...]) -> Run:
    return Run(actions, Finding(JOB_STARTED, Status.FALSE, why), why, WorkspaceState.PENDING)


def _started() -> Finding:
    return Finding(JOB_STARTED, Status.TRUE, Why.of(Cause(Reason.TUNING_JOB_STARTED)))


def _noting(obs: Observation, job: Obj, ended: Ended | None) -> tuple[Action, ...]:
    """The last words go to the Job, which outlives its pod; a final failure stops it in the same write."""
    over = bool(runs.verdict(job))
    stop = ended is not None and ended.final and not over
    if ended is None or (runs.noted(job) == ended and not stop):
        return ()
    notes = {keys.TUNING_OUTCOME: ended.to_text()}
    if not stop:
        return (Annotate(JOBS, obs.name, tuple(notes.items())),)
    if runs.noted(job) == ended and (job.get("spec") or {}).get("activeDeadlineSeconds") == _STOP:
        return ()
    body = {"metadata": {"annotations": notes}, "spec": {"activeDeadlineSeconds": _STOP}}
    return (Merge(JOBS, obs.name, body),)


def _deletion(job: Obj | None) -> tuple[Action, ...]:
    if job is None or is_leaving(job):
        return ()
    return (DeleteOwned(JOBS, job["metadata"]["uid"]),)


def _look_for(obs: Observation) -> str:
    """What a pod that does not start usually waits for."""
    tuning = obs.workspace.tuning if obs.workspace else None
    secret = tuning.output.image_push_secret if tuning and tuning.output and tuning.output.image else None
    return f"Does its Secret exist? `kubectl get secret {secret} -n {obs.namespace}`" if secret else ""


def released(target: Target, selection: Selection, resource: tuple[Finding, Finding]) -> tuple[Finding, Finding]:
    """The conditions about nodes once nothing runs any more: a node that went is missed by nobody."""
    if len(selection.nodes) >= target.count or selection.pending:
        return resource
    labels = ",".join(f"{key}={value}" for key, value in sorted(target.labels.items()))
    why = Why.of(Cause(Reason.NODE_RELEASED, {"labels": labels}))
    return Finding(resource[0].type, Status.FALSE, why), Finding(RESOURCE_READY, Status.FALSE, why)
