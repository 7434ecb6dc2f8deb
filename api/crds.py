"""The CustomResourceDefinitions, made from the models.

In: the pydantic classes of this room. Out: ``apiextensions.k8s.io/v1`` objects with structural schemas that
both Kubernetes 1.20 and current releases store: no references, every field typed. One manifest serves both: a
server that knows no CEL (before 1.25) drops the rules, and ``api.validation`` in the webhook refuses the same
things; only kubectl must be told not to check the manifest against such a server's own schema
(``--validate=false``). Descriptions are the fields' own, so that ``kubectl explain`` is the manual.
``hack/generate.py`` writes the result to ``config/crd``; the NodeClaim, which Karpenter brings itself, to
``config/nodeclaim``. The webhook's configuration goes the same way.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import yaml

from api import v1, v1alpha1, v1alpha5, v1beta1
from api.model import Obj, Resource
from api.schema import structural
from api.webhook import service_client, workspace_webhook

_HEADER = "# Generated from the models in api/ by hack/generate.py. Do not edit.\n"


def crds() -> list[Obj]:
    """The definitions that the operator brings, new objects on every call."""
    return [workspace_crd(), machine_crd()]


def render_files() -> Iterator[tuple[str, str]]:
    """``(path below config/, text)`` of every file that is generated."""
    for folder, crd in (*(("crd", crd) for crd in crds()), ("nodeclaim", nodeclaim_crd())):
        text = yaml.safe_dump(crd, sort_keys=False, width=110)
        yield f"{folder}/{crd['metadata']['name']}.yaml", _HEADER + text
    webhook = workspace_webhook(service_client())
    yield "webhook/configuration.yaml", _HEADER + yaml.safe_dump(webhook, sort_keys=False, width=110)


def workspace_crd() -> Obj:
    """The Workspace: two served versions of one shape, the first stored."""
    return _crd(
        v1alpha1.GROUP,
        names={
            "kind": v1alpha1.KIND,
            "listKind": "WorkspaceList",
            "plural": v1alpha1.PLURAL,
            "singular": "workspace",
            "shortNames": ["wk", "wks"],
            "categories": ["workspace"],
        },
        scope="Namespaced",
        versions=[
            _version(v1alpha1.VERSION, v1alpha1.Workspace, _workspace_columns(), storage=True),
            _version(v1beta1.VERSION, v1beta1.Workspace, _workspace_columns(), storage=False),
        ],
    )


def machine_crd() -> Obj:
    """The Machine, as Karpenter v0.29 defines it."""
    columns = [
        _column("Type", r".metadata.labels.node\.kubernetes\.io/instance-type"),
        _column("Zone", r".metadata.labels.topology\.kubernetes\.io/zone"),
        _column("Node", ".status.nodeName"),
        _condition("Ready", "Ready"),
        _age(),
        _column("Capacity", r".metadata.labels.karpenter\.sh/capacity-type", priority=1),
        _column("Provisioner", r".metadata.labels.karpenter\.sh/provisioner-name", priority=1),
        _column("Template", ".spec.machineTemplateRef.name", priority=1),
    ]
    return _crd(
        v1alpha5.GROUP,
        names={
            "kind": v1alpha5.KIND,
            "listKind": "MachineList",
            "plural": v1alpha5.PLURAL,
            "singular": "machine",
            "categories": ["karpenter"],
        },
        scope="Cluster",
        versions=[_version(v1alpha5.VERSION, v1alpha5.Machine, columns, storage=True)],
    )


def nodeclaim_crd() -> Obj:
    """The NodeClaim, as Karpenter v1 defines it, for clusters that have no Karpenter."""
    columns = [
        _column("Type", r".metadata.labels.node\.kubernetes\.io/instance-type"),
        _column("Capacity", r".metadata.labels.karpenter\.sh/capacity-type"),
        _column("Zone", r".metadata.labels.topology\.kubernetes\.io/zone"),
        _column("Node", ".status.nodeName"),
        _condition("Ready", "Ready"),
        _age(),
        _column("ImageID", ".status.imageID", priority=1),
        _column("ID", ".status.providerID", priority=1),
        _column("NodePool", r".metadata.labels.karpenter\.sh/nodepool", priority=1),
        _column("NodeClass", ".spec.nodeClassRef.name", priority=1),
        _condition("Drifted", "Drifted", priority=1),
    ]
    return _crd(
        v1.GROUP,
        names={
            "kind": v1.KIND,
            "listKind": "NodeClaimList",
            "plural": v1.PLURAL,
            "singular": "nodeclaim",
            "categories": ["karpenter"],
        },
        scope="Cluster",
        versions=[_version(v1.VERSION, v1.NodeClaim, columns, storage=True)],
    )


def _workspace_columns() -> list[Obj]:
    reason = '.status.conditions[?(@.type=="WorkspaceReady")].reason'
    return [
        _column("Instance", ".resource.instanceType", "The instance type of the nodes."),
        _condition("ResourceReady", "ResourceReady"),
        _condition("InferenceReady", "InferenceReady"),
        _condition("WorkspaceReady", "WorkspaceReady"),
        _age(),
        _condition("JobStarted", "JobStarted", priority=1),
        _condition("WorkspaceSucceeded", "WorkspaceSucceeded", priority=1),
        {
            "name": "TargetNodeCount",
            "type": "integer",
            "jsonPath": ".status.targetNodeCount",
            "description": "How many nodes the plan asks for.",
            "priority": 1,
        },
        _column("State", ".status.state", priority=1),
        _column("Nodes", ".status.workerNodes", "The nodes in use.", priority=1),
        _column("Reason", reason, "Why the workspace is ready or not.", priority=1),
    ]


def _column(name: str, path: str, description: str = "", *, priority: int = 0) -> Obj:
    column: Obj = {"name": name, "type": "string", "jsonPath": path}
    if description:
        column["description"] = description
    if priority:
        column["priority"] = priority
    return column


def _condition(name: str, type_: str, *, priority: int = 0) -> Obj:
    return _column(name, f'.status.conditions[?(@.type=="{type_}")].status', priority=priority)


def _age() -> Obj:
    return {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}


def _version(name: str, model: type[Resource], columns: list[Obj], *, storage: bool) -> Obj:
    return {
        "name": name,
        "served": True,
        "storage": storage,
        "subresources": {"status": {}},
        "additionalPrinterColumns": columns,
        "schema": {"openAPIV3Schema": structural(model)},
    }


def _crd(group: str, *, names: dict[str, Any], scope: str, versions: list[Obj]) -> Obj:
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{names['plural']}.{group}"},
        "spec": {
            "group": group,
            "names": names,
            "scope": scope,
            "conversion": {"strategy": "None"},
            "versions": versions,
        },
    }
