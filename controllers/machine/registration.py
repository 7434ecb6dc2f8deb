"""Phase two: the instance's node has joined the cluster and is known to be this Machine's.

In: the nodes that are the Machine's instance. Out: the ``MachineRegistered`` mark, the node's facts for
the status, and one patch of the node that makes it ours: owner, labels, and the taints that it should have
had from the start. The patch carries the resourceVersion that was read, because lists are replaced whole.
"""

from __future__ import annotations

from typing import Any

from api import keys
from api.conditions import MACHINE_INITIALIZED, MACHINE_REGISTERED, is_true
from controllers.machine.model import Mark, Observation, PatchNode, Phase
from manager.meta import owner_reference
from manager.types import Obj


def registration(obs: Observation, *, launched: bool) -> Phase:
    """Find the node and make it this Machine's."""
    before = is_true(obs.conditions, MACHINE_REGISTERED)
    if len(obs.nodes) == 1:
        node = obs.nodes[0]
        initialized = is_true(obs.conditions, MACHINE_INITIALIZED)
        patch = node_patch(obs.machine, node, with_taints=not before, initialized=initialized)
        return Phase(
            marks=(Mark(MACHINE_REGISTERED, "True"),),
            actions=(PatchNode(node["metadata"]["name"], patch),) if patch else (),
            status=_facts(node),
        )
    if before:
        return Phase()  # it did register; that its node is missing now is told by Ready
    if not launched:
        return Phase(marks=(Mark(MACHINE_REGISTERED, "False", "MachineNotLaunched", "there is no instance yet"),))
    if obs.nodes:
        names = ", ".join(sorted(node["metadata"]["name"] for node in obs.nodes))
        message = f"several nodes are this Machine's instance: {names}"
        return Phase(marks=(Mark(MACHINE_REGISTERED, "False", "MultipleNodesFound", message),))
    message = "the instance runs, and its node has not joined the cluster yet"
    return Phase(marks=(Mark(MACHINE_REGISTERED, "False", "NodeNotFound", message),))


def node_patch(machine: Obj, node: Obj, *, with_taints: bool, initialized: bool) -> Obj:
    """The merge patch that makes ``node`` the Machine's; empty when it is already."""
    meta, spec = node["metadata"], node.get("spec") or {}
    labels = dict(machine["metadata"].get("labels") or {}) | {keys.REGISTERED_LABEL: "true"}
    if initialized:
        labels[keys.INITIALIZED_LABEL] = "true"
    current = meta.get("labels") or {}
    patch_meta: dict[str, Any] = {}
    if missing := {key: value for key, value in labels.items() if current.get(key) != value}:
        patch_meta["labels"] = missing
    owners = list(meta.get("ownerReferences") or [])
    if machine["metadata"]["uid"] not in {owner.get("uid") for owner in owners}:
        patch_meta["ownerReferences"] = [*owners, owner_reference(machine, controller=False)]
    patch: Obj = {}
    taints = list(spec.get("taints") or [])
    absent = _absent_taints(machine, taints) if with_taints else []
    if absent:
        patch["spec"] = {"taints": [*taints, *absent]}
    if not patch_meta and not patch:
        return {}
    if "resourceVersion" in meta:
        patch_meta["resourceVersion"] = meta["resourceVersion"]
    return patch | {"metadata": patch_meta}


def _absent_taints(machine: Obj, present: list[Obj]) -> list[Obj]:
    spec = machine.get("spec") or {}
    have = {(taint.get("key"), taint.get("effect")) for taint in present}
    wanted = [*(spec.get("taints") or []), *(spec.get("startupTaints") or [])]
    return [dict(taint) for taint in wanted if (taint.get("key"), taint.get("effect")) not in have]


def _facts(node: Obj) -> dict[str, Any]:
    status = node.get("status") or {}
    facts: dict[str, Any] = {"nodeName": node["metadata"]["name"]}
    if provider_id := (node.get("spec") or {}).get("providerID"):
        facts["providerID"] = provider_id
    for field in ("capacity", "allocatable"):
        if status.get(field):
            facts[field] = dict(status[field])
    return facts
