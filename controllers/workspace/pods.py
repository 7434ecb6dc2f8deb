"""Why a workload is not ready, read off its pods, their nodes and what the servers in them say.

In: the pods of a Workspace, the nodes that they may run on, the pods' own reports, the time. Out: the most urgent
reason, or none. Pure. Pods of the newest revision speak, and not those that a rollout is about to remove; what is
broken now comes before what was broken once. A pod that is on its way out counts only when it does not go.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta

from api.conditions import Status, conditions_of, find, parse_time, render_time
from api.progress import LoadProgress, LoadStage
from api.quantity import render_gib
from api.reasons import Cause, Reason
from controllers.nodes import readiness
from controllers.workspace.findings import urgency
from controllers.workspace.lastwords import last_line, shortened
from controllers.workspace.model import PodReport
from manager.types import Obj

STUCK = timedelta(seconds=60)  # after the end of its grace a pod needs this long only when its node is in trouble
_REVISION_LABELS = ("pod-template-hash", "controller-revision-hash")
_PULL = {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "RegistryUnavailable"}
_START = {"CreateContainerConfigError", "CreateContainerError", "RunContainerError", "ContainerCannotRun"}
_PRESSURE = {"DiskPressure": Reason.NODE_DISK_PRESSURE, "MemoryPressure": Reason.NODE_MEMORY_PRESSURE}


def diagnose(
    pods: Iterable[Obj],
    nodes: Mapping[str, Obj],
    reports: Mapping[str, PodReport],
    now: datetime,
) -> Cause | None:
    """The most urgent cause over all pods that count; of equals the first pod's, by name."""
    pods = sorted(pods, key=lambda pod: str(pod["metadata"]["name"]))
    stuck = [cause for pod in pods if (cause := _leaving(pod, now)) is not None]
    living = [pod for pod in pods if not is_leaving(pod)]
    current = newest_revision(living)
    causes = [cause for pod in current for cause in _of_pod(pod, nodes, reports.get(str(pod["metadata"]["name"])))]
    causes += [item for item in stuck if item.reason == Reason.POD_STUCK or not living]
    return min(causes, key=lambda cause: urgency(str(cause.reason)), default=None)


def newest_revision(pods: Sequence[Obj]) -> list[Obj]:
    """The pods of the revision whose pod was made last; all of them where no revision is marked."""
    newest = max(pods, key=lambda pod: str(pod["metadata"].get("creationTimestamp") or ""), default=None)
    if newest is None:
        return []
    wanted = _revision(newest)
    return [pod for pod in pods if not wanted or _revision(pod) == wanted]


def is_leaving(pod: Obj) -> bool:
    """Whether somebody asked for the pod's end."""
    return bool(pod["metadata"].get("deletionTimestamp"))


def is_ready(pod: Obj) -> bool:
    """Whether the kubelet calls the pod Ready."""
    return (_conditions(pod).get("Ready") or {}).get("status") == "True"


def true_since(obj: Obj, kind: str) -> datetime | None:
    """Since when the condition is True; None when it is not."""
    found = find(conditions_of(obj), kind)
    return found.last_transition_time if found is not None and found.status == Status.TRUE else None


def started_at(pod: Obj) -> datetime | None:
    """When the last of the pod's containers started; None unless all run."""
    times = [
        parse_time(((item.get("state") or {}).get("running") or {}).get("startedAt"))
        for item in (pod.get("status") or {}).get("containerStatuses") or []
    ]
    known = [item for item in times if item is not None]
    return max(known) if known and len(known) == len(times) else None


def is_running(pod: Obj) -> bool:
    """Whether a process of the pod runs, so that there is somebody to ask."""
    status = pod.get("status") or {}
    running = any("running" in (item.get("state") or {}) for item in status.get("containerStatuses") or [])
    return bool(status.get("podIP")) and running and not is_leaving(pod)


