"""The NodeClaim: one wanted node, its requirements, and what became of it, as Karpenter v1 defines it.

In: JSON objects. Out: frozen views, and the schema of a CustomResourceDefinition that takes what Karpenter's takes
and refuses what it refuses. Cluster-scoped; the labels name the Workspace that it is for. The whole spec is
immutable: another wish is another NodeClaim.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar, Final

from pydantic import BeforeValidator, Field

from api import keys
from api.conditions import Condition
from api.model import ApiModel, Conditions, Resource, rules
from api.quantity import Quantities
from api.v1alpha5 import ResourceRequirements

GROUP: Final = "karpenter.sh"
VERSION: Final = "v1"
API_VERSION: Final = f"{GROUP}/{VERSION}"
KIND: Final = "NodeClaim"
PLURAL: Final = "nodeclaims"

_none_is_empty = BeforeValidator(lambda value: () if value is None else value)

# A label's value has 63 characters at most; saying so keeps the rules below within the API server's budget.
Value = Annotated[str, Field(json_schema_extra={"maxLength": 63})]
Values = Annotated[tuple[Value, ...], _none_is_empty]

_LABEL_PART: Final = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_LABEL_NAME: Final = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"
_LABEL_KEY: Final = rf"^({_LABEL_PART}(\.{_LABEL_PART})*/)?{_LABEL_NAME}$"
_DURATION: Final = "([0-9]+(s|m|h))+"

# Labels under Kubernetes' own domains that say what a node is; the others there are the kubelet's to set.
_OPEN_LABELS: Final = (
    keys.ARCH_LABEL,
    keys.OS_LABEL,
    keys.INSTANCE_TYPE_LABEL,
    keys.ZONE_LABEL,
    keys.REGION_LABEL,
    "node.kubernetes.io/windows-build",
    "beta.kubernetes.io/arch",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/instance-type",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
)
_DOMAIN: Final = "self.split('/')[0]"


def _outside(domain: str, *allowed: str, subdomains: tuple[str, ...] = ()) -> tuple[str, str]:
    """The rule that a key is under no label domain of others, with the labels there that are open to all."""
    listed = ", ".join(f"'{label}'" for label in allowed)
    exceptions = [f"self in [{listed}]"] if allowed else []
    exceptions += [f"{_DOMAIN}.endsWith('{item}')" for item in subdomains]
    rule = " || ".join([f"!{_DOMAIN}.endsWith('{domain}')", *exceptions])
    return rule, f'label domain "{domain}" is restricted'


class Operator(StrEnum):
    """How a requirement compares."""

    IN = "In"
    NOT_IN = "NotIn"
    EXISTS = "Exists"
    DOES_NOT_EXIST = "DoesNotExist"
    GREATER = "Gt"
    LESS = "Lt"


class Effect(StrEnum):
    """What a taint does to pods that do not tolerate it."""

    NO_SCHEDULE = "NoSchedule"
    PREFER_NO_SCHEDULE = "PreferNoSchedule"
    NO_EXECUTE = "NoExecute"


class Taint(ApiModel):
    """A taint of a node: pods that do not tolerate it stay away."""

    key: str = Field(
        min_length=1, description="The taint's key.", json_schema_extra={"pattern": _LABEL_KEY, "maxLength": 316}
    )
    value: str | None = Field(
        default=None, description="The taint's value.", json_schema_extra={"pattern": f"^({_LABEL_NAME})?$"}
    )
    effect: Effect = Field(description="NoSchedule, PreferNoSchedule or NoExecute.")
    time_added: str | None = Field(
        default=None,
        description="When the taint was added; only for NoExecute.",
        json_schema_extra={"format": "date-time"},
    )


class Requirement(ApiModel):
    """One requirement on the node."""

    key: str = Field(
        description="The label key that the requirement is about.",
        json_schema_extra=rules(
            _outside(
                "kubernetes.io",
                *_OPEN_LABELS,
                subdomains=("node.kubernetes.io", "node-restriction.kubernetes.io"),
            ),
            _outside("k8s.io", subdomains=("kops.k8s.io",)),
            _outside("karpenter.sh", keys.CAPACITY_TYPE_LABEL, keys.NODEPOOL_LABEL),
            (f"self != '{keys.HOSTNAME_LABEL}'", f'label "{keys.HOSTNAME_LABEL}" is restricted'),
            maxLength=316,
            pattern=_LABEL_KEY,
        ),
    )
    operator: Operator = Field(description="One of In, NotIn, Exists, DoesNotExist, Gt, Lt.")
    values: Values = Field(
        default=(), description="The values; empty for Exists and DoesNotExist, one number for Gt and Lt."
    )
    min_values: int | None = Field(
        default=None,
        description="How many different values of the key the instance types to choose from must have.",
        json_schema_extra={"minimum": 1, "maximum": 50},
    )


class NodeClassRef(ApiModel):
    """The object that says how the cloud makes such nodes."""

    group: str = Field(
        description="Its API group.",
        json_schema_extra=rules(("self != ''", "group may not be empty"), pattern="^[^/]*$"),
    )
    kind: str = Field(description="Its kind.", json_schema_extra=rules(("self != ''", "kind may not be empty")))
    name: str = Field(description="Its name.", json_schema_extra=rules(("self != ''", "name may not be empty")))


class NodeClaimSpec(ApiModel):
    """Which node is wanted."""

    taints: Annotated[tuple[Taint, ...], _none_is_empty] = Field(
        default=(), description="Taints that the node gets."
    )
    startup_taints: Annotated[tuple[Taint, ...], _none_is_empty] = Field(
        default=(),
        description="Taints that the node starts with and that something else removes before the node "
        "counts as ready.",
    )
    requirements: Annotated[tuple[Requirement, ...], _none_is_empty] = Field(
        description="Requirements on the node; node.kubernetes.io/instance-type names the instance type.",
        json_schema_extra=rules(
            (
                "self.all(x, x.operator == 'In' ? has(x.values) && size(x.values) != 0 : true)",
                "requirements with operator 'In' must have a value defined",
            ),
            (
                "self.all(x, x.operator in ['Gt', 'Lt'] ? has(x.values) && size(x.values) == 1 && "
                "x.values[0].matches('^[0-9]+$') : true)",
                "requirements operator 'Gt' or 'Lt' must have a single non-negative integer value",
            ),
            (
                "self.all(x, x.operator == 'In' && has(x.minValues) ? size(x.values) >= x.minValues : true)",
                "requirements with 'minValues' must have at least that many values",
            ),
            maxItems=100,
        ),
    )
    resources: ResourceRequirements = Field(
        default_factory=ResourceRequirements, description="Resources that the node must have."
    )
    node_class_ref: NodeClassRef = Field(description="How the cloud makes such nodes.")
    expire_after: str = Field(
        default="720h",
        description="How long the node lives at most, as 720h, or Never.",
        json_schema_extra={"pattern": f"^({_DURATION}|Never)$", "x-default": "720h"},
    )
    termination_grace_period: str | None = Field(
        default=None,
        description="How long its pods are given to end when the node is deleted, as 30m.",
        json_schema_extra={"pattern": f"^{_DURATION}$"},
    )


class NodeClaimStatus(ApiModel):
    """What became of the NodeClaim."""

    node_name: str = Field(default="", description="The node's name, once it joined the cluster.")
    provider_id: str = Field(
        default="", alias="providerID", description="The cloud's identity of the node, once it was launched."
    )
    image_id: str = Field(default="", alias="imageID", description="The image that the node was made from.")
    capacity: Quantities = Field(default_factory=dict, description="What the node has.")
    allocatable: Quantities = Field(default_factory=dict, description="What pods may use of it.")
    conditions: Conditions = Field(
        default=(),
        description="Launched, Registered and Initialized, in this order of events; Ready is all of them.",
    )
    last_pod_event_time: str | None = Field(
        default=None,
        description="When a pod was last placed on the node or left it.",
        json_schema_extra={"format": "date-time"},
    )


class NodeClaim(Resource):
    """One wanted node."""

    KIND: ClassVar[str] = KIND
    API_VERSION: ClassVar[str] = API_VERSION

    spec: NodeClaimSpec = Field(
        description="Which node is wanted. Cannot be changed.",
        json_schema_extra=rules(("self == oldSelf", "spec is immutable")),
    )
    status: NodeClaimStatus = Field(default_factory=NodeClaimStatus, description="What became of the NodeClaim.")

    def requirement(self, key: str) -> str | None:
        """The first value of the In requirement on ``key``, or None."""
        for item in self.spec.requirements:
            if item.key == key and item.operator is Operator.IN and item.values:
                return item.values[0]
        return None

    @property
    def instance_type(self) -> str | None:
        """The first instance type that the requirements allow, in the order written."""
        return self.requirement(keys.INSTANCE_TYPE_LABEL)

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """``status.conditions``."""
        return self.status.conditions
