"""Which nodes a Workspace uses, and how many are missing.

In: the nodes that match its labels and its Machines. Out: the chosen nodes in order of preference, the
Machines that have not become a node yet, and the names of the Machines to create. Pure. There are never more
Machines than wanted nodes: names are made from an index below the count, so that a decision taken twice, or
taken on a stale cache, asks for the same object.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from api import keys
from controllers.nodes import readiness
from controllers.workspace.model import Observation
from controllers.workspace.target import Target
from manager.types import Obj


@dataclass(frozen=True, slots=True)
class Selection:
    """The nodes of a Workspace.

    Attributes:
        nodes: chosen and ready, at most ``count``.
        pending: Machines of this Workspace that stand for none of the chosen nodes.
        create: names of the Machines to create.
    """

    nodes: tuple[Obj, ...]
    pending: tuple[Obj, ...]
    create: tuple[str, ...]


def machine_name(namespace: str, name: str, uid: str, index: int) -> str:
    """The name of the Workspace's Machine number ``index``: 11 characters, fit for an agent pool's name."""
    digest = hashlib.sha256(f"{namespace}/{name}/{uid}/{index}".encode()).hexdigest()
    return f"ws{digest[:9]}"


def select(obs: Observation, target: Target) -> Selection:
    """Choose nodes that exist first; ask for Machines only for what is missing then."""
    usable = [node for node in obs.nodes if qualified(node, obs, target)]
    chosen = tuple(sorted(usable, key=lambda node: _preference(node, target))[: target.count])
    names = {node["metadata"]["name"] for node in chosen}
    pending = tuple(machine for machine in obs.machines if _node_name(machine) not in names)
    missing = target.count - len(chosen) - len(pending)
    if missing <= 0 or not target.instance_type:
        return Selection(chosen, pending, ())
    taken = {machine["metadata"]["name"] for machine in obs.machines}
    candidates = (machine_name(obs.namespace, obs.name, obs.uid, index) for index in range(target.count))
    return Selection(chosen, pending, tuple(name for name in candidates if name not in taken)[:missing])


def qualified(node: Obj, obs: Observation, target: Target) -> bool:
    """Whether this node, whose labels match, can take the Workspace's pod."""
    meta = node["metadata"]
    labels = meta.get("labels") or {}
    if meta.get("deletionTimestamp") or not readiness(node)[0]:
        return False
    found = labels.get(keys.INSTANCE_TYPE_LABEL)
    if target.instance_type and found and found != target.instance_type:
        return False
    return _free_for(labels, obs) or meta["name"] in target.workspace.resource.preferred_nodes


def _free_for(labels: dict[str, str], obs: Observation) -> bool:
    # A node that was made for another Workspace has its GPUs taken, also when both select the same labels.
    owner = (labels.get(keys.WORKSPACE_NAMESPACE_LABEL), labels.get(keys.WORKSPACE_LABEL))
    return owner[1] is None or owner == (obs.namespace, obs.name)


def _preference(node: Obj, target: Target) -> tuple[bool, bool, bool, str]:
    name, labels = node["metadata"]["name"], node["metadata"].get("labels") or {}
    provisioned = keys.PROVISIONER_NAME_LABEL in labels or keys.NODEPOOL_LABEL in labels
    workspace = target.workspace
    return (
        name not in workspace.resource.preferred_nodes,
        name not in workspace.status.worker_nodes,
        not (provisioned or keys.MACHINE_TYPE_LABEL in labels),
        name,
    )


def _node_name(machine: Obj) -> str:
    return str((machine.get("status") or {}).get("nodeName") or "")
