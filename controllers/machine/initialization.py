"""Phase three: the node can take the work that it was made for.

In: the registered node. Out: the mark "initialized", and ``Ready`` False while an initialized node is missing or
not ready. Initialized once means initialized: a node that falters later is a matter of ``Ready``, because its
taints and resources may come and go without it being a new node. A node that never gets there is given up after a
time of its own, a few times in a row; then the last one stays and says so.
"""

from __future__ import annotations

from datetime import datetime

from api import keys
from api.conditions import READY, find, is_true
from controllers.machine.model import DeleteMachine, Mark, Observation, Phase
from controllers.machine.progress import spoken
from controllers.machine.request import wants_gpu
from controllers.nodes import offers, positive, readiness
from manager.types import Obj

# Taints that a node carries only until the cluster's own controllers have looked at it.
_EPHEMERAL = {
    ("node.kubernetes.io/not-ready", "NoSchedule"),
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoSchedule"),
    ("node.cloudprovider.kubernetes.io/uninitialized", "NoSchedule"),
    (keys.UNREGISTERED_TAINT, "NoExecute"),
}
_DEVICE_PLUGIN = (
    "the NVIDIA device plugin has to run there; `kubectl get daemonset -A | grep nvidia` shows whether it is "
    "installed"
)


def initialization(obs: Observation, now: datetime, *, registered: bool) -> Phase:
    """Wait until the node is ready, free of start-up taints and shows what was asked for."""
    kind = obs.kind
    node = obs.nodes[0] if len(obs.nodes) == 1 else None
    if is_true(obs.conditions, kind.initialized):
        return _health(node)
    if not registered or node is None:
        return Phase(marks=(Mark(kind.initialized, kind.pending, "NodeNotFound", "there is no node yet"),))
    reason, message = _obstacle(obs.machine, node)
    if not reason:
        return Phase(marks=(Mark(kind.initialized, "True"),))
    since = find(obs.conditions, kind.registered)
    began = since.last_transition_time if since is not None and since.status == "True" else None
    left = obs.limits.initialization - ((now - began).total_seconds() if began else 0.0)
    if left > 0:
        return Phase(marks=(Mark(kind.initialized, kind.pending, reason, message),), requeue_after=left)
    return _given_up(obs, message)


def _given_up(obs: Observation, message: str) -> Phase:
    told = f"{spoken(obs.limits.initialization)} after joining, the node is still not usable: {message}"
    if obs.replaced >= obs.limits.replacements:
        told += f". It was the same with {obs.replaced} nodes before, so this one stays; delete it to try again"
        return Phase(marks=(Mark(obs.kind.initialized, "False", "NotInitialized", told),))
    told += ". It is replaced"
    uid = str(obs.machine["metadata"]["uid"])
    return Phase(
        marks=(Mark(obs.kind.initialized, "False", "NotInitialized", told),),
        actions=(DeleteMachine(uid, "NotInitialized", told),),
    )


def _health(node: Obj | None) -> Phase:
    if node is None:
        told = "the node of this Machine is gone; unless it comes back, the Machine is replaced"
        return Phase(marks=(Mark(READY, "False", "NodeNotFound", told),))
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
    requests = dict((spec.get("resources") or {}).get("requests") or {})
    if wants_gpu(machine):
        requests.setdefault(keys.GPU_RESOURCE, 1)
    for resource, wanted in sorted(requests.items()):
        # Storage is the size of the system disk, which no node reports under that name.
        if resource != keys.STORAGE_RESOURCE and positive(wanted) and not offers(node, resource):
            why = f"; {_DEVICE_PLUGIN}" if resource == keys.GPU_RESOURCE else ""
            return "ResourceNotRegistered", f"the node does not show {resource} yet{why}"
    return "", ""
