"""The seam between a Machine and a cloud: one Machine is one instance of the same name.

In: an :class:`InstanceRequest`, plain data made from a Machine. Out: an :class:`Instance`, what the cloud
says about it now. The cloud owns the truth; nothing is remembered here. Operations are started and never
waited for: ``create`` returns while the instance is still ``CREATING``, and whoever wants to know more XX
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from provisioner.errors import CloudError


class InstanceState(StrEnum):
    """Where an instance stands in its life."""

    CREATING = "Creating"
    RUNNING = "Running"
    DELETING = "Deleting"
    FAILED = "Failed"


@dataclass(frozen=True, slots=True)
class Taint:
    """A taint that the node must carry from its first moment."""

    key: str
    effect: str
    value: str = ""


@dataclass(frozen=True, slots=True)
class InstanceRequest:
    """What one Machine asks of a cloud.

    Attributes:
        name: name of the Machine and of the instance.
        instance_types: acceptable types in order of preference; never empty.
        labels: labels of the node.
        taints: taints of the node.
        storage_bytes: size of the system disk; 0 leaves it to the cloud.
    """

    name: str
    instance_types: tuple[str, ...]
    labels: Mapping[str, str] = field(default_factory=dict)
    taints: tuple[Taint, ...] = ()
    storage_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Instance:
    """What the cloud says about one instance.

    Attributes:
        provider_id: ``node.spec.providerID`` of its node; may be empty while ``CREATING``.
        node_name: name that its node has or will have; empty where the cloud cannot tell yet.
        error: why it is ``FAILED``.
    """

    name: str
    instance_type: str
    state: InstanceState
    provider_id: str = ""
    node_name: str = ""
    error: CloudError | None = None

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

    async def create(self, request: InstanceRequest) -> Instance:
        """Start to create; return at once. Raises ``InstanceExists`` where the name is taken."""
        ...

    async def get(self, name: str) -> Instance:
        """Look one up. Raises ``NotFound``."""
        ...

    async def list(self) -> list[Instance]:
        """Every instance that this provisioner made."""
        ...

    async def delete(self, name: str) -> None:
        """Start to delete; return at once. One that is already being deleted is no error.

        Raises ``NotFound`` when there is none, which is the state a deletion wants.
        """
        ...

    async def close(self) -> None:
        """Release connections; the provider is not used afterwards."""
        ...
