"""The status of a Deployment: counts, and the conditions Available, Progressing and ReplicaFailure.

`kubectl rollout status` waits on these. Progress means that a count moved towards the goal since the status
that stands in the object; no progress for ``progressDeadlineSeconds`` is a failure that is reported and
nothing else. Pure; the time is an argument.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from manager.types import Obj

from .. import pods as p
from ..conditions import condition, make, set_condition, without
from ..replicaset.decide import wanted
from ..times import rfc3339, seconds_since
from .revisions import max_unavailable
from .sizes import available

_NO_DEADLINE = 2**31 - 1  # what clients write for "never"


def counts(deployment: Obj, new: Obj | None, everything: Sequence[Obj]) -> dict[str, int]:
    """The replica counts of the status."""

    def total(field: str) -> int:
        return sum(int(p.status_of(rs).get(field) or 0) for rs in everything)

    there = sum(map(available, everything))
    return {
        "replicas": total("replicas"),
        "updatedReplicas": int(p.status_of(new).get("replicas") or 0) if new else 0,
        "readyReplicas": total("readyReplicas"),
        "availableReplicas": there,
        "unavailableReplicas": max(0, sum(map(wanted, everything)) - there),
    }


def is_complete(deployment: Obj, status: Obj) -> bool:
    """Whether every replica is of the new template and available, and nothing old is left."""
    desired = wanted(deployment)
    return all(int(status.get(f) or 0) == desired for f in ("updatedReplicas", "replicas", "availableReplicas"))


def new_status(
    deployment: Obj, new: Obj | None, everything: Sequence[Obj], now: datetime, *, created: str | None = None
) -> Obj:
    """The status that the ReplicaSets justify. ``created`` names a ReplicaSet that is being made just now."""
    old = p.status_of(deployment)
    status: Obj = {k: v for k, v in counts(deployment, new, everything).items() if v}
    status["observedGeneration"] = p.meta_of(deployment).get("generation")
    if old.get("collisionCount"):
        status["collisionCount"] = old["collisionCount"]
    conditions = _available(deployment, status, old.get("conditions"), now)
    conditions = _progressing(deployment, new, status, conditions, now, created)
    status["conditions"] = _failure(new, everything, conditions)
    return status


def deadline_in(deployment: Obj, status: Obj, now: datetime) -> float | None:
    """Seconds until the deadline has to be looked at, or None when nothing is being waited for."""
    seconds = _deadline(deployment)
    current = condition(status.get("conditions"), "Progressing")
    if seconds is None or current is None or p.spec_of(deployment).get("paused"):
        return None
    if current.get("reason") in ("NewReplicaSetAvailable", "ProgressDeadlineExceeded"):
        return None
    past = seconds_since(current.get("lastUpdateTime"), now)
    # One second more: the time stamp has lost its fraction.
    return None if past is None else max(1.0, seconds - past + 1.0)


def _deadline(deployment: Obj) -> int | None:
    seconds = p.spec_of(deployment).get("progressDeadlineSeconds", 600)
    return None if seconds is None or int(seconds) >= _NO_DEADLINE else int(seconds)


def _available(deployment: Obj, status: Obj, conditions: Sequence[Obj] | None, now: datetime) -> list[Obj]:
    enough = int(status.get("availableReplicas") or 0) >= wanted(deployment) - max_unavailable(deployment)
    made = (
        make(
            "Available", "True", "MinimumReplicasAvailable", "Deployment has minimum availability.", now,
            update_time=True,
        )
        if enough
        else make(
            "Available", "False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability.",
            now, update_time=True,
        )
    )  # fmt: skip
    return set_condition(conditions, made)


def _progressing(
    deployment: Obj,
    new: Obj | None,
    status: Obj,
    conditions: list[Obj],
    now: datetime,
    created: str | None,
) -> list[Obj]:
    seconds = _deadline(deployment)
    if seconds is None:
        return without(conditions, "Progressing")
    current = condition(conditions, "Progressing")
    paused = bool(p.spec_of(deployment).get("paused"))
    reason = current.get("reason") if current else None
    who = f'ReplicaSet "{p.name_of(new)}"' if new else f'Deployment "{p.name_of(deployment)}"'

    def put(state: str, why: str, message: str, *, touch: bool = False) -> list[Obj]:
        made = make("Progressing", state, why, message, now, update_time=True)
        changed = set_condition(conditions, made)
        if not touch:
            return changed
        return [{**c, "lastUpdateTime": rfc3339(now)} if c.get("type") == "Progressing" else c for c in changed]

    if paused:
        keep = reason in ("DeploymentPaused", "ProgressDeadlineExceeded")
        return conditions if keep else put("Unknown", "DeploymentPaused", "Deployment is paused")
    if created is not None:
        return put("True", "NewReplicaSetCreated", f'Created new replica set "{created}"', touch=True)
    if reason == "DeploymentPaused":
        return put("Unknown", "DeploymentResumed", "Deployment is resumed")
    if new is not None and current is None:
        return put("True", "FoundNewReplicaSet", f'Found new replica set "{p.name_of(new)}"')
    if reason == "NewReplicaSetAvailable" and status.get("replicas") == status.get("updatedReplicas"):
        return conditions
    if new is not None and is_complete(deployment, status):
        return put("True", "NewReplicaSetAvailable", f"{who} has successfully progressed.")
    if _moved(p.status_of(deployment), status):
        return put("True", "ReplicaSetUpdated", f"{who} is progressing.", touch=True)
    past = seconds_since(current.get("lastUpdateTime"), now) if current else None
    # A rollout that was complete lost pods, not progress: that is no time-out.
    if past is not None and past > seconds and reason != "NewReplicaSetAvailable":
        return put("False", "ProgressDeadlineExceeded", f"{who} has timed out progressing.")
    return conditions


def _moved(old: Obj, new: Obj) -> bool:
    def n(status: Obj, field: str) -> int:
        return int(status.get(field) or 0)

    def outdated(status: Obj) -> int:
        return n(status, "replicas") - n(status, "updatedReplicas")

    return outdated(new) < outdated(old) or any(
        n(new, f) > n(old, f) for f in ("updatedReplicas", "readyReplicas", "availableReplicas")
    )


def _failure(new: Obj | None, everything: Sequence[Obj], conditions: list[Obj]) -> list[Obj]:
    for replicaset in ([new] if new else []) + list(everything):
        failed = condition(p.status_of(replicaset).get("conditions"), "ReplicaFailure")
        if failed is not None:
            copied = {**failed, "lastUpdateTime": failed.get("lastTransitionTime")}
            return set_condition(conditions, copied)
    return without(conditions, "ReplicaFailure")
