"""What AKS says about an agent pool, as the provisioner's own ``Instance``, and whether the pool is ours.

In: the SDK's ``AgentPool``, read once and whole, by attribute: its models check nothing, and a reply of another
shape fails only where it is read. Out: plain values. Pure; the SDK is not imported. Ours is a pool whose tag
carries the uid that its name is made of, or one that upstream's provisioner made: it has no tags, and the labels
of KAITO and Karpenter on its nodes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from api import keys
from provisioner.azure.body import TAG_KIND, TAG_MANAGED_BY, TAG_NAME, TAG_UID, Offering
from provisioner.azure.classify import Refusal, classify
from provisioner.azure.names import pool_name
from provisioner.errors import CloudError, NameTaken
from provisioner.protocol import ON_DEMAND, SPOT, Instance, InstanceState, Owner

if TYPE_CHECKING:
    from azure.mgmt.containerservice.models import AgentPool

_STATES = {
    "": InstanceState.CREATING,
    "accepted": InstanceState.CREATING,
    "creating": InstanceState.CREATING,
    "failed": InstanceState.FAILED,
    "canceled": InstanceState.FAILED,
    "deleting": InstanceState.DELETING,
}  # every other one (Succeeded, Updating, Upgrading, ...) is that of a pool that has its node
_OWNER_KEYS = (keys.WORKSPACE_LABEL, keys.RAGENGINE_LABEL)
_POOL_KEYS = (keys.PROVISIONER_NAME_LABEL, keys.NODEPOOL_LABEL)


@dataclass(frozen=True, slots=True)
class Pool:
    """One agent pool. ``refusal`` is why AKS could not provision it."""

    name: str
    offering: Offering
    state: str
    tags: Mapping[str, str]
    labels: Mapping[str, str]
    created_at: datetime | None
    stopped: bool
    refusal: Refusal | None

    @property
    def is_ours(self) -> bool:
        """Whether this provisioner, or upstream's, made the pool."""
        if self.tags.get(TAG_MANAGED_BY) == "kaito":
            return TAG_UID in self.tags and pool_name(self.tags[TAG_UID]) == self.name
        return any(key in self.labels for key in _OWNER_KEYS) and any(key in self.labels for key in _POOL_KEYS)

    @property
    def owner(self) -> Owner | None:
        """Whom it was made for; upstream's pools are called as their objects, and nothing tells their uid."""
        created = _label_time(self.labels.get(keys.POOL_CREATED_LABEL, ""))
        if TAG_UID in self.tags:
            kind = self.tags.get(TAG_KIND, "Machine")
            return Owner(self.tags.get(TAG_NAME, ""), self.tags[TAG_UID], kind, created)
        if not self.is_ours:
            return None
        return Owner(self.name, "", "NodeClaim" if keys.NODEPOOL_LABEL in self.labels else "Machine", created)


def read_pool(model: AgentPool) -> Pool:
    """The SDK's model as plain values. Raises ``ValueError`` or ``AttributeError`` when it has another shape."""
    status = model.status.provisioning_error if model.status is not None else None
    labels = _strings(model.node_labels)
    created = model.system_data.created_at if model.system_data is not None else None
    return Pool(
        name=_string(model.name, "name"),
        offering=Offering(str(model.vm_size or ""), SPOT if model.scale_set_priority == "Spot" else ON_DEMAND),
        state=str(model.provisioning_state or ""),
        tags=_strings(model.tags),
        labels=labels,
        created_at=created or _label_time(labels.get(keys.POOL_CREATED_LABEL, "")),
        stopped=model.power_state is not None and model.power_state.code == "Stopped",
        refusal=Refusal(0, status.code or "", status.message or "") if status is not None else None,
    )


def check_ours(pool: Pool) -> Pool:
    """``pool`` when it is ours. Raises ``NameTaken``."""
    if pool.is_ours:
        return pool
    raise NameTaken(
        f"agent pool {pool.name} exists and was not made for a Machine",
        next_step=f"Delete or rename agent pool {pool.name}, or delete the Machine so that another name is used.",
    )


def to_instance(pool: Pool) -> Instance:
    """The pool as an instance. Its node's providerID is not ARM's to know."""
    state = _STATES.get(pool.state.lower(), InstanceState.RUNNING)
    return Instance(
        name=pool.name,
        instance_type=pool.offering.instance_type,
        state=state,
        error=_failure(pool) if state is InstanceState.FAILED else None,
        owner=pool.owner,
        created_at=pool.created_at,
        stopped=pool.stopped,
        capacity_type=pool.offering.capacity_type,
    )


def _failure(pool: Pool) -> CloudError | None:
    if pool.refusal is not None:
        return classify(pool.refusal)
    if pool.state.lower() == "canceled":
        return classify(Refusal(0, "Canceled", "another operation on the cluster cancelled this one"))
    return None


def _label_time(text: str) -> datetime | None:
    try:
        return datetime.strptime(text, "%Y-%m-%dT%H-%M-%SZ").replace(tzinfo=UTC)
    except ValueError:
        return None


def _string(value: object, field: str) -> str:
    if isinstance(value, str) and value:
        return value
    raise ValueError(f"an agent pool without a {field}")


def _strings(value: Mapping[str, str] | None) -> Mapping[str, str]:
    return {str(key): str(item) for key, item in (value or {}).items()}
