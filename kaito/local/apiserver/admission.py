"""What a real API server adds to or refuses in an object because of other objects.

In: an object that is about to be stored, and read access to the rest. Out: the object completed (the
namespace's account, tolerations, priority, service addresses, a Job's selector, a CRD's status), or a
StatusError. Runs inside the write, after defaults and before validation.
"""

from __future__ import annotations

from kaito.local.apiserver.addresses import ServiceAddresses
from kaito.local.apiserver.crds import establish
from kaito.local.apiserver.errors import forbidden, invalid, not_found
from kaito.local.apiserver.registry import Registry, ResourceType
from kaito.local.apiserver.storage import Storage
from manager.types import Obj

__all__ = ["PROTECTED_NAMESPACES", "Admission"]

PROTECTED_NAMESPACES = ("default", "kube-system", "kube-public")
_SYSTEM_PRIORITIES = {"system-cluster-critical": 2_000_000_000, "system-node-critical": 2_000_001_000}
_NODE_TAINTS = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")
_TOLERATION_SECONDS = 300


class Admission:
    """The built-in admission of one server."""

    def __init__(self, storage: Storage, registry: Registry, addresses: ServiceAddresses) -> None:
        self._storage = storage
        self._registry = registry
        self._addresses = addresses

    def check_namespace(self, resource: ResourceType, namespace: str, name: str) -> None:
        """Refuse a new object in a namespace that is not there or is going."""
        space = self._storage.get("namespaces", "", namespace)
        if space is None:
            namespaces = self._registry.lookup("", "v1", "namespaces")
            assert namespaces is not None  # noqa: S101 - built in
            raise not_found(namespaces, namespace)
        if space.obj["metadata"].get("deletionTimestamp"):
            why = f"unable to create new content in namespace {namespace} because it is being terminated"
            cause = {
                "reason": "NamespaceTerminating",
                "message": f"namespace {namespace} is being terminated",
                "field": "metadata.namespace",
            }
            raise forbidden(resource, name, why, causes=[cause])

    def check_delete(self, resource: ResourceType, name: str) -> None:
        """Refuse to delete what the cluster cannot do without."""
        if resource.plural == "namespaces" and not resource.group and name in PROTECTED_NAMESPACES:
            raise forbidden(resource, name, "this namespace may not be deleted")

    def admit(self, resource: ResourceType, obj: Obj, old: Obj | None, *, now: str) -> None:
        """Complete ``obj``; ``old`` is None for a new object."""
        key = (resource.group, resource.kind)
        if key == ("", "Pod") and old is None:
            self._pod(resource, obj)
        elif key == ("", "Service"):
            problems = self._addresses.assign(obj, old)
            if problems:
                raise invalid("", "Service", obj["metadata"]["name"], problems)
        elif key == ("batch", "Job") and old is None:
            _job(obj)
        elif key == ("", "Namespace") and old is None:
            finalizers = obj.setdefault("spec", {}).setdefault("finalizers", [])
            if "kubernetes" not in finalizers:
                finalizers.append("kubernetes")
        elif key == ("apiextensions.k8s.io", "CustomResourceDefinition"):
            establish(obj, old, self._registry, now=now)

    def _pod(self, resource: ResourceType, obj: Obj) -> None:
        spec = obj["spec"]
        name = obj["metadata"]["name"]
        spec.setdefault("serviceAccountName", "default")
        spec.setdefault("serviceAccount", spec["serviceAccountName"])
        self._priority(resource, spec, name)
        tolerations = spec.setdefault("tolerations", [])
        for taint in _NODE_TAINTS:
            tolerated = any(
                t.get("effect", "NoExecute") in ("", "NoExecute")
                and (t.get("key") == taint or (not t.get("key") and t.get("operator") == "Exists"))
                for t in tolerations
            )
            if not tolerated:
                tolerations.append(
                    {
                        "key": taint,
                        "operator": "Exists",
                        "effect": "NoExecute",
                        "tolerationSeconds": _TOLERATION_SECONDS,
                    }
                )

    def _priority(self, resource: ResourceType, spec: Obj, name: str) -> None:
        wanted = spec.get("priorityClassName")
        policy = "PreemptLowerPriority"
        if not wanted:
            spec["priority"] = 0
        elif wanted in _SYSTEM_PRIORITIES:
            spec["priority"] = _SYSTEM_PRIORITIES[wanted]
        else:
            found = self._storage.get("scheduling.k8s.io/priorityclasses", "", wanted)
            if found is None:
                raise forbidden(resource, name, f"no PriorityClass with name {wanted} was found")
            spec["priority"] = found.obj.get("value", 0)
            policy = found.obj.get("preemptionPolicy", policy)
        spec.setdefault("preemptionPolicy", policy)


def _job(obj: Obj) -> None:
    """The selector and labels that tie a Job to its pods, unless the user insists on his own."""
    spec = obj["spec"]
    if spec.get("manualSelector"):
        return
    uid, name = obj["metadata"]["uid"], obj["metadata"]["name"]
    meta = spec["template"].setdefault("metadata", {})
    labels = meta.setdefault("labels", {})
    for prefix in ("", "batch.kubernetes.io/"):
        labels[f"{prefix}controller-uid"] = uid
        labels[f"{prefix}job-name"] = name
    selector = spec.setdefault("selector", {})
    selector.setdefault("matchLabels", {})["batch.kubernetes.io/controller-uid"] = uid
