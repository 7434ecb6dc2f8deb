"""Phase two: the instance's node has joined the cluster and is known to be this Machine's.

In: the nodes that are the Machine's instance. Out: the mark "registered", the node's facts for the status, and
one patch of the node that makes it ours: owner, finalizer, labels, annotations, and the taints that it should have
had from the start. The patch carries the resourceVersion that was read, because lists are replaced whole.
"""

from __future__ import annotations

from typing import Any

from api import keys
from api.conditions import is_true
from controllers.machine.model import Mark, Observation, PatchNode, Phase
from controllers.machine.request import wants_gpu
from manager.meta import owner_reference
from manager.types import Obj

# What says something about the claim, or is too large, and nothing about the node.
_NOT_FOR_NODES = ("kubectl.kubernetes.io/", keys.CLOUD_OPERATION, keys.NODECLAIM_TERMINATION_TIMESTAMP)


def registration(obs: Observation, *, launched: bool) -> Phase:
    """Find the node and make it this Machine's."""
    kind = obs.kind
    before = is_true(obs.conditions, kind.registered)
    if len(obs.nodes) == 1:
        node = obs.nodes[0]
        initialized = is_true(obs.conditions, kind.initialized)
        patch = node_patch(obs.machine, node, with_taints=not before, initialized=initialized)
        return Phase(
            marks=(Mark(kind.registered, "True"),),
            actions=(PatchNode(node["metadata"]["name"], patch),) if patch else (),
            # What a node has shrinks and grows later; what it came with is kept, to compare.
            status=_facts(node, amounts=not initialized),
        )
    if before:
        return Phase()  # it did register; that its node is missing now is told by Ready
    if not launched:
        return Phase(marks=(Mark(kind.registered, kind.pending, kind.not_launched, "there is no instance yet"),))
    if obs.nodes:
        names = ", ".join(sorted(node["metadata"]["name"] for node in obs.nodes))
        message = f"several nodes are this Machine's instance: {names}"
        return Phase(marks=(Mark(kind.registered, kind.pending, "MultipleNodesFound", message),))
    message = "the instance runs, and its node has not joined the cluster yet"
    return Phase(marks=(Mark(kind.registered, kind.pending, "NodeNotFound", message),))


def node_patch(machine: Obj, node: Obj, *, with_taints: bool, initialized: bool) -> Obj:
    """The merge patch that makes ``node`` the Machine's; empty when it is already."""
    meta = node["metadata"]
    patch_meta: dict[str, Any] = {}
    if missing := _differing(_labels(machine, initialized=initialized), meta.get("labels")):
        patch_meta["labels"] = missing
    if missing := _differing(_annotations(machine), meta.get("annotations")):
        patch_meta["annotations"] = missing
    owners = list(meta.get("ownerReferences") or [])
    kept = [owner for owner in owners if owner.get("kind") != "Provisioner"]
    if machine["metadata"]["uid"] not in {owner.get("uid") for owner in kept}:
        kept.append(owner_reference(machine, controller=False) | {"blockOwnerDeletion": True})
    if kept != owners:
        patch_meta["ownerReferences"] = kept
    finalizers = list(meta.get("finalizers") or [])
    if keys.TERMINATION_FINALIZER not in finalizers and not meta.get("deletionTimestamp"):
        patch_meta["finalizers"] = [*finalizers, keys.TERMINATION_FINALIZER]
    patch: Obj = {}
    present = list((node.get("spec") or {}).get("taints") or [])
    if with_taints and (wanted := _taints(machine, node, present)) != present:
        patch["spec"] = {"taints": wanted}
    if not patch_meta and not patch:
        return {}
    if "resourceVersion" in meta:
        patch_meta["resourceVersion"] = meta["resourceVersion"]
    return patch | {"metadata": patch_meta}


def _labels(machine: Obj, *, initialized: bool) -> dict[str, str]:
    labels = dict(machine["metadata"].get("labels") or {}) | {keys.REGISTERED_LABEL: "true"}
    if initialized:
        labels[keys.INITIALIZED_LABEL] = "true"
    if wants_gpu(machine):
        # The device plugin's DaemonSet goes where this label is; without it the GPU would never appear.
        labels[keys.ACCELERATOR_LABEL] = keys.ACCELERATOR_NVIDIA
    return labels


def _annotations(machine: Obj) -> dict[str, str]:
    known = machine["metadata"].get("annotations") or {}
    return {key: value for key, value in known.items() if not key.startswith(_NOT_FOR_NODES)}


def _differing(wanted: dict[str, str], current: dict[str, str] | None) -> dict[str, str]:
    return {key: value for key, value in wanted.items() if (current or {}).get(key) != value}


def _taints(machine: Obj, node: Obj, present: list[Obj]) -> list[Obj]:
    kept = [taint for taint in present if taint.get("key") != keys.UNREGISTERED_TAINT]
    if (node["metadata"].get("labels") or {}).get(keys.DO_NOT_SYNC_TAINTS) == "true":
        return kept
    spec = machine.get("spec") or {}
    have = {(taint.get("key"), taint.get("effect")) for taint in kept}
    wanted = [*(spec.get("taints") or []), *(spec.get("startupTaints") or [])]
    return kept + [dict(taint) for taint in wanted if (taint.get("key"), taint.get("effect")) not in have]


def _facts(node: Obj, *, amounts: bool) -> dict[str, Any]:
    status = node.get("status") or {}
    facts: dict[str, Any] = {"nodeName": node["metadata"]["name"]}
    if provider_id := (node.get("spec") or {}).get("providerID"):
        facts["providerID"] = provider_id
    for field in ("capacity", "allocatable"):
        if amounts and status.get(field):
            facts[field] = dict(status[field])
    return facts
