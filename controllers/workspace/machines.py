"""The Machine or NodeClaim that a Workspace asks for.

In: a target. Out: a manifest. Pure. The bodies are the contract with any provisioner of the two APIs; changing one
changes what clouds are asked for.
"""

from __future__ import annotations

from api import keys
from controllers.resources import MACHINES, NODECLAIMS
from controllers.workspace.model import Observation
from controllers.workspace.target import Target, owner_labels
from manager.types import Obj

_NO_DISK = "0"  # what a template needs, only its author knows
_ANY_DISK = "1024Gi"  # upstream's figure for NodeClaims in the same case


def machine_body(obs: Observation, target: Target, name: str) -> Obj:
    """One wanted node, of the kind that the observation says is created."""
    return _node_claim(obs, target, name) if obs.node_api.resource == NODECLAIMS else _machine(obs, target, name)


def _machine(obs: Observation, target: Target, name: str) -> Obj:
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
                *_capacity(target),
            ],
            "taints": [_TAINT],
            "resources": _disk(target, _NO_DISK),
        },
    }


def _node_claim(obs: Observation, target: Target, name: str) -> Obj:
    return {
        "apiVersion": NODECLAIMS.api_version,
        "kind": NODECLAIMS.kind,
        "metadata": {
            "name": name,
            "labels": target.labels
            | {keys.NODEPOOL_LABEL: keys.NODEPOOL_NAME}
            | owner_labels(obs.namespace, obs.name),
            "annotations": {keys.DO_NOT_DISRUPT: "true"},
        },
        "spec": {
            "nodeClassRef": {
                "group": keys.KAITO_GROUP,
                "kind": keys.NODE_CLASS_KIND,
                "name": keys.NODE_CLASS,
            },
            "requirements": [
                _is(keys.NODEPOOL_LABEL, keys.NODEPOOL_NAME),
                _is(keys.INSTANCE_TYPE_LABEL, target.instance_type or ""),
                _is(keys.OS_LABEL, "linux"),
                *_cloud(obs, target),
                *_capacity(target),
            ],
            "taints": [_TAINT],
            "resources": _disk(target, _ANY_DISK),
        },
    }


_TAINT: Obj = {"key": keys.GPU_TAINT_KEY, "value": keys.GPU_TAINT_VALUE, "effect": keys.GPU_TAINT_EFFECT}


def _is(key: str, value: str) -> Obj:
    return {"key": key, "operator": "In", "values": [value]}


def _capacity(target: Target) -> list[Obj]:
    """Nothing where nobody asked: then the provisioner's default holds."""
    kind = target.workspace.metadata.annotations.get(keys.CAPACITY_TYPE)
    return [_is(keys.CAPACITY_TYPE_LABEL, kind)] if kind else []


def _cloud(obs: Observation, target: Target) -> list[Obj]:
    """What the cloud's own provisioner wants to read beside the instance type."""
    match obs.switches.cloud:
        case "azure":
            return [_is(keys.AZURE_SKU_NAME_LABEL, target.instance_type or "")]
        case "aws":
            return [{"key": keys.AWS_GPU_COUNT_LABEL, "operator": "Gt", "values": ["0"]}]
    return []


def _disk(target: Target, unknown: str) -> Obj:
    return {"requests": {keys.STORAGE_RESOURCE: target.disk or unknown}}
