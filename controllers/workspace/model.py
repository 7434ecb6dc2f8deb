"""The vocabulary of the Workspace controller: what is observed, what may be done, why something is not so.

In: objects from the cache (plain dicts, shared and read-only) with one typed view of the Workspace. Out:
frozen values that the pure decision reads and returns, and that ``act`` carries out. Nothing here does I/O.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

from api.reasons import Cause, Fact
from api.v1alpha1 import Workspace
from api.validation import DEFAULT, Switches
from manager.types import Obj, Resource


@dataclass(frozen=True, slots=True)
class Why:
    """A reason and its text, rendered once: from a ``Cause`` of ours, or copied from another object.

    ``facts`` are what the text was made of, for whoever makes a command of it; they are no part of what is told.
    """

    reason: str
    message: str
    facts: Mapping[str, Fact] = field(default_factory=dict, compare=False)

    @classmethod
    def of(cls, cause: Cause) -> Self:
        """The text of one of our own causes."""
        return cls(str(cause.reason), cause.render(), cause.facts)


@dataclass(frozen=True, slots=True)
class Failure:
    """What the API server refused during this very reconcile, and which condition it belongs to."""

    condition: str
    why: Why


@dataclass(frozen=True, slots=True)
class Observation:
    """The world as one reconcile of one Workspace sees it.

    Attributes:
        obj: the Workspace as stored.
        workspace: its typed view; None when it does not have the shape of one.
        problem: why there is no typed view.
        machines: every Machine that bears this Workspace's labels. Read live while the Workspace is being
            deleted, because what the cache has not seen yet would be left behind.
        nodes: the nodes that match the label selector.
        machine_api: the cluster serves Machines.
        registry: where preset images are.
        switches: what is admitted; the webhook's.
        failures: what could not be done in this reconcile; the status is decided anew with them.
    """

    obj: Obj
    workspace: Workspace | None = None
    problem: str = ""
    machines: tuple[Obj, ...] = ()
    nodes: tuple[Obj, ...] = ()
    deployment: Obj | None = None
    service: Obj | None = None
    pods: tuple[Obj, ...] = ()
    machine_api: bool = True
    registry: str = ""
    switches: Switches = DEFAULT
    failures: tuple[Failure, ...] = ()

    @property
    def name(self) -> str:
        return str(self.obj["metadata"]["name"])

    @property
    def namespace(self) -> str:
        return str(self.obj["metadata"]["namespace"])

    @property
    def uid(self) -> str:
        return str(self.obj["metadata"]["uid"])

    @property
    def deleting(self) -> bool:
        return bool(self.obj["metadata"].get("deletionTimestamp"))

    def owns(self, obj: Obj | None) -> bool:
        """Whether this very Workspace controls that object."""
        owners = (obj or {}).get("metadata", {}).get("ownerReferences") or []
        return any(owner.get("controller") and owner.get("uid") == self.uid for owner in owners)


@dataclass(frozen=True, slots=True)
class AddFinalizer:
    """Hold the Workspace back from vanishing before its Machines do."""


@dataclass(frozen=True, slots=True)
class RemoveFinalizer:
    """Let the Workspace go; what is left is collected by its owner references."""


@dataclass(frozen=True, slots=True)
class CreateMachine:
    """Create one Machine; that it exists already is success."""

    body: Obj


@dataclass(frozen=True, slots=True)
class DeleteMachine:
    """Ask one Machine to go."""

    name: str
    uid: str


@dataclass(frozen=True, slots=True)
class LabelNode:
    """Merge labels into a node."""

    node: str
    labels: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Apply:
    """Server-side apply one object of ours."""

    resource: Resource
    body: Obj


@dataclass(frozen=True, slots=True)
class DeleteOwned:
    """Delete one object that this Workspace controls."""

    resource: Resource
    uid: str


Action = AddFinalizer | RemoveFinalizer | CreateMachine | DeleteMachine | LabelNode | Apply | DeleteOwned


@dataclass(frozen=True, slots=True)
class Plan:
    """What one reconcile does: the actions in order, then the status."""

    actions: tuple[Action, ...]
    status: Obj
    requeue_after: float | None = None
