"""The way out of a Workspace: its workload and its Machines go, then the Workspace.

In: the observation of a Workspace that is being deleted. Out: deletions, and the finalizer once nothing is
left. Pure. The Machines are waited for by watching, not by asking; absent ones, and an absent Machine API,
count as done. Children in the namespace would go by their owner references as well; the workload is asked
to leave first, so that its pods are gone before their node is.
"""

from __future__ import annotations

from datetime import datetime

from api import keys
from api.conditions import READY, WORKSPACE_DELETING, Status, conditions_of, find
from api.reasons import Cause, Reason
from controllers.workspace.findings import Finding
from controllers.workspace.model import Action, DeleteMachine, DeleteOwned, Observation, Plan, RemoveFinalizer, Why
from controllers.workspace.status import status_of, whole
from manager.resources import DEPLOYMENTS, SERVICES

_ORPHAN = "orphan"  # the API server's finalizer of `kubectl delete --cascade=orphan`


def deletion(obs: Observation, now: datetime) -> Plan:
    """One step towards nothing being left."""
    finalizers = obs.obj["metadata"].get("finalizers") or []
    if keys.WORKSPACE_FINALIZER not in finalizers:
        return Plan(actions=(), status={})
    if not obs.machines:
        return Plan(actions=(RemoveFinalizer(),), status={})
    actions: list[Action] = []
    if _ORPHAN not in finalizers:
        for resource, stored in ((SERVICES, obs.service), (DEPLOYMENTS, obs.deployment)):
            if stored is not None and obs.owns(stored) and not stored["metadata"].get("deletionTimestamp"):
                actions.append(DeleteOwned(resource, stored["metadata"]["uid"]))
    actions += [
        DeleteMachine(machine["metadata"]["name"], machine["metadata"]["uid"])
        for machine in obs.machines
        if not machine["metadata"].get("deletionTimestamp")
    ]
    findings = (
        Finding(WORKSPACE_DELETING, Status.TRUE, Why.of(Cause(Reason.WORKSPACE_DELETED))),
        *whole((), blocked_by=_waiting(obs)),
    )
    return Plan(actions=tuple(actions), status=status_of(obs, findings, now))


def _waiting(obs: Observation) -> Why:
    """For which Machine, and what that one waits for."""
    machine = obs.machines[0]
    name = machine["metadata"]["name"]
    ready = find(conditions_of(machine), READY)
    leaving = machine["metadata"].get("deletionTimestamp") and ready is not None and ready.message
    facts = {"machine": name, "waiting_for": ready.message if ready is not None and leaving else "its instance"}
    return Why.of(Cause(Reason.DELETING, facts))
