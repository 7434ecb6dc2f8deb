"""From a Workspace to the cause that keeps it from being ready, as one chain in time.

In: an observation as the operator makes it, the events, the time. Out: a :class:`Chain`. Pure. What blocks is what
the operator's ``decide`` finds in the same observation; the rest is order.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from api.conditions import (
    ADAPTERS_READY,
    WORKSPACE_DELETING,
    WORKSPACE_READY,
    Condition,
    Status,
    conditions_of,
    find,
    parse_time,
    render_time,
)
from api.reasons import Fact, Reason
from controllers.workspace.decide import decide
from controllers.workspace.eta import READY, seconds_left
from controllers.workspace.findings import blocking, passes, turn_of
from controllers.workspace.model import Observation
from controllers.workspace.stages import present
from controllers.workspace.tuning import runs
from kaito.endpoint import curls, from_outside
from kaito.explain import moments
from kaito.explain.moments import Moment
from kaito.explain.next import commands
from manager.types import Obj


@dataclass(frozen=True, slots=True)
class Verdict:
    """One cause, whose turn it is, and what to type. ``passes``: it only takes time."""

    reason: str
    message: str
    turn: str
    passes: bool
    next: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        reason: str,
        message: str,
        facts: Mapping[str, Fact],
        name: str,
        namespace: str,
        kind: str = "workspace",
    ) -> Verdict:
        """The verdict that says this reason."""
        typed = commands(reason, facts, name, namespace) if kind == "workspace" else ()
        return cls(reason, message, str(turn_of(reason)), passes(reason), typed)

    def to_obj(self) -> Obj:
        """As JSON."""
        return {
            "reason": self.reason,
            "message": self.message,
            "turn": self.turn,
            "onlyTakesTime": self.passes,
            "next": list(self.next),
        }


@dataclass(frozen=True, slots=True)
class Chain:
    """The explanation.

    Attributes:
        state: in one word.
        blocking: None when it is ready.
        beside: what is not as wanted and does not keep it from being ready.
        wait: how long it may still take; empty where nobody can know.
        endpoint: commands that ask it.
        outside: makes the endpoint's address answer outside the cluster.
        notes: what the reader should know about the explanation itself.
    """

    kind: str
    name: str
    namespace: str
    state: str
    moments: tuple[Moment, ...]
    blocking: Verdict | None
    beside: tuple[Verdict, ...] = ()
    wait: str = ""
    endpoint: tuple[str, ...] = ()
    outside: str = ""
    notes: tuple[str, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def exit_code(self) -> int:
        """0 when it is ready, else 1."""
        return 0 if self.blocking is None else 1

    def to_obj(self) -> Obj:
        """As JSON."""
        return {
            "kind": self.kind,
            "name": self.name,
            "namespace": self.namespace or None,
            "state": self.state,
            "ready": self.blocking is None,
            "blocking": self.blocking.to_obj() if self.blocking else None,
            "beside": [item.to_obj() for item in self.beside],
            "wait": self.wait or None,
            "endpoint": list(self.endpoint),
            "timeline": [
                {
                    "at": render_time(item.at),
                    "who": item.who,
                    "name": item.name,
                    "text": item.text,
                    "bad": item.bad,
                    "count": item.count,
                }
                for item in self.moments
            ],
            "notes": list(self.notes),
            **self.facts,
        }


def explain_workspace(obs: Observation, events: Sequence[Obj], now: datetime, notes: Sequence[str] = ()) -> Chain:
    """The chain of one Workspace."""
    plan = decide(obs, now)
    derived = conditions_of({"status": plan.status})
    ready = find(derived, WORKSPACE_READY)
    stored = obs.obj.get("status") or {}
    state = "Deleting" if obs.deleting else str(plan.status.get("state") or stored.get("state") or "Pending")
    found = blocking(plan.findings)
    if ready is not None and ready.status == Status.TRUE:
        verdict = None
    elif found is not None:
        verdict = Verdict.of(
            found.why.reason, found.why.message, {**found.why.facts, **_machine(obs)}, obs.name, obs.namespace
        )
    else:
        verdict = Verdict.of(*_told(derived), _machine(obs), obs.name, obs.namespace)
    model = obs.workspace.preset.name if obs.workspace and obs.workspace.preset else ""
    service = obs.service if obs.owns(obs.service) else None
    return Chain(
        kind="Workspace",
        name=obs.name,
        namespace=obs.namespace,
        state=state,
        moments=moments.in_order(_moments(obs, events, now, plan.status.get("tuning"))),
        blocking=verdict,
        beside=tuple(_beside(obs, derived)),
        wait=_wait(obs, now) if verdict is not None and verdict.passes else "",
        endpoint=tuple(curls(service, model)) if service is not None and verdict is None else (),
        outside=from_outside(service) if service is not None and verdict is None else "",
        notes=(*notes, *_doubts(obs, ready), *_kept(obs)),
        facts={"adapters": plan.status.get("adapters") or [], "tuning": plan.status.get("tuning")},
    )


def _moments(obs: Observation, events: Sequence[Obj], now: datetime, told: Obj | None) -> Iterator[Moment]:
    yield from moments.of_workspace(obs.obj)
    for machine in obs.machines:
        yield from moments.of_machine(machine)
    used = {str((pod.get("spec") or {}).get("nodeName") or "") for pod in obs.pods}
    used |= {str((machine.get("status") or {}).get("nodeName") or "") for machine in obs.machines}
    used |= set((obs.obj.get("status") or {}).get("workerNodes") or [])
    for node in obs.nodes:
        if node["metadata"]["name"] in used:
            yield from moments.of_node(node, since=parse_time(obs.obj["metadata"].get("creationTimestamp")))
    for pod in obs.pods:
        yield from moments.of_pod(pod)
        report = obs.reports.get(pod["metadata"]["name"])
        if report is not None and report.progress is not None and report.progress.stage != "Ready":
            yield moments.of_engine(pod, report.progress, now)
        if report is not None and report.tune is not None:
            yield moments.of_run(pod, report.tune, told or {}, now)
    if (job := obs.children.job) is not None and obs.owns(job):
        yield from moments.of_job(job)
    machines = {str(item["metadata"]["name"]) for item in obs.machines}
    names = {
        "Workspace": {obs.name},
        "Machine": machines,
        "NodeClaim": machines,
        "Node": used,
        "Pod": {str(item["metadata"]["name"]) for item in obs.pods},
        # Whoever makes the pods tells in an event alone why it cannot: a quota, a policy.
        "Deployment": {obs.name},
        "StatefulSet": {obs.name},
        "Job": {obs.name},
        "ReplicaSet": {name for name in _regarded(events, "ReplicaSet") if name.startswith(f"{obs.name}-")},
    }
    yield from moments.of_events(events, names)


def _regarded(events: Sequence[Obj], kind: str) -> set[str]:
    """The names of the objects of a kind that events are about."""
    about = (event.get("regarding") or {} for event in events)
    return {str(item.get("name")) for item in about if item.get("kind") == kind}


def _beside(obs: Observation, derived: Sequence[Condition]) -> Iterator[Verdict]:
    adapters = find(derived, ADAPTERS_READY)
    if adapters is not None and adapters.status != Status.TRUE:
        yield Verdict.of(adapters.reason, adapters.message, {}, obs.name, obs.namespace)


def _doubts(obs: Observation, derived: Condition | None) -> Iterator[str]:
    """Where what the operator wrote and what it would write now differ."""
    told = find(conditions_of(obs.obj), WORKSPACE_READY)
    if told is None:
        yield "the operator has not written a status yet: is it running? kubectl -n kaito-system get pods"
    elif derived is not None and (told.status, told.reason) != (derived.status, derived.reason):
        yield f"the stored status still says {told.reason}; the operator looks again with the next change"


def _kept(obs: Observation) -> Iterator[str]:
    """That a run which is over still costs its node."""
    job = obs.children.job
    if obs.owns(job) and runs.verdict(job or {}) and (obs.nodes or obs.machines):
        step = f"kubectl delete workspace {obs.name} -n {obs.namespace}"
        yield f"the run is over; its node is kept, and paid for, until the workspace is deleted: {step}"


def _machine(obs: Observation) -> dict[str, Fact]:
    """The Machine to look at, where one is not ready."""
    for machine in obs.machines:
        ready = find(conditions_of(machine), "Ready")
        if ready is None or ready.status != Status.TRUE:
            return {"machine": str(machine["metadata"]["name"])}
    return {}


def _told(derived: Sequence[Condition]) -> tuple[str, str]:
    """What the conditions say where no finding stands behind them; of one that leaves, what it waits for."""
    leaving = find(derived, WORKSPACE_DELETING)
    if leaving is not None:
        stuck = leaving.reason == Reason.DELETION_STUCK
        return str(Reason.DELETION_STUCK if stuck else Reason.DELETING), leaving.message
    condition = find(derived, WORKSPACE_READY)
    if condition is None:
        return str(Reason.DELETING), "The workspace is being deleted, and nothing of it is left"
    return condition.reason, condition.message


def _wait(obs: Observation, now: datetime) -> str:
    eta = (obs.obj.get("status") or {}).get("eta")
    if not eta:
        return "" if present(obs) is None else "unknown yet: no other of its kind has been seen"
    left = seconds_left(eta, now)
    what = "ready" if eta.get("until") == READY else f"through with {eta.get('stage')}"
    basis = str(eta.get("basis") or "")
    if left is None:
        return f"{eta.get('stage')} takes {basis}"
    if left <= 0:
        return f"should have been {what} by now ({basis})"
    return f"{what} in about {left:.0f} s ({basis})"
