"""One reconcile of a Machine, decided: the phases in order, their marks merged into one status.

In: an observation and the time. Out: a plan. Pure and synchronous: the same observation gives the same plan,
whoever asks. A plan calls the cloud at most once; what the cloud answers becomes part of the observation and
the plan is made anew, so that a refusal is in the status of the very reconcile that saw it.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from api import keys
from api.conditions import is_true
from controllers.machine import conditions
from controllers.machine.initialization import initialization
from controllers.machine.launch import launch
from controllers.machine.liveness import liveness
from controllers.machine.model import AddFinalizer, DeleteMachine, Mark, Observation, Phase, Plan
from controllers.machine.registration import registration
from controllers.machine.termination import drains, termination
from manager.types import Obj


def decide(obs: Observation, now: datetime) -> Plan:
    """What to do about this Machine, and what its status says after it."""
    finalizers = obs.machine["metadata"].get("finalizers") or []
    if obs.deleting:
        if keys.TERMINATION_FINALIZER not in finalizers:
            return Plan(actions=(), cloud=None, status=_stored(obs))
        return _plan(obs, now, (termination(obs, now),))
    if keys.TERMINATION_FINALIZER not in finalizers:
        # Alone and first: an instance without a finalizer on its Machine can be lost.
        return Plan(actions=(AddFinalizer(),), cloud=None, status=_stored(obs))
    launched = launch(obs, now)
    is_launched = _holds(obs, obs.kind.launched, launched.marks)
    registered = registration(obs, launched=is_launched)
    is_registered = _holds(obs, obs.kind.registered, registered.marks)
    initialized = initialization(obs, now, registered=is_registered)
    alive = liveness(obs, now, registered=is_registered)
    return _plan(obs, now, (launched, registered, initialized, alive, _follow_node(obs)))


def needs_cloud(obs: Observation, now: datetime) -> bool:
    """Whether this reconcile has to look the instance up: not when nothing depends on it, nor too soon.

    Of a Machine that is being deleted the nodes and pods have to be in the observation already.
    """
    if obs.attempts.given_up or obs.wait(now):
        return False
    finalizers = obs.machine["metadata"].get("finalizers") or []
    if keys.TERMINATION_FINALIZER not in finalizers:
        return not obs.deleting
    if obs.deleting:
        return not drains(obs, now)
    return not is_true(obs.conditions, obs.kind.launched)


def _follow_node(obs: Observation) -> Phase:
    """Who deletes the node gives the whole of it up: it waits, by its finalizer, for the Machine's way out."""
    for node in obs.nodes:
        if node["metadata"].get("deletionTimestamp"):
            note = f"node {node['metadata']['name']} is being deleted, and its Machine goes with it"
            return Phase(actions=(DeleteMachine(str(obs.machine["metadata"]["uid"]), "NodeDeleted", note, False),))
    return Phase()


def _plan(obs: Observation, now: datetime, phases: Iterable[Phase]) -> Plan:
    phases = tuple(phases)
    marks = [mark for phase in phases for mark in phase.marks]
    status = _stored(obs)
    for phase in phases:
        status |= phase.status or {}
    merged = conditions.merge(
        obs.conditions,
        marks,
        now,
        kind=obs.kind,
        generation=obs.machine["metadata"].get("generation"),
        created=obs.created,
    )
    # Empty fields stay out, as knative leaves them: old API servers take an empty string for a null.
    status["conditions"] = [
        {key: value for key, value in condition.to_obj().items() if value != ""} for condition in merged
    ]
    waits = [phase.requeue_after for phase in phases if phase.requeue_after is not None]
    return Plan(
        actions=tuple(action for phase in phases for action in phase.actions),
        cloud=next((phase.cloud for phase in phases if phase.cloud is not None), None),
        status=status,
        requeue_after=min(waits, default=None),
    )


def _holds(obs: Observation, type_: str, marks: Iterable[Mark]) -> bool:
    for mark in marks:
        if mark.type == type_:
            return mark.status == "True"
    return is_true(obs.conditions, type_)


def _stored(obs: Observation) -> Obj:
    stored: dict[str, Any] = dict(obs.machine.get("status") or {})
    return stored
