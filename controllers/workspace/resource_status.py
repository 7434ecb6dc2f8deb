"""Whether the nodes of a Workspace are there, and what is in the way.

In: the observation, the target and the selection of nodes. Out: the conditions ``MachineReady`` and
``ResourceReady`` as findings. Pure, derived from live objects only. A refusal by the cloud is copied with its
reason, so that nobody has to look for the Machine to learn about a missing quota.
"""

from __future__ import annotations

from api import keys
from api.conditions import MACHINE_READY, RESOURCE_READY, Status
from api.reasons import Cause, Reason
from controllers.nodes import offers
from controllers.workspace.findings import Finding
from controllers.workspace.machines import blocking_failure, progress
from controllers.workspace.model import Observation, Why
from controllers.workspace.nodes import Selection
from controllers.workspace.target import Target
from manager.types import Obj


def unplugged(node: Obj, target: Target) -> Why | None:
    """Why a chosen node cannot give GPUs yet; None when it can, or need not."""
    if not target.needs_gpu_nodes or offers(node, keys.GPU_RESOURCE):
        return None
    facts = {"node": node["metadata"]["name"], "resource": keys.GPU_RESOURCE}
    return Why.of(Cause(Reason.GPU_NOT_VISIBLE, facts))


def resource_findings(obs: Observation, target: Target, selection: Selection) -> tuple[Finding, ...]:
    """``MachineReady`` and ``ResourceReady``, with upstream's words where all is well."""
    failed = next((item.why for item in obs.failures if item.condition == MACHINE_READY), None)
    missing = target.count - len(selection.nodes)
    blocked = _blocked(obs, target, selection, missing)
    if failed is not None or blocked is not None:
        why = failed or blocked or _nothing(target, selection)
        return (Finding(MACHINE_READY, Status.FALSE, why), Finding(RESOURCE_READY, Status.FALSE, why))
    if missing > 0:
        wanted = len(selection.create) or missing
        pending = Why.of(Cause(Reason.CREATE_MACHINE_PENDING, {"count": wanted}))
        why = progress(selection.pending[0]) if selection.pending else pending
        return (Finding(MACHINE_READY, Status.UNKNOWN, pending), Finding(RESOURCE_READY, Status.FALSE, why))
    for node in selection.nodes:
        if why_not := unplugged(node, target):
            return (
                Finding(MACHINE_READY, Status.FALSE, why_not),
                Finding(RESOURCE_READY, Status.FALSE, why_not),
            )
    return (
        Finding(MACHINE_READY, Status.TRUE, Why.of(Cause(Reason.NODE_PLUGINS_READY))),
        Finding(RESOURCE_READY, Status.TRUE, Why.of(Cause(Reason.RESOURCE_SUCCESS))),
    )


def _blocked(obs: Observation, target: Target, selection: Selection, missing: int) -> Why | None:
    """What keeps the missing nodes away until somebody does something."""
    if missing <= 0:
        return None
    if why := blocking_failure(selection.pending):
        return why
    if selection.pending or (selection.create and obs.machine_api):
        return None
    if not target.instance_type:
        labels = ",".join(f"{key}={value}" for key, value in sorted(target.labels.items()))
        return Why.of(Cause(Reason.INSTANCE_TYPE_NEEDED, {"labels": labels}))
    if not obs.machine_api:
        return Why.of(Cause(Reason.MACHINE_API_MISSING))
    return None


def _nothing(target: Target, selection: Selection) -> Why:
    return Why.of(Cause(Reason.NODES_PENDING, {"ready": len(selection.nodes), "wanted": target.count}))
