"""Whether the nodes of a Workspace are there, and what is in the way.

In: the observation, the target and the selection of nodes. Out: the conditions ``MachineReady``
(``NodeClaimReady`` where NodeClaims are made) and ``ResourceReady`` as findings, and when to look again though
nothing changes. Pure, derived from live objects only. A refusal by the cloud is copied with its reason, so that
nobody has to look for the Machine to learn about a missing quota.
"""

from __future__ import annotations

from datetime import datetime

from api import keys
from api.conditions import RESOURCE_READY, Status, render_time
from api.reasons import Cause, Reason
from controllers.nodes import readiness
from controllers.workspace.candidates import provisioning, returns_by
from controllers.workspace.findings import Finding
from controllers.workspace.gpus import gpu_deadline, unplugged
from controllers.workspace.model import Observation, Why
from controllers.workspace.nodes import Selection
from controllers.workspace.target import Target
from controllers.workspace.unfinished import blocking_failure, progress

_SLACK = 1.0  # seconds; times on nodes have whole seconds, and looking too early would tell nothing new


def resource_findings(
    obs: Observation, target: Target, selection: Selection, now: datetime
) -> tuple[Finding, Finding]:
    """The two conditions about nodes, with upstream's words where all is well."""
    api = obs.node_api
    failed = next((item.why for item in obs.failures if item.condition == api.condition), None)
    missing = target.count - len(selection.nodes)
    why = failed or _blocked(obs, target, selection, missing)
    if why is not None:
        return Finding(api.condition, Status.FALSE, why), Finding(RESOURCE_READY, Status.FALSE, why)
    if missing > 0:
        made = len(selection.create) or len(selection.pending)
        pending = Why.of(Cause(api.pending, {"count": made or missing}))
        state = Finding(api.condition, Status.UNKNOWN, pending)
        return state, Finding(RESOURCE_READY, Status.FALSE, _under_way(obs, selection) or pending)
    for node in selection.nodes:
        if target.needs_gpu_nodes and (why := unplugged(node, obs, now)):
            return Finding(api.condition, Status.FALSE, why), Finding(RESOURCE_READY, Status.FALSE, why)
    return (
        Finding(api.condition, Status.TRUE, Why.of(Cause(Reason.NODE_PLUGINS_READY))),
        Finding(RESOURCE_READY, Status.TRUE, Why.of(Cause(Reason.RESOURCE_SUCCESS))),
    )


def next_limit(obs: Observation, target: Target, selection: Selection, now: datetime) -> float | None:
    """Seconds until a limit passes by which the decision changes without any object changing; None: never."""
    limits = [returns_by(node, obs, now) for node in selection.awaited]
    limits += [obs.pauses[name].until for name in selection.paused]
    if target.needs_gpu_nodes:
        limits += [gpu_deadline(node, obs) for node in selection.nodes]
    left = [(limit - now).total_seconds() for limit in limits if limit is not None and limit > now]
    return min(left) + _SLACK if left else None


def _under_way(obs: Observation, selection: Selection) -> Why | None:
    if selection.pending:
        return progress(selection.pending[0], obs.node_api)
    if selection.awaited and not selection.create:
        node = selection.awaited[0]
        facts = {"node": node["metadata"]["name"], "message": readiness(node)[1]}
        return Why.of(Cause(Reason.NODE_NOT_READY, facts))
    return None


def _blocked(obs: Observation, target: Target, selection: Selection, missing: int) -> Why | None:
    """What keeps the missing nodes away until somebody does something."""
    if missing <= 0:
        return None
    if why := blocking_failure(selection.pending, obs.node_api):
        return why
    if selection.pending or selection.awaited or (selection.create and obs.machine_api):
        return None
    if selection.paused and obs.machine_api:
        name = selection.paused[0]
        pause = obs.pauses[name]
        facts: dict[str, str | int] = {"kind": obs.node_api.kind, "machine": name, "times": pause.times}
        return Why.of(Cause(Reason.MACHINE_VANISHED, facts | {"time": render_time(pause.until)}))
    labels = ",".join(f"{key}={value}" for key, value in sorted(target.labels.items()))
    if provisioning(obs, target.workspace) == keys.PROVISION_NEVER:
        ready, matching = len(selection.nodes), len(obs.nodes)
        if not matching:
            return Why.of(Cause(Reason.NO_NODE_MATCHES, {"labels": labels}))
        facts = {
            "labels": labels,
            "ready": ready,
            "wanted": target.count,
            "matching": matching,
        }
        return Why.of(Cause(Reason.NODES_MISSING, facts))
    if not target.instance_type:
        return Why.of(Cause(Reason.INSTANCE_TYPE_NEEDED, {"labels": labels}))
    if not obs.machine_api:
        return Why.of(Cause(obs.node_api.missing))
    return None
