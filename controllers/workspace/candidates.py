"""The nodes that a Workspace could use, and which of them it prefers.

In: the nodes that match its labels. Out: for each whether it can be used now, or is expected back, and its
place in the order. Pure. The rule is upstream's (v0.3): Ready, not leaving, of the wanted type or of none; the
node that the user prefers first, then those in use, then those made by a provisioner, then by name. Ours beside
it: a node is not shared (``sharing``), and one that has just become unready is waited for, because a reboot is
shorter than the making of a node.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from api import keys
from api.v1alpha1 import Workspace
from controllers.nodes import readiness
from controllers.workspace.gpus import ready_since
from controllers.workspace.made import is_leaving, node_name
from controllers.workspace.model import Observation
from controllers.workspace.sharing import is_free, key_of, owner_of
from manager.types import Obj


def provisioning(obs: Observation, workspace: Workspace) -> str:
    """Whether nodes are made for this Workspace: one of the annotation's values."""
    if not obs.switches.node_auto_provisioning:
        return keys.PROVISION_NEVER
    return workspace.metadata.annotations.get(keys.NODE_PROVISIONING, keys.PROVISION_AUTO)


def fits(node: Obj, obs: Observation, workspace: Workspace, instance_type: str | None, gpus: int) -> bool:
    """Whether it could be used once it is Ready. ``gpus`` is what a pod asks for."""
    meta = node["metadata"]
    if meta.get("deletionTimestamp") or meta["name"] in {
        node_name(item) for item in filter(is_leaving, obs.machines)
    }:
        return False  # it goes, or goes with its Machine in a moment
    found = (meta.get("labels") or {}).get(keys.INSTANCE_TYPE_LABEL)
    if instance_type and found and found != instance_type:
        return False
    if provisioning(obs, workspace) == keys.PROVISION_ALWAYS and owner_of(node) != key_of(obs.namespace, obs.name):
        return False
    return is_free(node, obs, gpus, preferred=meta["name"] in workspace.resource.preferred_nodes)


def is_ready(node: Obj) -> bool:
    """Whether its kubelet says so."""
    return readiness(node)[0]


def returns_by(node: Obj, obs: Observation, now: datetime) -> datetime | None:
    """Until when an unready node is waited for; None for one that is not, or no longer.

    A node that was made for the Workspace is none of these: its Machine stands for it.
    """
    since = ready_since(node)
    if is_ready(node) or since is None or owner_of(node) == key_of(obs.namespace, obs.name):
        return None
    until = since + timedelta(seconds=obs.rules.node_grace)
    return until if now < until else None


def preference(node: Obj, workspace: Workspace) -> tuple[bool, bool, bool, str]:
    """The smallest comes first."""
    name, labels = node["metadata"]["name"], node["metadata"].get("labels") or {}
    made = (keys.MACHINE_TYPE_LABEL, keys.NODEPOOL_LABEL, keys.PROVISIONER_NAME_LABEL)
    return (
        name not in workspace.resource.preferred_nodes,
        name not in workspace.status.worker_nodes,
        not any(label in labels for label in made),
        name,
    )
