"""What an unfinished Machine or NodeClaim says about itself.

In: its conditions. Out: the reason to show in the Workspace. Pure. A refusal by the cloud is copied with the
cloud's reason and words. Nothing here knows which conditions make such an object ready: they are read in order.
"""

from __future__ import annotations

from collections.abc import Iterable

from api.conditions import READY, Condition, Status, conditions_of, find, is_true
from api.reasons import Cause, Reason
from controllers.workspace.made import instance_type, is_leaving, node_name
from controllers.workspace.model import Why
from controllers.workspace.nodeapi import MACHINE_API, NodeApi
from manager.types import Obj

_NO_NEWS = ("", "AwaitingReconciliation")  # what Karpenter writes before it has looked
_LAUNCHING = (*_NO_NEWS, "Launching", "NotLaunched", "InstanceCreating", "NodeCreating")


def blocking_failure(machines: Iterable[Obj], api: NodeApi) -> Why | None:
    """The cloud's refusal of the first that was refused, in the cloud's words."""
    for machine in machines:
        launched = find(conditions_of(machine), api.launched)
        if launched is not None and _refuses(launched, api) and not is_leaving(machine):
            facts = {"machine": machine["metadata"]["name"], "instance_type": instance_type(machine)}
            if api is MACHINE_API:
                cause = Cause(Reason.MACHINE_LAUNCH_FAILED, facts | {"error": launched.message})
            else:
                cause = Cause(Reason.NODECLAIM_NOT_READY, facts | {"state": launched.message})
            return Why(launched.reason or str(cause.reason), cause.render())
    return None


def _refuses(launched: Condition, api: NodeApi) -> bool:
    # Karpenter tries on after a refusal and says so with Unknown and a reason.
    if api is not MACHINE_API and launched.status == Status.UNKNOWN:
        return launched.reason not in _LAUNCHING
    return launched.status == Status.FALSE


def progress(machine: Obj, api: NodeApi) -> Why:
    """How far one has come that is not refused, or why its node cannot be used."""
    name = machine["metadata"]["name"]
    if is_leaving(machine):
        return Why.of(Cause(Reason.MACHINE_DELETING, {"machine": name}))
    conditions = conditions_of(machine)
    if api is MACHINE_API:
        launched = find(conditions, api.launched)
        if launched is not None and launched.status == Status.UNKNOWN and launched.reason:
            creating = launched.reason == "InstanceCreating"  # said in the Workspace's own word
            reason = str(Reason.MACHINE_CREATING) if creating else launched.reason
            return Why(reason, f"{api.kind} {name}: {launched.message}")
        if not is_true(conditions, api.launched):
            facts = {"machine": name, "instance_type": instance_type(machine)}
            return Why.of(Cause(Reason.MACHINE_CREATING, facts))
        if not is_true(conditions, api.registered):
            return Why.of(Cause(Reason.MACHINE_NOT_REGISTERED, {"machine": name}))
    for kind in (api.launched, api.registered, api.initialized, READY):
        found = find(conditions, kind)
        if found is not None and found.status != Status.TRUE and found.reason not in _NO_NEWS:
            return Why(found.reason, f"{api.kind} {name}: {found.message or found.reason}")
        if api is not MACHINE_API and (found is None or found.status != Status.TRUE):
            facts = {"machine": name, "instance_type": instance_type(machine), "state": f"{kind} is not told yet"}
            return Why.of(Cause(Reason.NODECLAIM_NOT_READY, facts))
    return Why.of(Cause(Reason.NODE_MISMATCH, {"node": node_name(machine), "machine": name}))
