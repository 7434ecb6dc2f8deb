"""The pod's status, computed anew each time: pure.

In: a `PodView`, the status that the API server has (for transition times) and the time. Out: the status
object that is to be written. Phases, condition types, reasons and texts are the kubelet's, since people and
programs read them. Never to happen: a pod that was Succeeded or Failed becomes anything else.
"""

from __future__ import annotations

from datetime import UTC, datetime

from kaito.local.node.backoff import describe
from kaito.local.node.decide import init_failed, initialized
from kaito.local.node.runtime import Exit
from kaito.local.node.views import ContainerView, PodView, Role, restarts
from manager.types import Obj

TERMINAL = ("Succeeded", "Failed")


def rfc3339(now: float) -> str:
    """Seconds since the epoch as the API writes times."""
    return datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def pod_status(view: PodView, now: float) -> Obj:
    """The whole status as it should be."""
    current: Obj = view.pod.get("status") or {}
    phase = _phase(view, current.get("phase", ""))
    status: Obj = {
        "phase": phase,
        "conditions": _conditions(view, phase, current.get("conditions") or [], now),
        "containerStatuses": [container_status(c, view, now) for c in view.of(Role.MAIN)],
    }
    if init := view.of(Role.INIT, Role.SIDECAR):
        status["initContainerStatuses"] = [container_status(c, view, now) for c in init]
    if view.host_ip:
        status["hostIP"] = view.host_ip
    if view.pod_ip:
        status |= {"podIP": view.pod_ip, "podIPs": [{"ip": view.pod_ip}]}
    if view.started_at is not None:
        status["startTime"] = rfc3339(view.started_at)
    for key in ("reason", "message"):
        value = getattr(view.ending, key, "") or (current.get(key) if phase in TERMINAL else "")
        if value:
            status[key] = value
    return status


def _phase(view: PodView, current: str) -> str:
    if current in TERMINAL:
        return current
    main = view.of(Role.MAIN)
    over = view.deleting or view.ending is not None
    if over and not any(c.running for c in view.containers):
        if view.ending:
            return view.ending.phase
        if all(c.exit is not None and c.exit.exit_code == 0 for c in main):
            return "Succeeded"
        if any(c.run is not None for c in view.containers):
            return "Failed"
        return "Pending"
    if init_failed(view):
        return "Failed"
    if not initialized(view) or any(c.run is None for c in main):
        return "Pending"
    if any(c.running for c in main):
        return "Running"
    if any(restarts(c, view.restart_policy) for c in main) or view.deleting:
        return "Running"
    if all(c.exit is not None and c.exit.exit_code == 0 for c in main):
        return "Succeeded"
    return "Failed"


# containers


def container_status(container: ContainerView, view: PodView, now: float) -> Obj:
    """One entry of containerStatuses."""
    state, last = _states(container, view, now)
    status: Obj = {
        "name": container.name,
        "image": container.spec.get("image", ""),
        "imageID": f"local://{container.spec.get('image', '')}" if container.run else "",
        "restartCount": container.run.number if container.run else 0,
        "ready": container.ready,
        "started": container.started,
        "state": state,
        "lastState": last,
    }
    if container.run is not None:
        status["containerID"] = container_id(view.pod, container.name, container.run.number)
    return status


def container_id(pod: Obj, name: str, number: int) -> str:
    """The id of one run; stable over agent restarts."""
    return f"local://{pod['metadata'].get('uid', '')}/{name}/{number}"


def _states(container: ContainerView, view: PodView, now: float) -> tuple[Obj, Obj]:
    def ended(exit_: Exit | None, number: int) -> Obj:
        return {"terminated": _terminated(exit_, view, container.name, number)} if exit_ else {}

    run, trouble = container.run, container.trouble
    waiting = {"waiting": {"reason": trouble.reason, "message": trouble.message}} if trouble else None
    if run is None:
        reason = "ContainerCreating" if container.role is not Role.MAIN or initialized(view) else "PodInitializing"
        return waiting or {"waiting": {"reason": reason}}, {}
    if run.exit is None:
        return {"running": {"startedAt": _trim(run.started_at)}}, ended(container.previous, run.number - 1)
    over = view.deleting or view.ending is not None
    if not over and restarts(container, view.restart_policy):
        if waiting:
            return waiting, ended(run.exit, run.number)
        if container.retry_at > now:
            return {"waiting": _crash_loop(container, view)}, ended(run.exit, run.number)
    return ended(run.exit, run.number), ended(container.previous, run.number - 1)


