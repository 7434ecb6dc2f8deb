"""Whether the endpoint of a Workspace answers, and what is in the way.

In: the stored workload, its pods and what they say. Out: the condition ``InferenceReady`` as a finding. Pure.
Readiness that was reached once and lost is lost. Of several causes the most urgent is told.
"""

from __future__ import annotations

from datetime import datetime

from api.conditions import INFERENCE_READY, Status
from api.reasons import Cause, Reason
from controllers.workspace.findings import Finding, urgency
from controllers.workspace.model import Observation, Why
from controllers.workspace.pods import diagnose
from controllers.workspace.rollout import refused, unfinished


def inference_finding(obs: Observation, now: datetime) -> Finding:
    """``InferenceReady``, with upstream's words where all is well."""
    failed = next((item.why for item in obs.failures if item.condition == INFERENCE_READY), None)
    if failed is not None:
        return Finding(INFERENCE_READY, Status.FALSE, failed)
    if obs.workload is None:
        return Finding(INFERENCE_READY, Status.FALSE, Why.of(Cause(Reason.WAITING_FOR_RESOURCE)))
    pending = unfinished(obs.workload, obs.pods)
    if pending is None:
        return Finding(INFERENCE_READY, Status.TRUE, Why.of(Cause(Reason.INFERENCE_SUCCESS)))
    nodes = {str(node["metadata"]["name"]): node for node in obs.nodes}
    causes = [diagnose(obs.pods, nodes, obs.reports, now), refused(obs.workload), pending]
    told = min((item for item in causes if item), key=lambda item: urgency(str(item.reason)))
    return Finding(INFERENCE_READY, Status.FALSE, Why.of(told))
