"""The table of pods: one word for what a pod is doing, derived from phase and container states.

In: a Pod and the time. Out: its cells. The word follows kubectl's long-standing rules: the init container that
holds the pod up comes first, then the last container with something to say, then deletion.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from manager.types import Obj

from .cells import NONE, at, computed, condition, field, is_true, plain
from .column import AGE, NAME, Column
from .durations import human, parse

_TERMINAL = ("Succeeded", "Failed")


def _sidecars(pod: Obj) -> set[str]:
    return {
        str(container.get("name"))
        for container in at(pod, "spec.initContainers", [])
        if container.get("restartPolicy") == "Always"
    }


def _state(status: Obj, kind: str) -> Obj | None:
    found = (status.get("state") or {}).get(kind)
    return found if isinstance(found, dict) else None


def _exit(terminated: Obj) -> str:
    if terminated.get("reason"):
        return str(terminated["reason"])
    if terminated.get("signal"):
        return f"Signal:{terminated['signal']}"
    return f"ExitCode:{terminated.get('exitCode', 0)}"


def _init_word(pod: Obj) -> str | None:
    """What an unfinished init container is doing; None once all are done."""
    sidecars = _sidecars(pod)
    total = len(at(pod, "spec.initContainers", []))
    for index, status in enumerate(at(pod, "status.initContainerStatuses", [])):
        terminated, waiting = _state(status, "terminated"), _state(status, "waiting")
        if terminated is not None and not terminated.get("exitCode"):
            continue
        if status.get("name") in sidecars and status.get("started"):
            continue
        if terminated is not None:
            return f"Init:{_exit(terminated)}"
        if waiting is not None and waiting.get("reason") not in (None, "", "PodInitializing"):
            return f"Init:{waiting['reason']}"
        return f"Init:{index}/{total}"
    return None


def _container_word(pod: Obj) -> str | None:
    word: str | None = None
    running = False
    for status in reversed(at(pod, "status.containerStatuses", [])):
        waiting, terminated = _state(status, "waiting"), _state(status, "terminated")
        if waiting is not None and waiting.get("reason"):
            word = str(waiting["reason"])
        elif terminated is not None:
            word = _exit(terminated)
        elif status.get("ready") and _state(status, "running") is not None:
            running = True
    if word == "Completed" and running:
        return "Running" if is_true(pod, "Ready") else "NotReady"
    return word


def status_word(pod: Obj) -> str:
    """The STATUS column."""
    phase = str(at(pod, "status.phase", ""))
    reason = str(at(pod, "status.reason", "")) or phase
    scheduled = condition(pod, "PodScheduled")
    if scheduled is not None and scheduled.get("reason") == "SchedulingGated":
        reason = "SchedulingGated"
    word = _init_word(pod)
    if word is None or is_true(pod, "Initialized"):
        word = _container_word(pod) or word
    reason = word or reason
    if at(pod, "metadata.deletionTimestamp"):
        if at(pod, "status.reason") == "NodeLost":
            return "Unknown"
        if phase not in _TERMINAL:
            return "Terminating"
    return reason


def _counted(pod: Obj) -> list[Obj]:
    """The container statuses that READY and RESTARTS count."""
    sidecars = _sidecars(pod)
    init = at(pod, "status.initContainerStatuses", [])
    if _init_word(pod) is not None and not is_true(pod, "Initialized"):
        return list(init)
    return [status for status in init if status.get("name") in sidecars] + list(
        at(pod, "status.containerStatuses", [])
    )


def _ready(pod: Obj) -> str:
    sidecars = _sidecars(pod)
    total = len(at(pod, "spec.containers", [])) + len(sidecars)
    initializing = _init_word(pod) is not None and not is_true(pod, "Initialized")
    ready = sum(
        1
        for status in _counted(pod)
        if status.get("ready")
        and _state(status, "running") is not None
        and (not initializing or status.get("name") in sidecars)
    )
    return f"{ready}/{total}"


def _restarts(pod: Obj, now: datetime) -> Any:
    counted = _counted(pod)
    total = sum(int(status.get("restartCount") or 0) for status in counted)
    ends = [parse(at(status, "lastState.terminated.finishedAt")) for status in counted]
    known = [end for end in ends if end is not None]
    if total and known:
        return f"{total} ({human((now - max(known)).total_seconds())} ago)"
    return str(total)


def _readiness_gates(pod: Obj) -> str:
    gates = at(pod, "spec.readinessGates", [])
    if not gates:
        return NONE
    passed = sum(1 for gate in gates if is_true(pod, str(gate.get("conditionType", ""))))
    return f"{passed}/{len(gates)}"


def _ip(pod: Obj) -> str:
    addresses = at(pod, "status.podIPs", [])
    return str(addresses[0].get("ip", "")) if addresses else str(at(pod, "status.podIP", NONE)) or NONE


COLUMNS: list[Column] = [
    NAME,
    plain("Ready", _ready),
    plain("Status", status_word),
    computed("Restarts", _restarts),
    AGE,
    plain("IP", _ip, wide=True),
    field("Node", "spec.nodeName", NONE, wide=True),
    field("Nominated Node", "status.nominatedNodeName", NONE, wide=True),
    plain("Readiness Gates", _readiness_gates, wide=True),
]
