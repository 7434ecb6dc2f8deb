"""Which structs a built-in kind always has, as Go's zero values show them.

In: a kind. Out: the skeleton of structs that the real server serialises even when nobody wrote them. Ownership
depends on it: a struct that was always there is never "added", so that ``f:spec`` of a Deployment has no ``.``
of its own while ``f:spec`` of a custom resource has. Data only.
"""

from __future__ import annotations

from typing import Any

from manager.types import Obj

_POD_SPEC: Obj = {"containers": None}
_TEMPLATE: Obj = {"metadata": {}, "spec": _POD_SPEC}
_LOAD_BALANCER: Obj = {"loadBalancer": {}}

_KINDS: dict[tuple[str, str], Obj] = {
    ("", "Pod"): {"spec": _POD_SPEC, "status": {}},
    ("", "Node"): {
        "spec": {},
        "status": {"daemonEndpoints": {"kubeletEndpoint": {}}, "nodeInfo": {}},
    },
    ("", "Namespace"): {"spec": {}, "status": {}},
    ("", "Service"): {"spec": {}, "status": _LOAD_BALANCER},
    ("", "PersistentVolume"): {"spec": {}, "status": {}},
    ("", "PersistentVolumeClaim"): {"spec": {"resources": {}}, "status": {}},
    ("", "ReplicationController"): {"spec": {}, "status": {}},
    ("", "ResourceQuota"): {"spec": {}, "status": {}},
    ("", "LimitRange"): {"spec": {"limits": None}},
    ("", "PodTemplate"): {"template": _TEMPLATE},
    ("", "Event"): {
        "involvedObject": {},
        "source": {},
        "firstTimestamp": None,
        "lastTimestamp": None,
        "eventTime": None,
    },
    ("events.k8s.io", "Event"): {
        "regarding": {},
        "deprecatedSource": {},
        "deprecatedFirstTimestamp": None,
        "deprecatedLastTimestamp": None,
        "eventTime": None,
    },
    ("apps", "Deployment"): {"spec": {"selector": None, "template": _TEMPLATE, "strategy": {}}, "status": {}},
    ("apps", "ReplicaSet"): {"spec": {"selector": None, "template": _TEMPLATE}, "status": {}},
    ("apps", "StatefulSet"): {
        "spec": {"selector": None, "template": _TEMPLATE, "updateStrategy": {}},
        "status": {},
    },
    ("apps", "DaemonSet"): {
        "spec": {"selector": None, "template": _TEMPLATE, "updateStrategy": {}},
        "status": {},
    },
    ("apps", "ControllerRevision"): {"data": None},
    ("batch", "Job"): {"spec": {"template": _TEMPLATE}, "status": {}},
    ("batch", "CronJob"): {
        "spec": {"jobTemplate": {"metadata": {}, "spec": {"template": _TEMPLATE}}},
        "status": {},
    },
    ("coordination.k8s.io", "Lease"): {"spec": {}},
    ("autoscaling", "HorizontalPodAutoscaler"): {"spec": {"scaleTargetRef": {}}, "status": {}},
    ("policy", "PodDisruptionBudget"): {"spec": {}, "status": {}},
    ("networking.k8s.io", "Ingress"): {"spec": {}, "status": _LOAD_BALANCER},
    ("networking.k8s.io", "IngressClass"): {"spec": {}},
    ("networking.k8s.io", "NetworkPolicy"): {"spec": {"podSelector": {}}},
    ("discovery.k8s.io", "EndpointSlice"): {"endpoints": None, "ports": None},
    ("rbac.authorization.k8s.io", "Role"): {"rules": None},
    ("rbac.authorization.k8s.io", "ClusterRole"): {"rules": None},
    ("rbac.authorization.k8s.io", "RoleBinding"): {"roleRef": {}},
    ("rbac.authorization.k8s.io", "ClusterRoleBinding"): {"roleRef": {}},
    ("apiextensions.k8s.io", "CustomResourceDefinition"): {
        "spec": {"names": {}, "versions": None},
        "status": {"conditions": None, "acceptedNames": {}, "storedVersions": None},
    },
    ("apiregistration.k8s.io", "APIService"): {"spec": {}, "status": {}},
    ("storage.k8s.io", "CSIDriver"): {"spec": {}},
    ("storage.k8s.io", "CSINode"): {"spec": {"drivers": None}},
    ("storage.k8s.io", "VolumeAttachment"): {"spec": {"source": {}}},
    ("certificates.k8s.io", "CertificateSigningRequest"): {"spec": {}, "status": {}},
}


def with_zero_structs(obj: Obj, group: str, kind: str) -> Obj:
    """The object with the structs that a Go value of its kind always has. Custom resources stay as they are."""
    skeleton = _KINDS.get((group, kind))
    filled: Obj = _fill(obj, {"metadata": {}, **(skeleton or {})})
    return filled


def _fill(value: Any, skeleton: Any) -> Any:
    if not isinstance(skeleton, dict) or not isinstance(value, dict | None):
        return skeleton if value is None else value
    result = dict(value or {})
    for name, below in skeleton.items():
        result[name] = _fill(result.get(name), below)
    return result
