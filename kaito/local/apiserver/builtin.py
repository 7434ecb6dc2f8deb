"""The table of resources that Kubernetes itself serves, as data: names, scope, short names, subresources.

In: nothing. Out: :data:`BUILTIN_ROWS`, one row per resource and version in the order in which a real server
lists its groups, and :data:`SUBRESOURCES`, what each subresource answers with and which verbs it has. The
rows hold no behaviour; :mod:`registry` turns them into resource types and :mod:`definitions` supplies the
schemas. What must never happen: a name here that differs from the real server's, because kubectl, RBAC rules
and clients spell these names out.
"""

from __future__ import annotations

from dataclasses import dataclass

ALL_VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")
CREATE_ONLY = ("create",)


@dataclass(frozen=True, slots=True)
class Subresource:
    """What a subresource of one resource answers with. ``kind`` empty means the parent's kind."""

    verbs: tuple[str, ...]
    group: str = ""
    version: str = ""
    kind: str = ""


_STATUS = Subresource(("get", "patch", "update"))
_SCALE = Subresource(("get", "patch", "update"), "autoscaling", "v1", "Scale")
_PROXY_VERBS = ("create", "delete", "get", "patch", "update")

SUBRESOURCES: dict[str, Subresource] = {
    "status": _STATUS,
    "scale": _SCALE,
    "approval": _STATUS,
    "finalize": Subresource(("update",)),
    "ephemeralcontainers": _STATUS,
    "resize": _STATUS,
    "log": Subresource(("get",)),
    "binding": Subresource(CREATE_ONLY, "", "v1", "Binding"),
    "eviction": Subresource(CREATE_ONLY, "policy", "v1", "Eviction"),
    "token": Subresource(CREATE_ONLY, "authentication.k8s.io", "v1", "TokenRequest"),
    "attach": Subresource(("create", "get"), "", "v1", "PodAttachOptions"),
    "exec": Subresource(("create", "get"), "", "v1", "PodExecOptions"),
    "portforward": Subresource(("create", "get"), "", "v1", "PodPortForwardOptions"),
}
_PROXY_KINDS = {"pods": "PodProxyOptions", "services": "ServiceProxyOptions", "nodes": "NodeProxyOptions"}


def subresource(plural: str, name: str) -> Subresource:
    """What ``plural/name`` answers with."""
    if name == "proxy":
        return Subresource(_PROXY_VERBS, "", "v1", _PROXY_KINDS.get(plural, ""))
    return SUBRESOURCES[name]


