"""What a Job should do next.

In: the Job, its pods (own writes laid over), the time. Out: pods to create (by completion index, or None), pods
to delete, the status, the event that tells of a verdict, and when to look again. Pure. Counts are taken from
the pods that exist, as in Kubernetes 1.20: a finished pod that somebody deletes is forgotten.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from manager.types import Obj

from .. import pods as p
from ..conditions import condition, is_true, make, set_condition
from ..times import parse, rfc3339, seconds_since
from .indexes import index_of, is_indexed, missing_indexes, spell

_BACKOFF = 10.0  # seconds before the first replacement of a failed pod; doubles with each failure
_MAX_BACKOFF = 360.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """Why the Job has ended or stopped, as condition and event."""

    kind: str
    status: str
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do; ``remove_job`` is the end of its time to live."""

    create: list[int | None] = field(default_factory=list)
    delete: list[Obj] = field(default_factory=list)
    status: Obj = field(default_factory=dict)
    verdict: Verdict | None = None
    look_again: float | None = None
    remove_job: bool = False


def finished(job: Obj) -> bool:
    """Whether the Job is Complete or Failed."""
    conditions = p.status_of(job).get("conditions")
    return is_true(conditions, "Complete") or is_true(conditions, "Failed")


def decide(job: Obj, pods: Sequence[Obj], now: datetime) -> Plan:
    """The next step of the Job."""
    if p.is_terminating(job):
        return Plan(status=p.status_of(job))
    if finished(job):
        return _after_the_end(job, now)
    spec, status = p.spec_of(job), dict(p.status_of(job))
    active = [pod for pod in pods if p.is_active(pod)]
    succeeded = [pod for pod in pods if p.phase_of(pod) == "Succeeded"]
    failed = [pod for pod in pods if p.phase_of(pod) == "Failed"]
    suspended = bool(spec.get("suspend"))
    if not suspended and not status.get("startTime"):
        status["startTime"] = rfc3339(now)

    verdict = _failure(job, status, active, failed, now) or _success(job, active, succeeded)
    create: list[int | None] = []
    delete: list[Obj] = []
    look_again = _deadline_in(spec, status, now)
    if verdict is not None:
        delete = active
        if verdict.kind == "Complete":
            status["completionTime"] = rfc3339(now)
    elif suspended:
        delete = active
        if not is_true(status.get("conditions"), "Suspended"):
            verdict = Verdict("Suspended", "True", "JobSuspended", "Job suspended")
        status.pop("startTime", None)
    else:
        if is_true(status.get("conditions"), "Suspended"):
            verdict = Verdict("Suspended", "False", "JobResumed", "Job resumed")
        want = _wanted_active(spec, active, succeeded)
        delete = sorted(active, key=lambda pod: p.deletion_rank(pod, 0, now))[: max(0, len(active) - want)]
        wait = _backoff_in(failed, succeeded, now)
        if len(active) < want and wait > 0:
            look_again = min(wait, look_again) if look_again is not None else wait
        elif len(active) < want:
            create = _next_indexes(job, active, succeeded, want - len(active))
    if verdict is not None:
        made = make(verdict.kind, verdict.status, verdict.reason, verdict.message, now)
        status["conditions"] = set_condition(status.get("conditions"), made)
    gone = {p.uid_of(pod) for pod in delete}
    left = [pod for pod in active if p.uid_of(pod) not in gone]
    status |= {
        "active": len(left) + len(create),
        "ready": sum(map(p.is_ready, left)),
        "succeeded": len(succeeded),
        "failed": len(failed),
    }
    if is_indexed(job):
        status["completedIndexes"] = spell(i for pod in succeeded if (i := index_of(pod)) is not None)
    status = {k: v for k, v in status.items() if v}
    return Plan(create, delete, status, verdict, look_again)


