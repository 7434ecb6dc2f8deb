"""How far a Deployment or StatefulSet is: what is not so yet, or nothing when it serves.

In: the stored workload and the Workspace's pods. Out: a cause, or None. Pure. It serves when its controller has
seen the current generation, every replica is of the newest revision and ready, none of an older one is left, and
no pod that counts says otherwise: a controller's figures may be older than the pods themselves.
"""

from __future__ import annotations

from collections.abc import Sequence

from api.reasons import Cause, Reason
from controllers.workspace.pods import is_leaving, is_ready, newest_revision
from manager.types import Obj


def unfinished(workload: Obj, pods: Sequence[Obj]) -> Cause | None:
    """Why the workload does not serve as it should; None when it does."""
    status = workload.get("status") or {}
    wanted = replicas(workload)
    if (status.get("observedGeneration") or 0) < (workload["metadata"].get("generation") or 0):
        return Cause(Reason.WORKLOAD_PENDING, {"ready": 0, "wanted": wanted})
    ready, updated = int(status.get("readyReplicas") or 0), _updated(workload)
    if updated < wanted or int(status.get("replicas") or 0) > wanted:
        # Before the first pod of all there is nothing that rolls.
        reason = Reason.ROLLING_OUT if ready or updated else Reason.WORKLOAD_PENDING
        facts = {"updated": updated, "wanted": wanted} if ready or updated else {"ready": ready, "wanted": wanted}
        return Cause(reason, facts)
    living = newest_revision([pod for pod in pods if not is_leaving(pod) and not _ended(pod)])
    unready = sum(not is_ready(pod) for pod in living)
    if ready < wanted or unready:
        return Cause(Reason.WORKLOAD_PENDING, {"ready": min(ready, wanted - unready), "wanted": wanted})
    return None


def refused(workload: Obj) -> Cause | None:
    """That the API server does not let the pods be made (a quota, a policy), in its words."""
    for condition in (workload.get("status") or {}).get("conditions") or []:
        if condition.get("type") == "ReplicaFailure" and condition.get("status") == "True":
            return Cause(Reason.REPLICAS_REFUSED, {"message": str(condition.get("message") or "")})
    return None


def replicas(workload: Obj) -> int:
    """How many pods are wanted."""
    number = (workload.get("spec") or {}).get("replicas")
    return 1 if number is None else int(number)


def _updated(workload: Obj) -> int:
    status = workload.get("status") or {}
    if workload.get("kind") == "StatefulSet" and status.get("currentRevision") == status.get("updateRevision"):
        # A StatefulSet that has finished an update counts its pods as current and no longer as updated.
        return int(status.get("currentReplicas") or status.get("updatedReplicas") or 0)
    return int(status.get("updatedReplicas") or 0)


def _ended(pod: Obj) -> bool:
    return (pod.get("status") or {}).get("phase") in ("Failed", "Succeeded")
