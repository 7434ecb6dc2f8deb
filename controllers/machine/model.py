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

from api import keys
from api.conditions import Condition, conditions_of, parse_time
from controllers.machine.kinds import MACHINE, Kind
from manager.types import Obj
from provisioner import Instance, InstanceRequest
from provisioner.errors import CloudError


@dataclass(frozen=True, slots=True)
class Limits:
    """Durations of a Machine's life, in seconds.

    Attributes:
        registration: launched, and still no node: the Machine is deleted, and made anew by whoever wants it.
        initialization: the same for a node that joined and never became usable.
        replacements: how often in a row either may happen to Machines of one name; then the last one stays and
            says so, because the next one would cost as much and come as far.
        drain: pods that have not left by then go down with their node, unless the object says otherwise.
    """

    registration: float = 900.0
    initialization: float = 900.0
    replacements: int = 3
    drain: float = 900.0


@dataclass(frozen=True, slots=True)
class Attempts:
    """How often the cloud has refused this Machine in a row, and when it is asked next.

    ``given_up``: never, because it would always refuse the Machine as it is. ``since``: the first of the row.
    """

    failed: int = 0
    next_at: datetime | None = None
    given_up: bool = False
    since: datetime | None = None


@dataclass(frozen=True, slots=True)
class Blocked:
    """A pod that was asked to leave and may not: which, and what forbids it, in the server's words."""

    pod: str  # namespace/name
    budget: str = ""  # the disruption budget, where there is one
    message: str = ""


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
        volumes: what is still attached to those nodes, once the pods have left.
        evicted: pods were asked to leave in this reconcile already.
        blocked: those of them that may not.
        replaced: how many Machines of this name were given up in a row.
        look_at: when the operation that is under way is worth the next look; None is now.
        usual: how long the creation of such an instance usually takes, in seconds.
        poll_interval: seconds between two looks at a cloud operation.
    """

    machine: Obj
    kind: Kind = MACHINE
    instance_name: str = ""
    instance: Instance | None = None
    asked: bool = False
    cloud_error: CloudError | None = None
    nodes: tuple[Obj, ...] = ()
    pods: tuple[Obj, ...] = ()
    volumes: tuple[str, ...] = ()
    evicted: bool = False
    blocked: tuple[Blocked, ...] = ()
    replaced: int = 0
    look_at: datetime | None = None
    usual: float | None = None
    attempts: Attempts = Attempts()
    poll_interval: float = 1.0
    limits: Limits = Limits()

    @property
    def name(self) -> str:
        return str(self.machine["metadata"]["name"])

    def wait(self, now: datetime) -> float | None:
        """Seconds until the cloud may be asked again; None where nothing forbids it."""
        times = [at for at in (self.attempts.next_at, self.look_at) if at is not None and at > now]
        return (max(times) - now).total_seconds() if times else None

    @property
    def deleting(self) -> bool:
        return bool(self.machine["metadata"].get("deletionTimestamp"))

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """The conditions as they stand in the status."""
        return conditions_of(self.machine)

    @property
    def created(self) -> datetime | None:
        """When the Machine was made."""
        return parse_time(self.machine["metadata"].get("creationTimestamp"))

    @property
    def operation(self) -> str:
        """Token of what the cloud is doing for this Machine, as a reconcile before kept it."""
        return str((self.machine["metadata"].get("annotations") or {}).get(keys.CLOUD_OPERATION) or "")

    @property
    def operation_started(self) -> datetime | None:
        """When that was started, or the instance's own age where nobody kept it."""
        annotations = self.machine["metadata"].get("annotations") or {}
        return parse_time(annotations.get(keys.CLOUD_OPERATION_STARTED)) or (
            self.instance.created_at if self.instance is not None else None
        )


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
class Annotate:
    """Merge annotations into the Machine."""

    annotations: Mapping[str, str | None]


@dataclass(frozen=True, slots=True)
class DeleteNode:
    """Delete the node object of an instance that is gone, and let go of it."""

    node: str
    uid: str


@dataclass(frozen=True, slots=True)
class EvictPod:
    """Ask a pod to leave, with the grace that it asks for itself; a disruption budget may forbid it."""

    namespace: str
    name: str
    uid: str


@dataclass(frozen=True, slots=True)
class DeletePod:
    """Have a pod leave within ``grace`` seconds, whatever forbids it: its node goes."""

    namespace: str
    name: str
    uid: str
    grace: int


@dataclass(frozen=True, slots=True)
class DeleteMachine:
    """Give up on a Machine that is no node, or none any more; whoever wanted it makes it anew.

    ``counts``: it never became usable, and the next one of its name may not either.
    """

    uid: str
    reason: str
    note: str
    counts: bool = True


CloudAction = CreateInstance | DeleteInstance
Action = AddFinalizer | RemoveFinalizer | PatchNode | Annotate | DeleteNode | EvictPod | DeletePod | DeleteMachine


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
