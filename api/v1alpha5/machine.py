"""The Machine: one wanted node, its requirements, and what became of it.

Cluster-scoped and owned by nobody; the labels name the Workspace that it is for. Quantities stay the strings
or numbers that were written; ``api.quantity`` reads them.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Final

from pydantic import BeforeValidator, Field
from pydantic.config import JsonDict

from api import keys
from api.conditions import Condition
from api.model import ApiModel, Conditions, Labels, Resource, Strings
from api.quantity import Quantities

GROUP: Final = "karpenter.sh"
VERSION: Final = "v1alpha5"
API_VERSION: Final = f"{GROUP}/{VERSION}"
KIND: Final = "Machine"
PLURAL: Final = "machines"

_none_is_empty = BeforeValidator(lambda value: () if value is None else value)


class Taint(ApiModel):
    """A taint of a node: pods that do not tolerate it stay away."""

    key: str = Field(description="The taint's key.")
    value: str | None = Field(default=None, description="The taint's value.")
    effect: str = Field(description="NoSchedule, PreferNoSchedule or NoExecute.")
    time_added: str | None = Field(
        default=None,
        description="When the taint was added; only for NoExecute.",
        json_schema_extra={"format": "date-time"},
    )


class NodeSelectorRequirement(ApiModel):
    """One requirement on the node."""

    key: str = Field(description="The label key that the requirement is about.")
    operator: str = Field(description="One of In, NotIn, Exists, DoesNotExist, Gt, Lt.")
    values: Strings = Field(
        default=(), description="The values; empty for Exists and DoesNotExist, one for Gt and Lt."
    )


class ResourceRequirements(ApiModel):
    """Resources that the node must have."""

    requests: Quantities = Field(
        default_factory=dict, description="The least of each resource; storage asks for a disk of this size."
    )


_Int32: JsonDict = {"format": "int32"}


class KubeletSpec(ApiModel):
    """Settings of the node's kubelet. Kept for other provisioners; ours ignores them."""

    cluster_dns: Strings = Field(
        default=(), alias="clusterDNS", description="Addresses of the cluster's DNS servers."
    )
    container_runtime: str | None = Field(default=None, description="The container runtime.")
    cpu_cfs_quota: bool | None = Field(
        default=None, alias="cpuCFSQuota", description="Enforce CPU limits by CFS quota."
    )
    max_pods: int | None = Field(
        default=None, ge=0, description="The most pods on the node.", json_schema_extra=_Int32
    )
    pods_per_core: int | None = Field(
        default=None, ge=0, description="The most pods per core.", json_schema_extra=_Int32
    )
    system_reserved: Quantities = Field(default_factory=dict, description="Resources kept for the system.")
    kube_reserved: Quantities = Field(default_factory=dict, description="Resources kept for Kubernetes.")
    eviction_hard: Labels = Field(
        default_factory=dict, description="Thresholds at which pods are evicted at once."
    )
    eviction_soft: Labels = Field(
        default_factory=dict, description="Thresholds at which pods are evicted with grace."
    )
    eviction_soft_grace_period: Labels = Field(
        default_factory=dict, description="How long a soft threshold must be met, as durations."
    )
    eviction_max_pod_grace_period: int | None = Field(
        default=None,
        description="The longest grace period of a soft eviction, in seconds.",
        json_schema_extra=_Int32,
    )
    image_gc_high_threshold_percent: int | None = Field(
        default=None,
        ge=0,
        le=100,
        alias="imageGCHighThresholdPercent",
        description="Disk usage at which images are collected.",
        json_schema_extra=_Int32,
    )
    image_gc_low_threshold_percent: int | None = Field(
        default=None,
        ge=0,
        le=100,
        alias="imageGCLowThresholdPercent",
        description="Disk usage down to which images are collected.",
        json_schema_extra=_Int32,
    )


class MachineTemplateRef(ApiModel):
    """A template for the machine. Kept for other provisioners; ours ignores it."""

    name: str = Field(description="The template's name.")
    kind: str | None = Field(default=None, description="The template's kind.")
    api_version: str | None = Field(default=None, description="The template's API version.")


class MachineSpec(ApiModel):
    """Which node is wanted."""

    taints: Annotated[tuple[Taint, ...], _none_is_empty] = Field(
        default=(), description="Taints that the node gets."
    )
    startup_taints: Annotated[tuple[Taint, ...], _none_is_empty] = Field(
        default=(),
        description="Taints that the node starts with and that something else removes before the node "
        "counts as ready.",
    )
    requirements: Annotated[tuple[NodeSelectorRequirement, ...], _none_is_empty] = Field(
        default=(),
        description="Requirements on the node; node.kubernetes.io/instance-type names the instance type.",
    )
    resources: ResourceRequirements = Field(
        default_factory=ResourceRequirements, description="Resources that the node must have."
    )
    kubelet: KubeletSpec | None = Field(default=None, description="Settings of the node's kubelet.")
    machine_template_ref: MachineTemplateRef | None = Field(
        default=None, description="A template for the machine."
    )


class MachineStatus(ApiModel):
    """What became of the machine."""

    node_name: str = Field(default="", description="The node's name, once it joined the cluster.")
    provider_id: str = Field(
        default="", alias="providerID", description="The cloud's identity of the node, once it was launched."
    )
    capacity: Quantities = Field(default_factory=dict, description="What the node has.")
    allocatable: Quantities = Field(default_factory=dict, description="What pods may use of it.")
    conditions: Conditions = Field(
        default=(),
        description="MachineLaunched, MachineRegistered and MachineInitialized, in this order of events; "
        "Ready is all of them.",
    )


class Machine(Resource):
    """One wanted node."""

    KIND: ClassVar[str] = KIND
    API_VERSION: ClassVar[str] = API_VERSION

    spec: MachineSpec = Field(default_factory=MachineSpec, description="Which node is wanted.")
    status: MachineStatus = Field(default_factory=MachineStatus, description="What became of the machine.")

    @property
    def instance_type(self) -> str | None:
        """The first instance type that the requirements allow, in the order written."""
        return self.requirement(keys.INSTANCE_TYPE_LABEL)

    def requirement(self, key: str) -> str | None:
        """The first value of the In requirement on ``key``, or None."""
        for item in self.spec.requirements:
            if item.key == key and item.operator == "In" and item.values:
                return item.values[0]
        return None

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """``status.conditions``."""
        return self.status.conditions
