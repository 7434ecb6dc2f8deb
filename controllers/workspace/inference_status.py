"""Whether the endpoint of a Workspace answers, and what is in the way.

In: the stored Deployment or StatefulSet and its pods. Out: the condition ``InferenceReady`` as a finding. Pure. A
Deployment counts only when its controller has seen the current generation and all replicas of it are ready;
readiness that was reached once and lost is lost.
"""

from __future__ import annotations

from api.conditions import INFERENCE_READY, Status
from api.reasons import Cause, Reason
from controllers.workspace.findings import Finding
from controllers.workspace.model import Observation, Why
from controllers.workspace.pods import diagnose
from manager.types import Obj


def inference_finding(obs: Observation) -> Finding:
    """``InferenceReady``, with upstream's words where all is well."""
    failed = next((item.why for item in obs.failures if item.condition == INFERENCE_READY), None)
    if failed is not None:
        return Finding(INFERENCE_READY, Status.FALSE, failed)
    if obs.workload is None:
        return Finding(INFERENCE_READY, Status.FALSE, Why.of(Cause(Reason.WAITING_FOR_RESOURCE)))
    if is_ready(obs.workload):
        return Finding(INFERENCE_READY, Status.TRUE, Why.of(Cause(Reason.INFERENCE_SUCCESS)))
    cause = diagnose(obs.pods) or _refused(obs.workload) or _pending(obs.workload)
    return Finding(INFERENCE_READY, Status.FALSE, Why.of(cause))


def is_ready(deployment: Obj) -> bool:
    """Whether every replica of the current generation is ready."""
    status = deployment.get("status") or {}
    wanted = _wanted(deployment)
    current = (status.get("observedGeneration") or 0) >= (deployment["metadata"].get("generation") or 0)
    return (
        current
        and (status.get("updatedReplicas") or 0) >= wanted
        and (status.get("readyReplicas") or 0) >= wanted
        and (status.get("replicas") or 0) <= wanted  # an old replica may still be the ready one
    )


def _refused(deployment: Obj) -> Cause | None:
    for condition in (deployment.get("status") or {}).get("conditions") or []:
        if condition.get("type") == "ReplicaFailure" and condition.get("status") == "True":
            return Cause(Reason.REPLICAS_REFUSED, {"message": str(condition.get("message") or "")})
    return None


def _pending(deployment: Obj) -> Cause:
    ready = (deployment.get("status") or {}).get("readyReplicas") or 0
    return Cause(Reason.WORKLOAD_PENDING, {"ready": ready, "wanted": _wanted(deployment)})


def _wanted(deployment: Obj) -> int:
    replicas = (deployment.get("spec") or {}).get("replicas")
    return 1 if replicas is None else int(replicas)
