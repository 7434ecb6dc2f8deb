"""Whether a node that several Workspaces select is free for this one.

In: whom a node was made for, which Workspaces say that they use it, and the GPUs of the pods on it. Out: yes or
no. Pure. A node is not shared: it belongs to the Workspace that it was made for, else to the one that was there
first. It is taken beside others only when its GPUs suffice for all of them, which cannot be told before the
others' pods are on it. The rule needs no lock: when two take a node at the same moment, both see it, and the
younger one leaves.
"""

from __future__ import annotations

from api import keys
from controllers.workspace.gpus import allocatable
from controllers.workspace.model import Claim, NodeUse, Observation
from manager.types import Obj


def key_of(namespace: str, name: str) -> str:
    """How a Workspace is named here."""
    return f"{namespace}/{name}"


def claim_of(workspace: Obj) -> Claim:
    """What a Workspace's claims on nodes bear."""
    meta = workspace["metadata"]
    return Claim(key_of(meta["namespace"], meta["name"]), str(meta.get("creationTimestamp") or ""))


def is_free(node: Obj, obs: Observation, wanted: int, *, preferred: bool) -> bool:
    """Whether the Workspace may take this node for pods that want so many GPUs.

    Args:
        preferred: the user named the node, which outweighs whom it was made for, and nobody's pods.
    """
    me = key_of(obs.namespace, obs.name)
    owner = owner_of(node)
    if owner == me:
        return True
    use = obs.use.get(node["metadata"]["name"], NodeUse())
    rivals = {claim.workspace for claim in use.claims if claim.workspace != me and _precedes(claim, me, obs, use)}
    if owner is not None and not preferred:
        rivals.add(owner)
    if not rivals:
        return True
    if any(rival not in use.gpus for rival in rivals):
        return False  # what it will ask for is not known yet
    taken = sum(gpus for workspace, gpus in use.gpus.items() if workspace != me)
    return allocatable(node) - taken >= max(1, wanted)


def owner_of(node: Obj) -> str | None:
    """The Workspace that the node was made for."""
    labels = node["metadata"].get("labels") or {}
    name = labels.get(keys.WORKSPACE_LABEL)
    return key_of(labels.get(keys.WORKSPACE_NAMESPACE_LABEL, ""), name) if name else None


def _precedes(claim: Claim, me: str, obs: Observation, use: NodeUse) -> bool:
    """Whether that Workspace was on the node before this one."""
    if (claim.workspace in use.gpus) != (me in use.gpus):
        return claim.workspace in use.gpus
    if me not in {item.workspace for item in use.claims}:
        return True
    mine = claim_of(obs.obj)
    return (claim.created, claim.workspace) < (mine.created, mine.workspace)