def progress_words(progress: LoadProgress) -> str:
    """How much of the model is here, in tenths: the text is part of a status that must not change every second."""
    done, total = progress.bytes_done, progress.bytes_total
    if total:
        return f"about {int(10 * (done or 0) / total) * 10}% of {render_gib(total)}"
    return shortened(progress.message) or "its size is not known yet"


def _leaving(pod: Obj, now: datetime) -> Cause | None:
    # The API sets deletionTimestamp to the moment at which the pod's grace is over.
    due = parse_time(pod["metadata"].get("deletionTimestamp"))
    if due is None:
        return None
    facts = {"pod": str(pod["metadata"]["name"]), "node": str((pod.get("spec") or {}).get("nodeName") or "")}
    if now - due > STUCK:
        return Cause(Reason.POD_STUCK, facts | {"since": render_time(due)})
    return Cause(Reason.POD_TERMINATING, facts)


def _of_pod(pod: Obj, nodes: Mapping[str, Obj], report: PodReport | None) -> Iterator[Cause]:
    name = str(pod["metadata"]["name"])
    status = pod.get("status") or {}
    if status.get("phase") == "Failed" and status.get("reason") == "Evicted":
        yield Cause(Reason.POD_EVICTED, {"pod": name, "message": shortened(status.get("message"))})
        return
    scheduled = _conditions(pod).get("PodScheduled") or {}
    if scheduled.get("status") == "False" and scheduled.get("reason") == "Unschedulable":
        yield Cause(Reason.POD_UNSCHEDULABLE, {"pod": name, "message": shortened(scheduled.get("message"))})
        return
    containers = [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]
    for container in containers:
        yield from _of_container(name, container)
    if is_ready(pod):
        return
    if node := nodes.get(str((pod.get("spec") or {}).get("nodeName") or "")):
        yield from _of_node(node)
    if report is not None and report.progress is not None:
        yield from _of_engine(name, report.progress)
    started = any("running" in (container.get("state") or {}) for container in containers)
    yield Cause(Reason.CONTAINER_STARTING if started else Reason.POD_PENDING, {"pod": name})


def _of_engine(pod: str, progress: LoadProgress) -> Iterator[Cause]:
    words = shortened(progress.message)
    if progress.stage is LoadStage.FAILED:
        yield Cause(Reason.ENGINE_FAILED, {"pod": pod, "message": words or "it does not say why"})
    elif progress.stage is LoadStage.PULLING:
        yield Cause(Reason.MODEL_PULLING, {"pod": pod, "progress": progress_words(progress)})
    elif progress.stage is LoadStage.LOADING:
        yield Cause(Reason.MODEL_LOADING, {"pod": pod, "message": words or "no figures yet"})


def _of_node(node: Obj) -> Iterator[Cause]:
    name = str(node["metadata"]["name"])
    ready, said = readiness(node)
    if not ready:
        yield Cause(Reason.NODE_NOT_READY, {"node": name, "message": shortened(said)})
    for condition in (node.get("status") or {}).get("conditions") or []:
        reason = _PRESSURE.get(str(condition.get("type")))
        if reason is not None and condition.get("status") == "True":
            words = shortened(condition.get("message")) or "the kubelet says no more"
            yield Cause(reason, {"node": name, "message": words})


def _of_container(pod: str, container: Obj) -> Iterator[Cause]:
    state = container.get("state") or {}
    waiting = state.get("waiting") or {}
    reason, message = waiting.get("reason"), shortened(waiting.get("message"))
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
            "message": last_line(last.get("message")) or str(last.get("reason") or "no message"),
        }
        yield Cause(Reason.CRASH_LOOP, facts_)


def _revision(pod: Obj) -> str:
    labels = pod["metadata"].get("labels") or {}
    return next((str(labels[key]) for key in _REVISION_LABELS if key in labels), "")


def _conditions(pod: Obj) -> dict[str, Obj]:
    return {str(item.get("type")): item for item in (pod.get("status") or {}).get("conditions") or []}