def _crash_loop(container: ContainerView, view: PodView) -> Obj:
    return {"reason": "CrashLoopBackOff", "message": back_off_message(container, view.pod)}


def back_off_message(container: ContainerView, pod: Obj) -> str:
    """The sentence of the waiting state and of the BackOff event."""
    meta = pod["metadata"]
    where = f"{meta['name']}_{meta.get('namespace', '')}({meta.get('uid', '')})"
    delay = describe(container.backoff.delay)
    return f"back-off {delay} restarting failed container={container.name} pod={where}"


def _terminated(exit_: Exit, view: PodView, name: str, number: int) -> Obj:
    state: Obj = {
        "exitCode": exit_.exit_code,
        "reason": exit_.reason,
        "startedAt": _trim(exit_.started_at),
        "finishedAt": _trim(exit_.finished_at),
        "containerID": container_id(view.pod, name, number),
    }
    if exit_.signal:
        state["signal"] = exit_.signal
    if exit_.message:
        state["message"] = exit_.message
    return state


def _trim(text: str) -> str:
    """Whole seconds: what the API keeps."""
    return text.partition(".")[0] + "Z" if "." in text else text


# conditions


def _conditions(view: PodView, phase: str, current: list[Obj], now: float) -> list[Obj]:
    before = {c["type"]: c for c in current}
    wanted = [
        _initialized(view, phase),
        _containers_ready(view, phase, "ContainersReady"),
        _ready(view, phase, before),
    ]
    result = []
    for condition in wanted:
        old = before.get(condition["type"])
        same = old is not None and old.get("status") == condition["status"]
        time = old.get("lastTransitionTime") if same and old else rfc3339(now)
        result.append({**condition, "lastProbeTime": None, "lastTransitionTime": time})
    return result


def _condition(kind: str, good: bool, reason: str = "", message: str = "") -> Obj:
    condition: Obj = {"type": kind, "status": "True" if good else "False"}
    if reason:
        condition["reason"] = reason
    if message:
        condition["message"] = message
    return condition


def _initialized(view: PodView, phase: str) -> Obj:
    if phase == "Succeeded":
        return _condition("Initialized", True, "PodCompleted")
    if initialized(view):
        return _condition("Initialized", True)
    left = [c.name for c in view.of(Role.INIT, Role.SIDECAR) if not c.ready]
    text = f"containers with incomplete status: [{' '.join(left)}]"
    return _condition("Initialized", False, "ContainersNotInitialized", text)


def _containers_ready(view: PodView, phase: str, kind: str) -> Obj:
    if phase == "Succeeded":
        return _condition(kind, False, "PodCompleted")
    if phase == "Failed":
        return _condition(kind, False, "PodFailed")
    unready = [c.name for c in view.of(Role.MAIN, Role.SIDECAR) if not c.ready]
    if unready:
        return _condition(
            kind, False, "ContainersNotReady", f"containers with unready status: [{' '.join(unready)}]"
        )
    return _condition(kind, True)


def _ready(view: PodView, phase: str, before: dict[str, Obj]) -> Obj:
    condition = _containers_ready(view, phase, "Ready")
    if condition["status"] == "False":
        return condition
    for gate in view.pod["spec"].get("readinessGates") or []:
        kind = gate["conditionType"]
        found = before.get(kind)
        if found is None or found.get("status") != "True":
            is_ = (found or {}).get("status", "absent")
            text = f'the status of pod readiness gate "{kind}" is not "True", but {is_}'
            return _condition("Ready", False, "ReadinessGatesNotReady", text)
    return condition
