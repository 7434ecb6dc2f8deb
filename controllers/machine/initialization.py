"""Phase three: the node can take the work that it was made for.

In: the registered node. Out: the ``MachineInitialized`` mark, and ``Ready`` False while an initialized node is
missing or not ready. Initialized once means initialized: a node that falters later is a matter of ``Ready``,
because its taints and resources may come and go without it being a new node.
"""

from __future__ import annotations

from api import keys
from api.conditions import MACHINE_INITIALIZED, READY, is_true
from controllers.machine.model import Mark, Observation, Phase
from controllers.nodes import offers, positive, readiness
from manager.types import Obj

# Taints that a node carries only until the cluster's own controllers have looked at it.
_EPHEMERAL = {
    ("node.kubernetes.io/not-ready", "NoSchedule"),
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoSchedule"),
    ("node.cloudprovider.kubernetes.io/uninitialized", "NoSchedule"),
}


def initialization(obs: Observation, *, registered: bool) -> Phase:
    """Wait until the node is ready, free of start-up taints and shows what was asked for."""
    node = obs.nodes[0] if len(obs.nodes) == 1 else None
    if is_true(obs.conditions, MACHINE_INITIALIZED):
        return _health(node)
    if not registered or node is None:
        return Phase(marks=(Mark(MACHINE_INITIALIZED, "False", "NodeNotFound", "there is no node yet"),))
    reason, message = _obstacle(obs.machine, node)
    if reason:
        return Phase(marks=(Mark(MACHINE_INITIALIZED, "False", reason, message),))
    return Phase(marks=(Mark(MACHINE_INITIALIZED, "True"),))


def _health(node: Obj | None) -> Phase:
    if node is None:
        return Phase(
            marks=(
                Mark(
                    READY,
                    "False",
                    "NodeNotFound",
                    "the node of this Machine is gone; delete the Machine to have a new one made",
                ),
            )
        )
    ready, said = readiness(node)
    return Phase() if ready else Phase(marks=(Mark(READY, "False", "NodeNotReady", said),))


def _obstacle(machine: Obj, node: Obj) -> tuple[str, str]:
    ready, said = readiness(node)
    if not ready:
        return "NodeNotReady", said
    spec = machine.get("spec") or {}
    taints = {(taint.get("key"), taint.get("effect")) for taint in (node.get("spec") or {}).get("taints") or []}
    for taint in spec.get("startupTaints") or []:
        if (taint.get("key"), taint.get("effect")) in taints:
            return "StartupTaintsExist", f"start-up taint {taint.get('key')} is still on the node"
    if waiting := sorted(str(key) for key, effect in taints & _EPHEMERAL):
        return "KnownEphemeralTaintsExist", f"taint {waiting[0]} is still on the node"
    requests = (spec.get("resources") or {}).get("requests") or {}
    for resource, wanted in sorted(requests.items()):
        # Storage is the size of the system disk, which no node reports under that name.
        if resource != keys.STORAGE_RESOURCE and positive(wanted) and not offers(node, resource):
            return "ResourceNotRegistered", f"the node does not show {resource} yet"
    return "", ""
