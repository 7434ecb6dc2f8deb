"""The Machine that a Workspace asks for, and what an unfinished Machine says about itself.

In: a target or a Machine's conditions. Out: a manifest, or the reason to show in the Workspace. Pure. The
body is the contract with any provisioner of the v1alpha5 API; changing it changes what clouds are asked for.
"""

from __future__ import annotations

from api import keys
from api.conditions import (
    MACHINE_INITIALIZED,
    MACHINE_LAUNCHED,
    MACHINE_REGISTERED,
    READY,
    Status,
    conditions_of,
    find,
    is_true,
)
from api.reasons import Cause, Reason
from controllers.resources import MACHINES
from controllers.workspace.model import Observation, Why
from controllers.workspace.target import Target, owner_labels
from manager.types import Obj


def machine_body(obs: Observation, target: Target, name: str) -> Obj:
    """One Machine: the node that is wanted, and for whom."""
    return {
        "apiVersion": MACHINES.api_version,
        "kind": MACHINES.kind,
        "metadata": {
            "name": name,
            "labels": target.labels
            | {keys.PROVISIONER_NAME_LABEL: keys.PROVISIONER_NAME}
            | owner_labels(obs.namespace, obs.name),
        },
        "spec": {
            "machineTemplateRef": {"name": name},
            "requirements": [
                _is(keys.INSTANCE_TYPE_LABEL, target.instance_type or ""),
                _is(keys.PROVISIONER_NAME_LABEL, keys.PROVISIONER_NAME),
                _is(keys.MACHINE_TYPE_LABEL, keys.MACHINE_TYPE_GPU),
                _is(keys.ARCH_LABEL, "amd64"),
                _is(keys.OS_LABEL, "linux"),
            ],
            "taints": [
                {
                    "key": keys.GPU_TAINT_KEY,
                    "value": keys.GPU_TAINT_VALUE,
                    "effect": keys.GPU_TAINT_EFFECT,
                }
            ],
            "resources": {"requests": {keys.STORAGE_RESOURCE: target.preset.disk if target.preset else "0"}},
        },
    }


def _is(key: str, value: str) -> Obj:
    return {"key": key, "operator": "In", "values": [value]}


def blocking_failure(machines: tuple[Obj, ...]) -> Why | None:
    """The cloud's refusal of the first Machine that was refused, in the cloud's words."""
    for machine in machines:
        launched = find(conditions_of(machine), MACHINE_LAUNCHED)
        if launched is not None and launched.status == Status.FALSE:
            facts = {"machine": machine["metadata"]["name"], "instance_type": instance_type(machine)}
            cause = Cause(Reason.MACHINE_LAUNCH_FAILED, facts | {"error": launched.message})
            return Why(launched.reason or str(Reason.MACHINE_LAUNCH_FAILED), cause.render())
    return None


def progress(machine: Obj) -> Why:
    """How far a Machine has come that is not refused, or why its node cannot be used."""
    name = machine["metadata"]["name"]
    if machine["metadata"].get("deletionTimestamp"):
        return Why.of(Cause(Reason.MACHINE_DELETING, {"machine": name}))
    conditions = conditions_of(machine)
    launched = find(conditions, MACHINE_LAUNCHED)
    if launched is not None and launched.status == Status.UNKNOWN and launched.reason:
        creating = launched.reason == "InstanceCreating"  # said in the Workspace's own word
        reason = str(Reason.MACHINE_CREATING) if creating else launched.reason
        return Why(reason, f"Machine {name}: {launched.message}")
    if not is_true(conditions, MACHINE_LAUNCHED):
        facts = {"machine": name, "instance_type": instance_type(machine)}
        return Why.of(Cause(Reason.MACHINE_CREATING, facts))
    if not is_true(conditions, MACHINE_REGISTERED):
        return Why.of(Cause(Reason.MACHINE_NOT_REGISTERED, {"machine": name}))
    for kind in (MACHINE_INITIALIZED, READY):
        found = find(conditions, kind)
        if found is not None and found.status != Status.TRUE and found.reason:
            return Why(found.reason, f"Machine {name}: {found.message or found.reason}")
    node = str((machine.get("status") or {}).get("nodeName") or "")
    return Why.of(Cause(Reason.NODE_MISMATCH, {"node": node, "machine": name}))


def instance_type(machine: Obj) -> str:
    """The instance type that a Machine asks for."""
    for requirement in (machine.get("spec") or {}).get("requirements") or []:
        if requirement.get("key") == keys.INSTANCE_TYPE_LABEL and requirement.get("values"):
            return str(requirement["values"][0])
    return "unknown"
