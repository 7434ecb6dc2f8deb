"""What happened and when, read off objects and events.

In: a Workspace's objects as plain dicts. Out: moments, in the order of time. Pure. Times are those that the
objects bear; what has no time is no moment. The same thing told by an object and by an event is told once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from api.conditions import (
    ADAPTERS_READY,
    INFERENCE_READY,
    JOB_STARTED,
    RESOURCE_READY,
    WORKSPACE_READY,
    Condition,
    Status,
    conditions_of,
    parse_time,
)
from api.progress import LoadProgress, LoadStage, TuneProgress, TuneStage
from controllers.workspace.lastwords import last_line, shortened
from controllers.workspace.made import instance_type
from controllers.workspace.pods import progress_words
from controllers.workspace.tuning.runs import noted, parsed
from controllers.workspace.tuning.status import training_words
from manager.types import Obj

WORKSPACE, MACHINE, CLOUD, NODE, POD, ENGINE = "workspace", "machine", "cloud", "node", "pod", "engine"
# The order of what happened in the same second. What is told about something comes after that itself.
_RANKS = {WORKSPACE: 0, MACHINE: 10, CLOUD: 20, NODE: 30, POD: 50, ENGINE: 60}
_MILESTONES = {RESOURCE_READY: 40, JOB_STARTED: 55, INFERENCE_READY: 70, WORKSPACE_READY: 80, ADAPTERS_READY: 90}
_LATER = 100
_KINDS = {"Workspace": WORKSPACE, "Machine": MACHINE, "NodeClaim": MACHINE, "Node": NODE, "Pod": POD}
_KINDS |= dict.fromkeys(("Deployment", "StatefulSet", "ReplicaSet", "Job"), POD)
_WARNINGS_ONLY = (
    "Workspace",
    "Deployment",
    "StatefulSet",
    "ReplicaSet",
    "Job",
)  # the objects tell what went well

_LAUNCHED = ("MachineLaunched", "Launched")
_WORDS = {
    "MachineLaunched": (CLOUD, "the instance runs", 20),
    "Launched": (CLOUD, "the instance runs", 20),
    "MachineRegistered": (NODE, "has joined the cluster", 31),
    "Registered": (NODE, "has joined the cluster", 31),
    "MachineInitialized": (NODE, "is ready for work", 32),
    "Initialized": (NODE, "is ready for work", 32),
}
# Events that say no more than the objects do.
_TOLD = frozenset({"Scheduled", "Created", "Started", "MachineCreated", "Launched", "Registered", "Initialized"})


@dataclass(frozen=True, slots=True)
class Moment:
    """One thing that happened. ``bad``: something went wrong there; ``rank``: its place within one second."""

    at: datetime
    who: str
    name: str
    text: str
    bad: bool = False
    count: int = 1
    rank: int = 0


def in_order(moments: Iterable[Moment]) -> tuple[Moment, ...]:
    """By time, then along the chain, each thing once."""
    seen: dict[tuple[str, str, str], Moment] = {}
    for moment in moments:
        key = (moment.who, moment.name, moment.text)
        if key not in seen or moment.at < seen[key].at:
            seen[key] = moment
    return tuple(sorted(seen.values(), key=lambda item: (item.at, item.rank or _RANKS[item.who], item.name)))


def of_workspace(obj: Obj) -> Iterator[Moment]:
    """Its creation, and when each of its conditions became what it is."""
    name = obj["metadata"]["name"]
    if created := parse_time(obj["metadata"].get("creationTimestamp")):
        yield Moment(created, WORKSPACE, name, "created")
    if going := parse_time(obj["metadata"].get("deletionTimestamp")):
        yield Moment(going, WORKSPACE, name, "its deletion was asked for", rank=_LATER)
    for condition in conditions_of(obj):
        rank, at = _MILESTONES.get(condition.type), condition.last_transition_time
        if rank is not None and condition.status == Status.TRUE and at is not None:
            yield Moment(at, WORKSPACE, name, f"{condition.type} is True", rank=rank)


def of_machine(machine: Obj) -> Iterator[Moment]:
    """Its creation, what the cloud did or refused, and its node's coming."""
    name = machine["metadata"]["name"]
    node = str((machine.get("status") or {}).get("nodeName") or name)
    if created := parse_time(machine["metadata"].get("creationTimestamp")):
        yield Moment(created, MACHINE, name, f"created ({instance_type(machine)})")
    if going := parse_time(machine["metadata"].get("deletionTimestamp")):
        yield Moment(going, MACHINE, name, "its deletion was asked for", rank=_LATER)
    for condition in conditions_of(machine):
        at = condition.last_transition_time
        known = _WORDS.get(condition.type)
        if at is None or known is None:
            continue
        who, done, rank = known
        if condition.status == Status.TRUE:
            yield Moment(at, who, node if who == NODE else name, done, rank=rank)
        elif condition.type in _LAUNCHED and condition.status == Status.FALSE:
            yield Moment(at, CLOUD, name, _said(condition), bad=True)
        elif condition.type in _LAUNCHED and condition.message:
            yield Moment(at, CLOUD, name, shortened(condition.message))


def of_node(node: Obj, *, since: datetime | None = None) -> Iterator[Moment]:
    """Its coming, where that was after ``since``, and the troubles that its kubelet reports."""
    name = node["metadata"]["name"]
    created = parse_time(node["metadata"].get("creationTimestamp"))
    if created and since and created >= since:
        yield Moment(created, NODE, name, "appeared")
    for condition in conditions_of(node):
        at = condition.last_transition_time
        if at is None:
            continue
        if condition.type == "Ready" and condition.status != Status.TRUE:
            text = f"is not Ready: {shortened(condition.message) or condition.reason}"
            yield Moment(at, NODE, name, text, bad=True)
        elif condition.status == Status.TRUE and condition.type.endswith("Pressure"):
            yield Moment(at, NODE, name, f"{condition.type}: {shortened(condition.message)}", bad=True)