def _after_the_end(job: Obj, now: datetime) -> Plan:
    status = p.status_of(job)
    ttl = p.spec_of(job).get("ttlSecondsAfterFinished")
    if ttl is None:
        return Plan(status=status)
    ended = condition(status.get("conditions"), "Complete") or condition(status.get("conditions"), "Failed")
    past = seconds_since(ended.get("lastTransitionTime"), now) if ended else None
    if past is None or past >= int(ttl):
        return Plan(status=status, remove_job=True)
    return Plan(status=status, look_again=int(ttl) - past)


def _failure(job: Obj, status: Obj, active: Sequence[Obj], failed: Sequence[Obj], now: datetime) -> Verdict | None:
    spec = p.spec_of(job)
    limit = spec.get("backoffLimit")
    limit = 6 if limit is None else int(limit)
    restarts = 0
    if ((spec.get("template") or {}).get("spec") or {}).get("restartPolicy") == "OnFailure":
        restarts = sum(
            int(c.get("restartCount") or 0)
            for pod in active
            for field_name in ("initContainerStatuses", "containerStatuses")
            for c in p.status_of(pod).get(field_name) or ()
        )
    if len(failed) > limit or (restarts and restarts >= max(limit, 1)):
        return Verdict("Failed", "True", "BackoffLimitExceeded", "Job has reached the specified backoff limit")
    left = _deadline_in(spec, status, now)
    if left is not None and left <= 0 and not spec.get("suspend"):
        return Verdict("Failed", "True", "DeadlineExceeded", "Job was active longer than specified deadline")
    return None


def _success(job: Obj, active: Sequence[Obj], succeeded: Sequence[Obj]) -> Verdict | None:
    spec = p.spec_of(job)
    completions = spec.get("completions")
    if completions is None:
        # A queue of work: the first success means that there is no more, and the others may finish.
        enough = bool(succeeded) and not active
    elif is_indexed(job):
        enough = len({index_of(pod) for pod in succeeded}) >= int(completions)
    else:
        enough = len(succeeded) >= int(completions)
    if not enough:
        return None
    return Verdict("Complete", "True", "CompletionsReached", "Reached expected number of succeeded pods")


def _wanted_active(spec: Obj, active: Sequence[Obj], succeeded: Sequence[Obj]) -> int:
    parallelism = spec.get("parallelism")
    parallel = 1 if parallelism is None else int(parallelism)
    if spec.get("completions") is None:
        return min(parallel, len(active)) if succeeded else parallel
    return max(0, min(parallel, int(spec["completions"]) - len(succeeded)))


def _next_indexes(job: Obj, active: Sequence[Obj], succeeded: Sequence[Obj], count: int) -> list[int | None]:
    if not is_indexed(job):
        return [None] * count
    return list(missing_indexes(job, [*active, *succeeded])[:count])


def _deadline_in(spec: Obj, status: Obj, now: datetime) -> float | None:
    seconds = spec.get("activeDeadlineSeconds")
    past = seconds_since(status.get("startTime"), now)
    return None if seconds is None or past is None else int(seconds) - past


def _backoff_in(failed: Sequence[Obj], succeeded: Sequence[Obj], now: datetime) -> float:
    """Seconds until a failed pod may be replaced; failures before the last success do not count."""
    last_success = max((t for pod in succeeded if (t := _ended(pod)) is not None), default=None)
    failures = [
        t for pod in failed if (t := _ended(pod)) is not None and (last_success is None or t > last_success)
    ]
    if not failures:
        return 0.0
    delay = min(_MAX_BACKOFF, _BACKOFF * float(2 ** min(len(failures) - 1, 10)))
    return max(0.0, delay - (now - max(failures)).total_seconds())


def _ended(pod: Obj) -> datetime | None:
    ends = [
        ended
        for c in p.status_of(pod).get("containerStatuses") or ()
        if (ended := parse(((c.get("state") or {}).get("terminated") or {}).get("finishedAt"))) is not None
    ]
    return max(ends, default=None) or parse(p.meta_of(pod).get("creationTimestamp"))
