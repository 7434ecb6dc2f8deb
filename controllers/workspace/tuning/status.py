"""What a tuning run's status tells: the figures, where it is, and why it failed.

In: a run as it was found, the stored status, the time. Out: ``status.tuning`` and causes. Pure. Figures move
with every step of the training, so the stored ones stay for a while; what is told in words is made of the
figures that are stored, so that one change is one write. A failure is told in the program's own words, with its
next step.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Final

from api.conditions import parse_time, render_time
from api.progress import TuneFailure, TuneProgress, TuneStage
from api.quantity import render_gib
from api.reasons import Cause, Reason
from controllers.workspace.lastwords import shortened
from controllers.workspace.tuning.runs import Ended
from manager.types import Obj

PACE: Final = timedelta(seconds=15)  # figures of one stage are renewed no more often
_TIMES: Final = ("eta", "observedAt")
_ENDED: Final = (TuneStage.SUCCEEDED, TuneStage.FAILED)
_STAGES: Final = {
    TuneStage.FETCHING: Reason.TUNING_FETCHING,
    TuneStage.LOADING: Reason.TUNING_LOADING,
    TuneStage.TRAINING: Reason.TUNING_TRAINING,
    TuneStage.SAVING: Reason.TUNING_SAVING,
    TuneStage.PUSHING: Reason.TUNING_PUSHING,
    TuneStage.SUCCEEDED: Reason.TUNING_PUSHING,  # its process is about to end
    TuneStage.FAILED: Reason.TUNING_STARTING,  # likewise; the exit code will tell what becomes of it
}


def figures(stored: Obj | None, progress: TuneProgress | None, restarts: int, now: datetime) -> Obj | None:
    """``status.tuning`` while the run goes on; the stored one where that is new enough, or nothing is known."""
    before = dict(stored) if stored and stored.get("stage") not in _ENDED else None
    if progress is None:
        return before
    new = _figures(progress, restarts)
    new["observedAt"] = render_time(now)
    if progress.seconds_left is not None:
        new["eta"] = render_time(now + timedelta(seconds=round(progress.seconds_left)))
    return before if before is not None and _holds(before, new, now) else new


def last_figures(ended: Ended) -> Obj | None:
    """``status.tuning`` of a run that is over."""
    progress = ended.progress
    if progress is None:
        return None
    return _figures(progress, ended.restarts) | ({"observedAt": ended.at} if ended.at else {})


def stage_cause(pod: str, progress: TuneProgress | None, told: Obj | None) -> Cause:
    """Where a running pod is. ``told``: the figures of the status."""
    if progress is None:
        return Cause(Reason.TUNING_STARTING, {"pod": pod})
    reason, facts = _STAGES[progress.stage], {"pod": pod}
    if reason is Reason.TUNING_FETCHING:
        facts["progress"] = _fetched(progress)
    elif reason is Reason.TUNING_TRAINING:
        facts["progress"] = training_words(told or {})
    return Cause(reason, facts)


def training_words(told: Obj) -> str:
    """The figures of ``status.tuning`` in words."""
    parts = []
    if told.get("step") is not None:
        total = f" of {told['steps']}" if told.get("steps") else ""
        parts.append(f"step {told['step']}{total}")
    parts += [f"{name} {told[name]}" for name in ("epoch", "loss") if told.get(name) is not None]
    if told.get("eta"):
        parts.append(f"until about {told['eta']}")
    return ", ".join(parts) or "no step is done yet"


def failure_cause(ended: Ended | None, job: Obj, namespace: str) -> Cause:
    """Why a run failed for good."""
    again = f"`kubectl delete job {job['metadata']['name']} -n {namespace}` runs it again"
    progress = ended.progress if ended is not None else None
    if ended is not None and progress is not None and progress.reason is not None:
        step = progress.next_step.strip().rstrip(".")
        return Cause(reason_of(progress.reason), {"message": shortened(progress.message)}, _joined(step, again))
    if ended is not None and ended.reason == "OOMKilled":
        words = f"pod {ended.pod} was killed for using more memory than its node has"
        return Cause(Reason.TUNING_OUT_OF_MEMORY, {"message": words})
    words = _job_words(job)
    if ended is not None and ended.exit_code:
        words = f"pod {ended.pod} ended with exit code {ended.exit_code}: {ended.words}"
    return Cause(Reason.TUNING_JOB_FAILED, {"message": words or "its Job does not say why"}, _joined("", again))


def retry_cause(ended: Ended) -> Cause:
    """Why a run starts again."""
    facts: dict[str, str | int] = {
        "pod": ended.pod,
        "exit_code": ended.exit_code,
        "restarts": ended.restarts,
        "message": ended.words,
    }
    return Cause(Reason.TUNING_RETRYING, facts)


def success_words(told: Obj | None) -> str:
    """That a run is over, where its result is, and what is still paid for."""
    told = told or {}
    where = f": the adapter is {told['image']}" if told.get("image") else ""
    digest = f" ({told['digest']})" if where and told.get("digest") else ""
    return (
        f"Tuning job has completed{where}{digest}. Its node is kept, and paid for, until the workspace is deleted"
    )


def reason_of(failure: TuneFailure) -> Reason:
    """The program's word as a reason: they are the same words."""
    return Reason(failure.value)


def _figures(progress: TuneProgress, restarts: int) -> Obj:
    found: dict[str, Any] = {
        "stage": str(progress.stage),
        "epoch": None if progress.epoch is None else f"{progress.epoch:.2f}",
        "step": progress.step,
        "steps": progress.steps,
        "loss": None if progress.loss is None else f"{progress.loss:.4g}",
        "image": progress.image,
        "digest": progress.digest,
        "restarts": restarts or None,
    }
    return {key: value for key, value in found.items() if value is not None}


def _holds(stored: Obj, new: Obj, now: datetime) -> bool:
    """Whether the stored figures may stay: they are the same, or so young that news can wait."""
    if _without_times(stored) == _without_times(new):
        return True
    if (stored.get("stage"), stored.get("restarts")) != (new.get("stage"), new.get("restarts")):
        return False
    at = parse_time(stored.get("observedAt"))
    return at is not None and timedelta() <= now - at < PACE


def _without_times(told: Obj) -> Obj:
    return {key: value for key, value in told.items() if key not in _TIMES}


def _fetched(progress: TuneProgress) -> str:
    """In tenths: it is part of a status that must not change every second."""
    if not progress.bytes_total:
        return shortened(progress.message) or "its size is not known yet"
    tenths = int(10 * (progress.bytes_done or 0) / progress.bytes_total)
    return f"about {tenths * 10}% of {_size(progress.bytes_total)}"


def _size(number: int) -> str:
    return render_gib(number) if number >= 1 << 30 else f"{number / (1 << 20):.1f} MiB"


def _job_words(job: Obj) -> str:
    for condition in (job.get("status") or {}).get("conditions") or []:
        if condition.get("type") == "Failed" and condition.get("status") == "True":
            return shortened(condition.get("message") or condition.get("reason"))
    return ""


def _joined(step: str, again: str) -> str:
    """The program's advice, and how the run is started anew once it was followed."""
    if not step:
        return f"`kaito logs` shows its output; {again}"
    return f"{step[0].upper()}{step[1:]}; then edit the workspace, or {again}"
