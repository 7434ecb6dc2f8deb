"""From objects to one Table.

In: a resource type and objects (of that version), the time, and what each row shall carry of its object. Out:
the Table. ``include`` is the request parameter of the same name: ``Metadata`` (the default of real servers),
``Object`` or ``None``.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import TYPE_CHECKING, Literal

from manager.types import Obj

from . import cluster, network, pods, workloads
from .column import AGE, NAME, Column

if TYPE_CHECKING:
    from ..registry import ResourceType

Include = Literal["Metadata", "None", "Object"]
_BUILTIN: dict[tuple[str, str], list[Column]] = {
    ("", "Pod"): pods.COLUMNS,
    ("", "Node"): cluster.NODE,
    ("", "Namespace"): cluster.NAMESPACE,
    ("", "Service"): network.SERVICE,
    ("", "Endpoints"): network.ENDPOINTS,
    ("", "Event"): cluster.EVENT,
    ("events.k8s.io", "Event"): cluster.EVENT,
    ("", "ConfigMap"): cluster.CONFIG_MAP,
    ("", "Secret"): cluster.SECRET,
    ("", "ServiceAccount"): cluster.SERVICE_ACCOUNT,
    ("", "PersistentVolume"): cluster.VOLUME,
    ("", "PersistentVolumeClaim"): cluster.CLAIM,
    ("", "ReplicationController"): workloads.REPLICATION_CONTROLLER,
    ("", "PodTemplate"): workloads.POD_TEMPLATE,
    ("", "ResourceQuota"): cluster.QUOTA,
    ("", "LimitRange"): cluster.CREATED_AT,
    ("apps", "Deployment"): workloads.DEPLOYMENT,
    ("apps", "ReplicaSet"): workloads.REPLICASET,
    ("apps", "StatefulSet"): workloads.STATEFULSET,
    ("apps", "DaemonSet"): workloads.DAEMONSET,
    ("apps", "ControllerRevision"): workloads.CONTROLLER_REVISION,
    ("batch", "Job"): workloads.JOB,
    ("batch", "CronJob"): workloads.CRONJOB,
    ("policy", "PodDisruptionBudget"): workloads.DISRUPTION_BUDGET,
    ("autoscaling", "HorizontalPodAutoscaler"): workloads.AUTOSCALER,
    ("discovery.k8s.io", "EndpointSlice"): network.ENDPOINT_SLICE,
    ("networking.k8s.io", "Ingress"): network.INGRESS,
    ("networking.k8s.io", "IngressClass"): network.INGRESS_CLASS,
    ("networking.k8s.io", "NetworkPolicy"): network.NETWORK_POLICY,
    ("coordination.k8s.io", "Lease"): cluster.LEASE,
    ("rbac.authorization.k8s.io", "Role"): cluster.CREATED_AT,
    ("rbac.authorization.k8s.io", "ClusterRole"): cluster.CREATED_AT,
    ("rbac.authorization.k8s.io", "RoleBinding"): cluster.BINDING,
    ("rbac.authorization.k8s.io", "ClusterRoleBinding"): cluster.BINDING,
    ("apiextensions.k8s.io", "CustomResourceDefinition"): cluster.CREATED_AT,
    ("apiregistration.k8s.io", "APIService"): cluster.API_SERVICE,
    ("admissionregistration.k8s.io", "MutatingWebhookConfiguration"): cluster.WEBHOOKS,
    ("admissionregistration.k8s.io", "ValidatingWebhookConfiguration"): cluster.WEBHOOKS,
    ("storage.k8s.io", "StorageClass"): cluster.STORAGE_CLASS,
    ("storage.k8s.io", "CSINode"): cluster.CSI_NODE,
    ("storage.k8s.io", "CSIDriver"): cluster.CREATED_AT,
    ("storage.k8s.io", "CSIStorageCapacity"): cluster.CREATED_AT,
    ("storage.k8s.io", "VolumeAttachment"): cluster.ATTACHMENT,
    ("scheduling.k8s.io", "PriorityClass"): cluster.PRIORITY_CLASS,
    ("node.k8s.io", "RuntimeClass"): cluster.RUNTIME_CLASS,
    ("certificates.k8s.io", "CertificateSigningRequest"): cluster.SIGNING_REQUEST,
}


def columns_of(resource_type: ResourceType) -> list[Column]:
    """The columns of a type's tables."""
    if resource_type.columns is not None:
        return resource_type.columns
    return _BUILTIN.get((resource_type.group, resource_type.kind), [NAME, AGE])


def render_table(
    resource_type: ResourceType,
    objects: Iterable[Obj],
    *,
    now: datetime,
    include: Include = "Metadata",
    list_meta: Obj | None = None,
    headings: bool = True,
) -> Obj:
    """The objects as a Table.

    Args:
        resource_type: the version that was asked for; the objects are of it.
        objects: in the order of the rows.
        now: for ages.
        include: what ``row.object`` holds.
        list_meta: the metadata of the list (resourceVersion, continue, remainingItemCount).
        headings: False for the later events of a watch, which carry no column definitions.
    """
    columns = columns_of(resource_type)
    rows = []
    for obj in objects:
        row: Obj = {"cells": [column.cell(obj, now) for column in columns]}
        if include == "Object":
            row["object"] = obj
        elif include == "Metadata":
            row["object"] = {
                "kind": "PartialObjectMetadata",
                "apiVersion": "meta.k8s.io/v1",
                "metadata": obj.get("metadata") or {},
            }
        else:
            row["object"] = None
        rows.append(row)
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": dict(list_meta or {}),
        "columnDefinitions": [column.definition() for column in columns] if headings else [],
        "rows": rows,
    }
