"""The seam between a Machine and a cloud: one Machine is one instance, whose name follows from the Machine.

In: an :class:`InstanceRequest`, plain data made from a Machine, and nodes as plain dicts. Out: an
:class:`Instance`, what the cloud says about it now. The cloud owns the truth; a provider may remember what makes
it cheaper to ask, never what exists. Operations are started and never waited for: ``create`` and ``delete``
return an operation's token, and ``resume`` or ``get`` looks at how it stands, once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Protocol

from provisioner.errors import CloudError

ON_DEMAND = "on-demand"
SPOT = "spot"


class InstanceState(StrEnum):
    """Where an instance stands in its life."""

    CREATING = "Creating"
    RUNNING = "Running"
    DELETING = "Deleting"
    FAILED = "Failed"


@dataclass(frozen=True, slots=True)
class Taint:
    """A taint that the node must carry."""

    key: str
    effect: str
    value: str = ""


@dataclass(frozen=True, slots=True)
class Owner:
    """The object that an instance is made for; a cloud that can keep it with the instance does."""

    name: str
    uid: str
    kind: str = "Machine"
    created_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class InstanceRequest:
    """What one Machine asks of a cloud.

    Attributes:
        name: name of the instance, as ``CloudProvider.instance_name`` made it.
        instance_types: acceptable types in order of preference; never empty.
        labels: labels of the node.
        taints: taints of the node, from its first moment.
        startup_taints: taints that somebody else takes off the node; a cloud that would put them back leaves
            them out, and the registration puts them on.
        storage_bytes: size of the system disk; 0 leaves it to the cloud.
        owner: whom it is for.
        zones: acceptable zones, as the cloud or as the node's zone label names them; empty leaves it to the cloud.
        capacity_types: acceptable of ``on-demand`` and ``spot``, in order of preference.
        image_family: operating system of the node; empty leaves it to the cloud.
    """

    name: str
    instance_types: tuple[str, ...]
    labels: Mapping[str, str] = field(default_factory=dict)
    taints: tuple[Taint, ...] = ()
    storage_bytes: int = 0
    owner: Owner | None = None
    startup_taints: tuple[Taint, ...] = ()
    zones: tuple[str, ...] = ()
    capacity_types: tuple[str, ...] = (ON_DEMAND,)
    image_family: str = ""


@dataclass(frozen=True, slots=True)
class Instance:
    """What the cloud says about one instance.

    Attributes:
        provider_id: ``node.spec.providerID`` of its node; empty where only the node knows it.
        node_name: name that its node has or will have; empty where the cloud cannot tell.
        error: why it is ``FAILED``.
        operation: token of the operation that was just started, for ``resume``; text of the provider's own
            making that outlives this process. Empty where there is none.
        look_again: seconds after which the cloud wants to be asked again; None leaves it to the poll interval.
        owner: whom it was made for, where the cloud keeps that.
        created_at: when the cloud began to make it.
        stopped: it exists and is switched off; a node that is missing is then no sign of a loss.
        capacity_type: ``on-demand`` or ``spot``, which cost differently.
    """

    name: str
    instance_type: str
    state: InstanceState
    provider_id: str = ""
    node_name: str = ""
    error: CloudError | None = None
    operation: str = ""
    look_again: float | None = None
    owner: Owner | None = None
    created_at: datetime | None = None
    stopped: bool = False
    capacity_type: str = ON_DEMAND

    @property
    def failure(self) -> CloudError | None:
        """Why it is ``FAILED``, also where the cloud did not say; None in any other state."""
        if self.state is not InstanceState.FAILED:
            return None
        return self.error or CloudError(f"instance {self.name} failed, and the cloud did not say why")


class CloudProvider(Protocol):
    """A cloud. Every method may raise any :class:`~provisioner.errors.CloudError` and nothing else."""

    @property
    def name(self) -> str:
        """Short name for logs and messages, for instance ``local``."""
        ...

    @property
    def poll_interval(self) -> float:
        """Seconds between two looks at an operation that is under way."""
        ...

    def instance_name(self, machine: str, uid: str, provider_id: str = "") -> str:
        """Name of the instance of one Machine: always the same, and no other object's.

        A ``provider_id`` that is known already decides, so that instances of an earlier provisioner are found.
        """
        ...

    def instance_of(self, node: Mapping[str, Any]) -> str:
        """Name of the instance that this Node object is; empty when it is none of this cloud's."""
        ...

    async def create(self, request: InstanceRequest) -> Instance:
        """Start to create; return at once. Raises ``InstanceExists`` where the name is taken, no ``NotFound``."""
        ...

    async def get(self, name: str) -> Instance:
        """Look one up. Raises ``NotFound``."""
        ...

    async def resume(self, name: str, operation: str) -> Instance:
        """Look once at an operation that ``create`` or ``delete`` started, perhaps in another process.

        The answer is that of ``get``, with the operation's own reason where it failed. A token that is no use
        any more is no error: the instance itself is then looked up. Raises ``NotFound`` after a deletion.
        """
        ...

    async def list(self) -> list[Instance]:
        """Every instance that this provisioner made."""
        ...

    async def delete(self, name: str) -> str:
        """Start to delete; return at once, with the operation's token. One that goes already is no error.

        Raises ``NotFound`` when there is none, which is the state a deletion wants.
        """
        ...

    async def close(self) -> None:
        """Release connections; the provider is not used afterwards."""
        ...
