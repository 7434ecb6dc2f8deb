"""The vocabulary of the Workspace controller: what is observed, what may be done, why something is not so.

In: objects from the cache (plain dicts, shared and read-only) with one typed view of the Workspace. Out: frozen
values that the pure decision reads and returns, and that ``act`` carries out. Nothing here does I/O.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Final, Self, TypeAlias

from api.adapters import ObservedAdapters
from api.progress import LoadProgress, TuneProgress
from api.reasons import Cause, Fact
from api.v1alpha1 import Workspace
from api.validation import DEFAULT, Switches
from controllers.workspace.children import Children, Whose, whose
from controllers.workspace.nodeapi import MACHINE_API, NodeApi
from manager.types import Obj, Resource


class Stage(StrEnum):
    """The parts of a Workspace's way to its first answer, in order."""

    MACHINE = "CreatingMachine"  # until the cloud runs the instance
    NODE = "JoiningNode"  # until its node can take work
    IMAGE = "PullingImage"  # from the pod's place on a node to its process
    MODEL = "LoadingModel"  # until the server answers; the model's files included


@dataclass(frozen=True, slots=True)
class Usual:
    """What a stage takes: the median of ``samples`` that were seen."""

    seconds: float
    samples: int


Past: TypeAlias = Mapping[Stage, Usual]


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
class Finding:
    """One condition without its times."""

    type: str
    status: str
    why: Why


@dataclass(frozen=True, slots=True)
class Failure:
    """What the API server refused during this very reconcile, and which condition it belongs to."""

    condition: str
    why: Why


@dataclass(frozen=True, slots=True)
class NodeRules:
    """How long nodes are waited for, in seconds.

    Attributes:
        gpu_deadline: a Ready node may take so long to show its GPUs.
        node_grace: a node that matches and is not Ready is waited for so long before one is made in its place.
    """

    gpu_deadline: float = 300.0
    node_grace: float = 300.0


DEFAULT_RULES: Final = NodeRules()


@dataclass(frozen=True, slots=True)
class Pause:
    """A Machine or NodeClaim that was made ``times`` and is not made again before ``until``."""

    times: int
    until: datetime


@dataclass(frozen=True, slots=True)
class Claim:
    """That a Workspace ("namespace/name") says it uses a node. ``created`` is the Workspace's own time."""

    workspace: str
    created: str


@dataclass(frozen=True, slots=True)
class NodeUse:
    """Who uses a node.

    Attributes:
        claims: the Workspaces whose status names it.
        gpus: GPUs that its living pods ask for, by Workspace; "" stands for pods of no Workspace.
    """

    claims: tuple[Claim, ...] = ()
    gpus: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PodReport:
    """A pod's own word, as last heard. ``failed`` says why there is none; then the rest is empty.

    ``tune`` is the progress of a pod that tunes, ``progress`` of one that serves.
    """

    progress: LoadProgress | None = None
    tune: TuneProgress | None = None
    adapters: ObservedAdapters | None = None
    failed: str = ""


@dataclass(frozen=True, slots=True)
class Observation:
    """The world as one reconcile of one Workspace sees it.

    Attributes:
        obj: the Workspace as stored.
        workspace: its typed view; None when it does not have the shape of one.
        problem: why there is no typed view.
        machines: every Machine (or NodeClaim) that bears this Workspace's labels. Read live while the Workspace is
            being deleted, because what the cache has not seen yet would be left behind.
        nodes: the nodes that match the label selector.
        context: tokens that one request must be able to have, where the Workspace's own configuration says so.
        use: who uses the nodes that match, by the node's name.
        machine_api: the cluster serves the kind that ``node_api`` names.
        node_api: what is created for a missing node.
        rules: how long nodes are waited for.
        pauses: by name, when a Machine that went may be made again.
        registry: where preset images are.
        switches: what is admitted; the webhook's.
        failures: what could not be done in this reconcile; the status is decided anew with them.
        reports: what the pods said of themselves, by pod name; a pod that was not asked yet is absent.
        past: how long others of this kind took, by stage.
        children: the objects of this Workspace beside its Deployment and Service.
    """

    obj: Obj
    workspace: Workspace | None = None
    problem: str = ""
    machines: tuple[Obj, ...] = ()
    nodes: tuple[Obj, ...] = ()
    deployment: Obj | None = None
    service: Obj | None = None
    pods: tuple[Obj, ...] = ()
    context: int | None = None
    use: Mapping[str, NodeUse] = field(default_factory=dict)
    machine_api: bool = True
    node_api: NodeApi = MACHINE_API
    rules: NodeRules = DEFAULT_RULES
    pauses: Mapping[str, Pause] = field(default_factory=dict)
    registry: str = ""
    switches: Switches = DEFAULT
    failures: tuple[Failure, ...] = ()
    reports: Mapping[str, PodReport] = field(default_factory=dict)
    past: Past = field(default_factory=dict)
    children: Children = field(default_factory=Children)

    @property
    def workload(self) -> Obj | None:
        """The Deployment or StatefulSet that this Workspace controls; None where it has none yet."""
        return next((obj for obj in (self.children.statefulset, self.deployment) if self.owns(obj)), None)

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

    @property
    def deployed(self) -> bool:
        """Whether its workload or its Job exists, so that what it was made for must not be thought over."""
        return self.workload is not None or self.owns(self.children.job)

    def owns(self, obj: Obj | None) -> bool:
        """Whether this very Workspace controls that object."""
        return whose(self.name, self.uid, obj) is Whose.OURS


@dataclass(frozen=True, slots=True)
class AddFinalizer:
    """Hold the Workspace back from vanishing before its Machines do."""


@dataclass(frozen=True, slots=True)
class RemoveFinalizer:
    """Let the Workspace go; what is left is collected by its owner references."""


@dataclass(frozen=True, slots=True)
class CreateMachine:
    """Create one Machine or NodeClaim; that it exists already is success."""

    body: Obj


@dataclass(frozen=True, slots=True)
class DeleteMachine:
    """Ask one Machine or NodeClaim to go."""

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
class CreateOnce:
    """Create one object of the Workspace's namespace; that it exists already is success, whatever is in it."""

    resource: Resource
    body: Obj


@dataclass(frozen=True, slots=True)
class Merge:
    """Merge-patch one object of ours."""

    resource: Resource
    name: str
    body: Obj


@dataclass(frozen=True, slots=True)
class DeleteOwned:
    """Delete one object that this Workspace, or an earlier one of its name, controls.

    ``name``: when empty the Workspace's. ``why``: what an event tells of it; empty: the deletion needs no word.
    """

    resource: Resource
    uid: str
    name: str = ""
    why: str = ""


@dataclass(frozen=True, slots=True)
class Annotate:
    """Merge annotations into the Workspace or into an object of its namespace, and change nothing else."""

    resource: Resource
    name: str
    annotations: tuple[tuple[str, str], ...]


Action = (
    AddFinalizer
    | RemoveFinalizer
    | CreateMachine
    | DeleteMachine
    | LabelNode
    | Apply
    | CreateOnce
    | Merge
    | DeleteOwned
    | Annotate
)


@dataclass(frozen=True, slots=True)
class Plan:
    """What one reconcile does: the actions in order, then the status.

    ``outdated``: this operator would make other pods than those that run, and nobody has asked for that yet.
    ``ask``: pods whose own word is wanted. ``findings``: what the status was made of, for whoever explains it.
    """

    actions: tuple[Action, ...]
    status: Obj
    requeue_after: float | None = None
    outdated: bool = False
    ask: tuple[Obj, ...] = ()
    findings: tuple[Finding, ...] = ()
