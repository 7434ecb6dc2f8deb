"""The status of a Workspace, put together from findings.

In: the findings of this reconcile and the stored status. Out: the status to write. Pure. Only conditions that
were found now are kept: a condition that nothing derives any more would be a memory and not an observation.
Times move only when a status changes, so that the same world gives an equal status.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from api.conditions import (
    INFERENCE_READY,
    RESOURCE_READY,
    WORKSPACE_READY,
    WORKSPACE_SUCCEEDED,
    Condition,
    Status,
    conditions_of,
    find,
    set_condition,
)
from api.reasons import Cause, Reason
from api.v1alpha1 import WorkspaceState
from controllers.workspace.adapters_status import adapters_finding, observed_adapters, wanted_adapters
from controllers.workspace.eta import eta
from controllers.workspace.findings import Finding, blocking, passes
from controllers.workspace.model import Observation, Why
from manager.types import Obj

MAX_MESSAGE = 1024  # characters; the API allows 32768, a terminal does not


def status_of(
    obs: Observation,
    findings: Sequence[Finding],
    now: datetime,
    *,
    nodes: Iterable[Obj] = (),
    count: int | None = None,
    state: WorkspaceState | None = None,
    tuning: Obj | None = None,
) -> Obj:
    """The whole status that we write; fields of others are not in it. What nobody looked at now stays as it is.

    ``state``: of a Workspace that tunes; of one that serves the findings tell it. ``tuning``: how far it is.
    """
    wanted_list = wanted_adapters(obs)
    entries = observed_adapters(obs, wanted_list)
    told = adapters_finding(entries, wanted_list)
    findings = [*findings, told] if told is not None else findings
    generation = int(obs.obj["metadata"].get("generation") or 0)
    stored = conditions_of(obs.obj)
    wanted = {item.type for item in findings}
    result: tuple[Condition, ...] = tuple(item for item in stored if item.type in wanted)
    for item in findings:
        message = item.why.message[:MAX_MESSAGE]
        new = Condition(item.type, str(item.status), item.why.reason, message, observed_generation=generation)
        result = set_condition(result, new, now.replace(microsecond=0))
    blocked = blocking(findings)
    wait = eta(obs, now) if blocked is not None and passes(blocked.why.reason) else None
    return {
        "observedGeneration": generation,
        "workerNodes": sorted(node["metadata"]["name"] for node in nodes),
        "targetNodeCount": count or (obs.obj.get("status") or {}).get("targetNodeCount"),
        "state": str(state or _state(obs, findings)),
        "eta": _patched(wait, (obs.obj.get("status") or {}).get("eta")),
        "adapters": entries,
        "tuning": _patched(tuning, (obs.obj.get("status") or {}).get("tuning")),
        "conditions": [item.to_obj() for item in result],
    }


def whole(parts: Sequence[Finding], blocked_by: Why | None = None) -> tuple[Finding, ...]:
    """``WorkspaceReady`` and ``WorkspaceSucceeded``: True when every part is, else what blocks most urgently."""
    found = blocking(parts)
    why = blocked_by or (found.why if found else None)
    if why is None:
        return (
            Finding(WORKSPACE_READY, Status.TRUE, Why.of(Cause(Reason.WORKSPACE_READY))),
            Finding(WORKSPACE_SUCCEEDED, Status.TRUE, Why.of(Cause(Reason.WORKSPACE_SUCCEEDED))),
        )
    return (Finding(WORKSPACE_READY, Status.FALSE, why), Finding(WORKSPACE_SUCCEEDED, Status.FALSE, why))


def is_written(status: Obj, stored: Obj | None) -> bool:
    """Whether the stored status says all of this already."""
    have = stored or {}
    return all(have.get(key) == value for key, value in status.items() if value or have.get(key))


def _patched(new: Obj | None, stored: Obj | None) -> Obj | None:
    """The object as a merge patch: what is no longer said is taken away."""
    if new is None:
        return None
    return {**{key: None for key in stored or {} if key not in new}, **new}


def _state(obs: Observation, findings: Sequence[Finding]) -> str:
    by_type = {item.type: item.status for item in findings}
    if by_type.get(RESOURCE_READY) == Status.TRUE == by_type.get(INFERENCE_READY):
        return str(WorkspaceState.READY)
    before = (obs.obj.get("status") or {}).get("state")
    was_ready = find(conditions_of(obs.obj), WORKSPACE_READY)
    if before in (WorkspaceState.READY, WorkspaceState.NOT_READY) or (
        was_ready and was_ready.status == Status.TRUE
    ):
        return str(WorkspaceState.NOT_READY)
    return str(WorkspaceState.PENDING)
