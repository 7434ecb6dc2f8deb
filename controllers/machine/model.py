"""The vocabulary of the Machine controller: what is observed, what may be done, what a phase concludes.

In: objects from the cache (plain dicts, shared and read-only) and what the cloud said. Out: frozen values
that the pure phases read and return, and that ``act`` carries out. Nothing here does I/O, and no phase may
reach past these values to a clock, a cloud or the cache.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from api.conditions import Condition, conditions_of
from manager.types import Obj
from provisioner import Instance, InstanceRequest
from provisioner.errors import CloudError


@dataclass(frozen=True, slots=True)
class Limits:
    """Durations of a Machine's life, in seconds."""

    registration: float = 900.0  # launched, and still no node: the Machine is deleted
    drain: float = 120.0  # pods that have not left by then go down with their node


@dataclass(frozen=True, slots=True)
class Attempts:
    """How often the cloud has refused this Machine in a row, and when it is asked next.

    ``given_up``: never, because it would always refuse the Machine as it is.
    """

    failed: int = 0
    next_at: datetime | None = None
    given_up: bool = False


@dataclass(frozen=True, slots=True)
class Observation:
    """The world as one reconcile of one Machine sees it.

    Attributes:
        instance_name: what its instance is called, whether there is one or not.
        instance: what the cloud says; None when there is none, or when nobody asked.
        asked: the cloud was asked and answered.
        cloud_error: its refusal, when the last call ended in one.
        nodes: the nodes that are the Machine's instance.
        pods: pods bound to those nodes; looked up only while the Machine is being deleted.
        poll_interval: seconds between two looks at a cloud operation.
    """

    machine: Obj
    instance_name: str = ""
    instance: Instance | None = None
    asked: bool = False
    cloud_error: CloudError | None = None
    nodes: tuple[Obj, ...] = ()
    pods: tuple[Obj, ...] = ()
    attempts: Attempts = Attempts()
    poll_interval: float = 1.0
    limits: Limits = Limits()

    @property
    def name(self) -> str:
        return str(self.machine["metadata"]["name"])

    @property
    def deleting(self) -> bool:
        return bool(self.machine["metadata"].get("deletionTimestamp"))

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """The conditions as they stand in the status."""
        return conditions_of(self.machine)


@dataclass(frozen=True, slots=True)
class AddFinalizer:
    """Hold the Machine back from vanishing before its instance does."""


@dataclass(frozen=True, slots=True)
class RemoveFinalizer:
    """Let the Machine go; nothing of it is left."""


@dataclass(frozen=True, slots=True)
class CreateInstance:
    """Ask the cloud to start a creation."""

    request: InstanceRequest


@dataclass(frozen=True, slots=True)
class DeleteInstance:
    """Ask the cloud to start a deletion."""


@dataclass(frozen=True, slots=True)
class PatchNode:
    """Merge ``patch`` into a node; it carries the resourceVersion that was read."""

    node: str
    patch: Obj


@dataclass(frozen=True, slots=True)
class DeleteNode:
    """Delete the node object of an instance that is gone."""

    node: str
    uid: str


@dataclass(frozen=True, slots=True)
class DeletePod:
    """Ask a pod to leave, with the grace that it asks for itself."""

    namespace: str
    name: str
    uid: str


@dataclass(frozen=True, slots=True)
class DeleteMachine:
    """Give up on a Machine that cannot become a node; whoever wanted it makes it anew."""

    uid: str


CloudAction = CreateInstance | DeleteInstance
Action = AddFinalizer | RemoveFinalizer | PatchNode | DeleteNode | DeletePod | DeleteMachine


@dataclass(frozen=True, slots=True)
class Mark:
    """One condition as a phase wants it; times are added when it is merged into the status."""

    type: str
    status: str
    reason: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True)
class Phase:
    """What one phase concludes."""

    marks: tuple[Mark, ...] = ()
    actions: tuple[Action, ...] = ()
    cloud: CloudAction | None = None
    requeue_after: float | None = None
    status: Mapping[str, Any] | None = None  # further status fields


@dataclass(frozen=True, slots=True)
class Plan:
    """What one reconcile does: at most one call of the cloud, then the actions, then the status."""

    actions: tuple[Action, ...]
    cloud: CloudAction | None
    status: Obj
    requeue_after: float | None = None
