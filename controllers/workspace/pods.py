"""Why a workload is not ready, read off its pods.

In: the pods of a Workspace. Out: the most telling reason, or none. Pure. What a person has to do something
about comes before what only takes time, and what is broken now before what was broken once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from api.reasons import Cause, Reason
from manager.types import Obj

_PULL = {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "RegistryUnavailable"}
_START = {"CreateContainerConfigError", "CreateContainerError", "RunContainerError", "ContainerCannotRun"}
_LONGEST = 300  # characters of a foreign message in ours; a stack trace belongs in the log

# From what a person must act on to what passes by itself.
_URGENCY = (
    Reason.IMAGE_PULL_FAILED,
    Reason.OUT_OF_MEMORY,
    Reason.CRASH_LOOP,
    Reason.CONTAINER_START_FAILED,
    Reason.POD_EVICTED,
    Reason.POD_UNSCHEDULABLE,
    Reason.CONTAINER_STARTING,
    Reason.POD_PENDING,
)


def diagnose(pods: Iterable[Obj]) -> Cause | None:
    """The most urgent finding over all pods that are not on their way out; the first pod's wins."""
    living = sorted(
        (pod for pod in pods if not pod["metadata"].get("deletionTimestamp")),
        key=lambda pod: str(pod["metadata"]["name"]),
    )
    findings = [finding for pod in living for finding in _findings(pod)]
    return min(findings, key=lambda cause: _URGENCY.index(cause.reason), default=None)


def _findings(pod: Obj) -> Iterator[Cause]:
    name = pod["metadata"]["name"]
    status = pod.get("status") or {}
    if status.get("phase") == "Failed" and status.get("reason") == "Evicted":
        yield Cause(Reason.POD_EVICTED, {"pod": name, "message": _short(status.get("message"))})
        return
    conditions = {item.get("type"): item for item in status.get("conditions") or []}
    scheduled = conditions.get("PodScheduled") or {}
    if scheduled.get("status") == "False" and scheduled.get("reason") == "Unschedulable":
        yield Cause(Reason.POD_UNSCHEDULABLE, {"pod": name, "message": _short(scheduled.get("message"))})
        return
    containers = [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]
    for container in containers:
        yield from _container_findings(name, container)
    if (conditions.get("Ready") or {}).get("status") == "True":
        return
    started = any("running" in (container.get("state") or {}) for container in containers)
    yield Cause(Reason.CONTAINER_STARTING if started else Reason.POD_PENDING, {"pod": name})


def _container_findings(pod: str, container: Obj) -> Iterator[Cause]:
    state = container.get("state") or {}
    waiting = state.get("waiting") or {}
    reason, message = waiting.get("reason"), _short(waiting.get("message"))
    if reason in _PULL:
        facts = {"pod": pod, "image": str(container.get("image") or ""), "message": message or str(reason)}
        yield Cause(Reason.IMAGE_PULL_FAILED, facts)
    elif reason in _START:
        yield Cause(Reason.CONTAINER_START_FAILED, {"pod": pod, "message": message or str(reason)})
    if container.get("ready"):
        return  # it crashed once and serves now
    last = state.get("terminated") or (container.get("lastState") or {}).get("terminated") or {}
    if not last:
        return
    if last.get("reason") == "OOMKilled":
        yield Cause(Reason.OUT_OF_MEMORY, {"pod": pod})
    elif last.get("exitCode") or reason == "CrashLoopBackOff":
        facts_: dict[str, str | int] = {
            "pod": pod,
            "exit_code": int(last.get("exitCode") or 0),
            "restarts": int(container.get("restartCount") or 0),
            "message": _short(last.get("message")) or str(last.get("reason") or "no message"),
        }
        yield Cause(Reason.CRASH_LOOP, facts_)


def _short(text: object) -> str:
    line = " ".join(str(text or "").split())
    return line if len(line) <= _LONGEST else line[: _LONGEST - 1] + "…"
