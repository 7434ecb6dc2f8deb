"""The way out of a Workspace: its workload and its Machines go, then the Workspace.

In: the observation of a Workspace that is being deleted, and the time. Out: deletions, and the finalizer once no
Machine is left. Pure. Workload and Machines are asked to go in the same reconcile, the workload first: its pods
end in peace while their nodes are drained, and a pod that does not end keeps no GPU node from being given back.
The Machines are waited for by watching; absent ones, and an absent Machine API, count as done. What takes long is
told with its reason, its age and whose turn it is; nothing is forced, because a Machine that is forgotten is a
bill.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Final

from api import keys
from api.conditions import READY, WORKSPACE_DELETING, Status, conditions_of, find
from api.reasons import Cause, Reason
from controllers.workspace.children import Whose, whose
from controllers.workspace.findings import Finding, Turn, turn_of
from controllers.workspace.model import Action, DeleteMachine, DeleteOwned, Observation, Plan, RemoveFinalizer, Why
from controllers.workspace.status import status_of, whole
from manager.meta import parse_time
from manager.resources import CONFIGMAPS, DEPLOYMENTS, JOBS, SERVICES, STATEFULSETS
from manager.types import Obj, Resource

STUCK_MINUTES: Final = 10  # a node has been drained and given back by then
_LOOK_AGAIN = 60.0  # seconds; how long something takes changes without an event
_ORPHAN = "orphan"  # the API server's finalizer of `kubectl delete --cascade=orphan`
_SHOWN = 3  # Machines that one message names
_WHOSE: Final = {
    Turn.YOU: "this is yours to mend",
    Turn.CLOUD: "the cloud is at work",
    Turn.KUBERNETES: "Kubernetes is at work",
}


def deletion(obs: Observation, now: datetime) -> Plan:
    """One step towards nothing being left."""
    finalizers = obs.obj["metadata"].get("finalizers") or []
    if keys.WORKSPACE_FINALIZER not in finalizers:
        return Plan(actions=(), status={})
    if not obs.machines:
        return Plan(actions=(RemoveFinalizer(),), status={})
    actions: list[Action] = [] if _ORPHAN in finalizers else list(_workload(obs))
    actions += [
        DeleteMachine(machine["metadata"]["name"], machine["metadata"]["uid"])
        for machine in obs.machines
        if not machine["metadata"].get("deletionTimestamp")
    ]
    findings = (
        Finding(WORKSPACE_DELETING, Status.TRUE, _told(obs, now)),
        *whole((), blocked_by=_waiting(obs)),
    )
    return Plan(tuple(actions), status_of(obs, findings, now), _LOOK_AGAIN)


def _workload(obs: Observation) -> Iterator[Action]:
    children = obs.children
    stored: tuple[tuple[Resource, str, Obj | None], ...] = (
        (SERVICES, "", obs.service),
        (SERVICES, keys.HEADLESS_SUFFIX, children.headless),
        (DEPLOYMENTS, "", obs.deployment),
        (STATEFULSETS, "", children.statefulset),
        (JOBS, "", children.job),
        (CONFIGMAPS, keys.ADAPTERS_CONFIG_SUFFIX, children.adapters),
    )
    for resource, suffix, obj in stored:
        if obj is None or obj["metadata"].get("deletionTimestamp"):
            continue
        if whose(obs.name, obs.uid, obj) is Whose.OURS:
            yield DeleteOwned(resource, obj["metadata"]["uid"], f"{obs.name}{suffix}")


def _told(obs: Observation, now: datetime) -> Why:
    """That it goes, and what it waits for: for each Machine the reason, since when, and whose turn it is."""
    late = [minutes for machine in obs.machines if (minutes := _minutes(machine, now)) >= STUCK_MINUTES]
    shown = [_clause(machine, now) for machine in obs.machines[:_SHOWN]]
    if len(obs.machines) > _SHOWN:
        shown.append(f"{len(obs.machines) - _SHOWN} more")
    what = "; ".join(shown)
    if late:
        return Why.of(Cause(Reason.DELETION_STUCK, {"what": what}))
    cause = Cause(Reason.WORKSPACE_DELETED)
    return Why(str(cause.reason), f"{cause.message}: {what}")


def _clause(machine: Obj, now: datetime) -> str:
    name = f"{machine.get('kind') or 'Machine'} {machine['metadata']['name']}"
    if not machine["metadata"].get("deletionTimestamp"):
        return f"{name}: asked to go"
    ready = find(conditions_of(machine), READY)
    reason = ready.reason if ready is not None and ready.status != Status.TRUE else ""
    said = f"{reason}: {ready.message}" if ready is not None and reason else "its instance and node are given back"
    minutes = _minutes(machine, now)
    since = f", since {minutes} min" if minutes else ""
    whose = _WHOSE.get(turn_of(reason), "") if reason else _WHOSE[Turn.CLOUD]
    return f"{name}: {said.rstrip('.')}{since}" + (f" ({whose})" if whose else "")


def _minutes(machine: Obj, now: datetime) -> int:
    """Whole minutes since it was asked to go."""
    asked = machine["metadata"].get("deletionTimestamp")
    return max(int((now - parse_time(asked)).total_seconds() // 60), 0) if asked else 0


def _waiting(obs: Observation) -> Why:
    """For which Machine, and what that one waits for."""
    machine = obs.machines[0]
    name = machine["metadata"]["name"]
    ready = find(conditions_of(machine), READY)
    leaving = machine["metadata"].get("deletionTimestamp") and ready is not None and ready.message
    facts = {"machine": name, "waiting_for": ready.message if ready is not None and leaving else "its instance"}
    return Why.of(Cause(Reason.DELETING, facts))