@dataclass(frozen=True, slots=True)
class Row:
    """One built-in resource in one version."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    subresources: tuple[str, ...] = ()
    verbs: tuple[str, ...] = ALL_VERBS
    singular: str = ""
    storage_group: str | None = None  # the group that stores it, where that is another one
    storage_version: str | None = None


def _row(
    api_version: str,
    plural: str,
    kind: str,
    short: str = "",
    *,
    cluster: bool = False,
    categories: str = "",
    sub: str = "",
    verbs: tuple[str, ...] = ALL_VERBS,
    singular: str = "",
    storage_group: str | None = None,
    storage_version: str | None = None,
) -> Row:
    group, _, version = api_version.rpartition("/")
    return Row(
        group,
        version,
        plural,
        kind,
        not cluster,
        tuple(short.split()),
        tuple(categories.split()),
        tuple(sub.split()),
        verbs,
        singular or kind.lower(),
        storage_group,
        storage_version,
    )


_POD_SUB = "attach binding ephemeralcontainers eviction exec log portforward proxy resize status"
_NAMESPACE_VERBS = tuple(verb for verb in ALL_VERBS if verb != "deletecollection")

BUILTIN_ROWS: tuple[Row, ...] = (
    _row("v1", "bindings", "Binding", verbs=CREATE_ONLY),
    _row("v1", "configmaps", "ConfigMap", "cm"),
    _row("v1", "endpoints", "Endpoints", "ep"),
    _row("v1", "events", "Event", "ev"),
    _row("v1", "limitranges", "LimitRange", "limits"),
    _row("v1", "namespaces", "Namespace", "ns", cluster=True, sub="finalize status", verbs=_NAMESPACE_VERBS),
    _row("v1", "nodes", "Node", "no", cluster=True, sub="proxy status"),
    _row("v1", "persistentvolumeclaims", "PersistentVolumeClaim", "pvc", sub="status"),
    _row("v1", "persistentvolumes", "PersistentVolume", "pv", cluster=True, sub="status"),
    _row("v1", "pods", "Pod", "po", categories="all", sub=_POD_SUB),
    _row("v1", "podtemplates", "PodTemplate"),
    _row("v1", "replicationcontrollers", "ReplicationController", "rc", categories="all", sub="scale status"),
    _row("v1", "resourcequotas", "ResourceQuota", "quota", sub="status"),
    _row("v1", "secrets", "Secret"),
    _row("v1", "serviceaccounts", "ServiceAccount", "sa", sub="token"),
    _row("v1", "services", "Service", "svc", categories="all", sub="proxy status"),
    _row(
        "apiregistration.k8s.io/v1",
        "apiservices",
        "APIService",
        cluster=True,
        categories="api-extensions",
        sub="status",
    ),
    _row("apps/v1", "controllerrevisions", "ControllerRevision"),
    _row("apps/v1", "daemonsets", "DaemonSet", "ds", categories="all", sub="status"),
    _row("apps/v1", "deployments", "Deployment", "deploy", categories="all", sub="scale status"),
    _row("apps/v1", "replicasets", "ReplicaSet", "rs", categories="all", sub="scale status"),
    _row("apps/v1", "statefulsets", "StatefulSet", "sts", categories="all", sub="scale status"),
    _row("events.k8s.io/v1", "events", "Event", "ev", storage_group="", storage_version="v1"),
    _row("authentication.k8s.io/v1", "selfsubjectreviews", "SelfSubjectReview", cluster=True, verbs=CREATE_ONLY),
    _row("authentication.k8s.io/v1", "tokenreviews", "TokenReview", cluster=True, verbs=CREATE_ONLY),
    _row("authorization.k8s.io/v1", "localsubjectaccessreviews", "LocalSubjectAccessReview", verbs=CREATE_ONLY),
    _row(
        "authorization.k8s.io/v1",
        "selfsubjectaccessreviews",
        "SelfSubjectAccessReview",
        cluster=True,
        verbs=CREATE_ONLY,
    ),
    _row(
        "authorization.k8s.io/v1",
        "selfsubjectrulesreviews",
        "SelfSubjectRulesReview",
        cluster=True,
        verbs=CREATE_ONLY,
    ),
    _row(
        "authorization.k8s.io/v1",
        "subjectaccessreviews",
        "SubjectAccessReview",
        cluster=True,
        verbs=CREATE_ONLY,
    ),
    _row(
        "autoscaling/v2",
        "horizontalpodautoscalers",
        "HorizontalPodAutoscaler",
        "hpa",
        categories="all",
        sub="status",
    ),
    _row(
        "autoscaling/v1",
        "horizontalpodautoscalers",
        "HorizontalPodAutoscaler",
        "hpa",
        categories="all",
        sub="status",
        storage_version="v2",
    ),
    _row("batch/v1", "cronjobs", "CronJob", "cj", categories="all", sub="status"),
    _row("batch/v1", "jobs", "Job", categories="all", sub="status"),
    _row(
        "certificates.k8s.io/v1",
        "certificatesigningrequests",
        "CertificateSigningRequest",
        "csr",
        cluster=True,
        sub="approval status",
    ),
    _row("networking.k8s.io/v1", "ingressclasses", "IngressClass", cluster=True),
    _row("networking.k8s.io/v1", "ingresses", "Ingress", "ing", sub="status"),
    _row("networking.k8s.io/v1", "networkpolicies", "NetworkPolicy", "netpol"),
    _row("policy/v1", "poddisruptionbudgets", "PodDisruptionBudget", "pdb", sub="status"),
    _row("rbac.authorization.k8s.io/v1", "clusterrolebindings", "ClusterRoleBinding", cluster=True),
    _row("rbac.authorization.k8s.io/v1", "clusterroles", "ClusterRole", cluster=True),
    _row("rbac.authorization.k8s.io/v1", "rolebindings", "RoleBinding"),
    _row("rbac.authorization.k8s.io/v1", "roles", "Role"),
    _row("storage.k8s.io/v1", "csidrivers", "CSIDriver", cluster=True),
    _row("storage.k8s.io/v1", "csinodes", "CSINode", cluster=True),
    _row("storage.k8s.io/v1", "csistoragecapacities", "CSIStorageCapacity"),
    _row("storage.k8s.io/v1", "storageclasses", "StorageClass", "sc", cluster=True),
    _row("storage.k8s.io/v1", "volumeattachments", "VolumeAttachment", cluster=True, sub="status"),
    _row(
        "admissionregistration.k8s.io/v1",
        "mutatingwebhookconfigurations",
        "MutatingWebhookConfiguration",
        cluster=True,
        categories="api-extensions",
    ),
    _row(
        "admissionregistration.k8s.io/v1",
        "validatingwebhookconfigurations",
        "ValidatingWebhookConfiguration",
        cluster=True,
        categories="api-extensions",
    ),
    _row(
        "apiextensions.k8s.io/v1",
        "customresourcedefinitions",
        "CustomResourceDefinition",
        "crd crds",
        cluster=True,
        categories="api-extensions",
        sub="status",
    ),
    _row("scheduling.k8s.io/v1", "priorityclasses", "PriorityClass", "pc", cluster=True),
    _row("coordination.k8s.io/v1", "leases", "Lease"),
    _row("node.k8s.io/v1", "runtimeclasses", "RuntimeClass", cluster=True),
    _row("discovery.k8s.io/v1", "endpointslices", "EndpointSlice"),
)