def of_pod(pod: Obj) -> Iterator[Moment]:
    """Its way from the scheduler to a process that answers, and how the process before this one ended."""
    name = pod["metadata"]["name"]
    if created := parse_time(pod["metadata"].get("creationTimestamp")):
        yield Moment(created, POD, name, "created")
    for condition in conditions_of(pod):
        at = condition.last_transition_time
        if at is None:
            continue
        if condition.type == "PodScheduled":
            good = condition.status == Status.TRUE
            where = str((pod.get("spec") or {}).get("nodeName") or "a node")
            text = f"placed on {where}" if good else f"no node takes it: {shortened(condition.message)}"
            yield Moment(at, POD, name, text, bad=not good)
        elif condition.type == "Ready" and condition.status == Status.TRUE:
            yield Moment(at, ENGINE, name, "answers: the pod is Ready")
    for container in (pod.get("status") or {}).get("containerStatuses") or []:
        yield from _of_container(name, container)


def of_engine(pod: Obj, progress: LoadProgress, now: datetime) -> Moment:
    """Where the server says that it is, now."""
    counted = progress.stage is LoadStage.PULLING and progress.bytes_total
    words = progress_words(progress) if counted else shortened(progress.message)
    text = f"{progress.stage.lower()}: {words}" if words else str(progress.stage).lower()
    return Moment(now, ENGINE, str(pod["metadata"]["name"]), text, bad=progress.stage == "Failed")


def of_run(pod: Obj, progress: TuneProgress, told: Obj, now: datetime) -> Moment:
    """Where the tuning program says that it is, now. ``told``: the figures of the status."""
    words = training_words(told) if progress.stage is TuneStage.TRAINING else shortened(progress.message)
    stage = str(progress.stage).lower()
    text = f"{stage}: {words}" if words else stage
    return Moment(now, ENGINE, str(pod["metadata"]["name"]), text, bad=progress.stage is TuneStage.FAILED)


def of_job(job: Obj) -> Iterator[Moment]:
    """Its creation, its end, and how its pod ended where that is kept on it because the pod is gone."""
    name = str(job["metadata"]["name"])
    if created := parse_time(job["metadata"].get("creationTimestamp")):
        yield Moment(created, POD, name, "Job created", rank=_RANKS[POD] - 1)
    if (kept := noted(job)) is not None and (at := parse_time(kept.at)):
        yield Moment(at, ENGINE, kept.pod, _ending(kept.exit_code, kept.words), bad=kept.exit_code != 0)
    for condition in conditions_of(job):
        at = condition.last_transition_time
        if condition.type in ("Complete", "Failed") and condition.status == Status.TRUE and at is not None:
            text = "Job completed" if condition.type == "Complete" else "Job failed"
            yield Moment(at, POD, name, text, bad=condition.type == "Failed", rank=_RANKS[ENGINE] + 1)


def of_events(events: Iterable[Obj], names: Mapping[str, set[str]]) -> Iterator[Moment]:
    """Events about the objects of the chain. ``names``: by kind, the names that belong to it."""
    for event in events:
        about = event.get("regarding") or {}
        who, name = _KINDS.get(str(about.get("kind"))), str(about.get("name"))
        if who is None or name not in names.get(str(about.get("kind")), ()) or event.get("reason") in _TOLD:
            continue
        if about.get("kind") in _WARNINGS_ONLY and event.get("type") != "Warning":
            continue
        if event.get("reason") == "Unhealthy" and str(event.get("note")).startswith("Startup probe"):
            continue  # that is how a kubelet waits for a server that loads
        series = event.get("series") or {}
        when = (
            series.get("lastObservedTime") or event.get("eventTime") or event.get("deprecatedLastTimestamp") or ""
        )
        at = parse_time(when) or parse_time(event["metadata"].get("creationTimestamp"))
        if at is None:
            continue
        count = int(series.get("count") or event.get("deprecatedCount") or 1)
        text = f"{event.get('reason')}: {shortened(event.get('note'))}"
        at = at.astimezone(UTC).replace(microsecond=0)
        yield Moment(at, who, name, text, bad=event.get("type") == "Warning", count=count, rank=_LATER)


def _of_container(pod: str, container: Obj) -> Iterator[Moment]:
    state = container.get("state") or {}
    running = state.get("running") or {}
    if at := parse_time(running.get("startedAt")):
        restarts = int(container.get("restartCount") or 0)
        yield Moment(at, POD, pod, "its process started" + (f" (restart {restarts})" if restarts else ""))
    ended = state.get("terminated") or (container.get("lastState") or {}).get("terminated") or {}
    if at := parse_time(ended.get("finishedAt")):
        progress = parsed(str(ended.get("message") or ""))
        words = progress.message if progress else last_line(ended.get("message"))
        code = int(ended.get("exitCode") or 0)
        yield Moment(at, ENGINE, pod, _ending(code, words or str(ended.get("reason") or "")), bad=code != 0)


def _ending(code: int, words: str) -> str:
    return f"ended with exit code {code}: {words}"


def _said(condition: Condition) -> str:
    return (
        f"{condition.reason}: {shortened(condition.message)}" if condition.reason else shortened(condition.message)
    )
