"""What a write may touch: metadata that the server owns, the split of status and spec, generation.

In: the object of a request, the stored state, the subresource written to. Out: the object that would be
stored. This is where a write to the main resource loses its status, a write to ``/status`` loses everything
else, and ``generation`` counts changes of what a user wants. Pure: time, names and ids are arguments.
"""

from __future__ import annotations

import random
import uuid

from kaito.local.apiserver.podspec import qos_class
from kaito.local.apiserver.registry import ResourceType
from manager.types import Obj

__all__ = [
    "bump_generation",
    "generate_name",
    "has_generation",
    "keep_server_fields",
    "merge_subresource",
    "reset_status",
    "stamp_new",
]

_GENERATION_KINDS = {
    "Deployment",
    "ReplicaSet",
    "ReplicationController",
    "StatefulSet",
    "DaemonSet",
    "Job",
    "CronJob",
    "Ingress",
    "NetworkPolicy",
    "PodDisruptionBudget",
    "PriorityClass",
    "CustomResourceDefinition",
    "MutatingWebhookConfiguration",
    "ValidatingWebhookConfiguration",
    "EndpointSlice",
}
_STATUS_ON_CREATE_KEPT = {"Node", "PersistentVolume", "APIService"}  # as the real strategies do
_NAME_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"  # no vowels: no words by accident
_BASE_LENGTH = 58
_SERVER_FIELDS = ("uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation")


def generate_name(base: str, chance: random.Random) -> str:
    """``base`` (shortened to fit a label) plus five random characters."""
    return base[:_BASE_LENGTH] + "".join(chance.choice(_NAME_ALPHABET) for _ in range(5))


def has_generation(resource: ResourceType) -> bool:
    """Whether objects of this type carry ``metadata.generation``."""
    return resource.is_crd or resource.kind in _GENERATION_KINDS


def stamp_new(resource: ResourceType, obj: Obj, *, namespace: str, now: str) -> None:
    """Set what only the server decides about a new object."""
    meta = obj["metadata"]
    for field in ("deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "generation"):
        meta.pop(field, None)
    meta["uid"] = str(uuid.uuid4())
    meta["creationTimestamp"] = now
    if resource.namespaced:
        meta["namespace"] = namespace
    else:
        meta.pop("namespace", None)
    if has_generation(resource):
        meta["generation"] = 1


def reset_status(resource: ResourceType, obj: Obj) -> None:
    """The status of a new object: what a client sent is dropped where status is a subresource."""
    if "status" not in resource.subresources:
        return
    if resource.is_crd:
        obj.pop("status", None)
        return
    kind = resource.kind
    if kind in _STATUS_ON_CREATE_KEPT:
        obj.setdefault("status", {})
        return
    status: Obj = {}
    if kind == "Pod":
        status = {"phase": "Pending", "qosClass": qos_class(obj["spec"])}
    elif kind in ("Namespace",):
        status = {"phase": "Active"}
    elif kind in ("PersistentVolumeClaim",):
        status = {"phase": "Pending"}
    elif kind == "Service":
        status = {"loadBalancer": {}}
    elif kind in ("ReplicaSet", "ReplicationController"):
        status = {"replicas": 0}
    elif kind == "StatefulSet":
        status = {"replicas": 0, "availableReplicas": 0}
    elif kind == "DaemonSet":
        fields = ("currentNumberScheduled", "numberMisscheduled", "desiredNumberScheduled", "numberReady")
        status = dict.fromkeys(fields, 0)
    obj["status"] = status


def keep_server_fields(obj: Obj, old: Obj) -> None:
    """Put back the metadata that no write can change."""
    meta, before = obj["metadata"], old["metadata"]
    for field in _SERVER_FIELDS:
        if field in before:
            meta[field] = before[field]
        else:
            meta.pop(field, None)
    meta["name"] = before["name"]
    if "namespace" in before:
        meta["namespace"] = before["namespace"]
    meta.pop("selfLink", None)
    if "generateName" in before:
        meta.setdefault("generateName", before["generateName"])
    if "managedFields" not in meta and "managedFields" in before:
        meta["managedFields"] = before["managedFields"]


def merge_subresource(resource: ResourceType, obj: Obj, old: Obj, subresource: str) -> Obj:
    """Of ``obj`` what the subresource may change, of ``old`` the rest."""
    if subresource == "status":
        return _status_write(resource, obj, old)
    if subresource == "finalize":
        merged = dict(old)
        merged["metadata"] = obj["metadata"]
        merged["spec"] = dict(old.get("spec") or {})
        merged["spec"]["finalizers"] = (obj.get("spec") or {}).get("finalizers") or []
        return merged
    if subresource == "ephemeralcontainers":
        merged = dict(old)
        merged["spec"] = dict(old["spec"])
        merged["spec"]["ephemeralContainers"] = (obj.get("spec") or {}).get("ephemeralContainers") or []
        return merged
    if subresource == "approval":
        return old | {"status": obj.get("status") or {}, "metadata": obj["metadata"]}
    if subresource == "resize":
        return obj | {"status": old.get("status") or {}}
    if "status" in resource.subresources:
        obj = dict(obj)
        if "status" in old:
            obj["status"] = old["status"]
        else:
            obj.pop("status", None)
    return obj


def _status_write(resource: ResourceType, obj: Obj, old: Obj) -> Obj:
    merged = dict(old)
    if "status" in obj:
        merged["status"] = obj["status"]
    else:
        merged.pop("status", None)
    meta = dict(old["metadata"])
    wanted = obj["metadata"]
    if not resource.is_crd:
        for field in ("labels", "annotations", "finalizers"):
            if wanted.get(field):
                meta[field] = wanted[field]
            else:
                meta.pop(field, None)
    if "managedFields" in wanted:
        meta["managedFields"] = wanted["managedFields"]
    merged["metadata"] = meta
    return merged


def bump_generation(resource: ResourceType, obj: Obj, old: Obj, subresource: str) -> None:
    """Count a change of anything but metadata and status, and of a Deployment's annotations by itself."""
    if not has_generation(resource):
        return
    before = int(old["metadata"].get("generation") or 1)
    meta = obj["metadata"]
    has_status = "status" in resource.subresources
    ignored = {"metadata", "status"} if has_status else {"metadata"}
    changed = any(obj.get(key) != old.get(key) for key in {*obj, *old} - ignored - {"apiVersion"})
    if resource.group_kind == "Deployment.apps" and subresource != "status":
        changed = changed or (meta.get("annotations") or {}) != (old["metadata"].get("annotations") or {})
    meta["generation"] = before + 1 if changed else before
