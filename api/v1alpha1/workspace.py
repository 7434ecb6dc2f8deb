"""The Workspace itself: its resources, its status, and the top level that ties the halves together."""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar, Final

from pydantic import ConfigDict, Field

from api.conditions import Condition
from api.model import ApiModel, Conditions, Labels, LabelSelector, Resource, Strings, rules, same
from api.v1alpha1.inference import InferenceSpec, PresetSpec
from api.v1alpha1.tuning import TuningSpec

GROUP: Final = "kaito.sh"
VERSION: Final = "v1alpha1"
API_VERSION: Final = f"{GROUP}/{VERSION}"
KIND: Final = "Workspace"
PLURAL: Final = "workspaces"


class PartitionMode(StrEnum):
    """How a GPU is shared."""

    MIG = "mig"
    ACCELERATOR = "accelerator"


class Partition(ApiModel):
    """A part of a node's GPUs, on nodes that are brought along."""

    mode: PartitionMode = Field(
        description="mig uses a MIG slice, accelerator some of the node's GPUs. Cannot be changed."
    )
    profile: str | None = Field(
        default=None, description="The MIG profile, for example 3g.47gb; only with mode mig."
    )
    count: int | None = Field(
        default=None,
        description="How many GPUs of a node; only with mode accelerator.",
        json_schema_extra={"minimum": 1, "format": "int32"},
    )


class ResourceSpec(ApiModel):
    """Which nodes the workspace runs on."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (same("count"), "count: field is immutable: create another workspace"),
            (same("partition"), "partition: field is immutable: create another workspace"),
        )
    )

    count: int | None = Field(
        default=None,
        json_schema_extra={"minimum": 1, "format": "int32"},
        description="How many nodes. When absent, the operator plans the number from the model and the "
        "instance type. Cannot be changed after creation.",
    )
    instance_type: str | None = Field(
        default=None,
        description="The instance type of the nodes, for example Standard_NC24ads_A100_v4. When absent, "
        "nodes that match the label selector are used first, else the cheapest type that fits is chosen. "
        "Cannot be changed after creation.",
        json_schema_extra=rules(("self == oldSelf", "field is immutable: create another workspace")),
    )
    label_selector: LabelSelector = Field(
        description="Labels of the nodes to use; new nodes get these labels. Must be a plain set of "
        "labels (matchLabels, or In with one value). Cannot be changed after creation.",
        json_schema_extra=rules(("self == oldSelf", "field is immutable: create another workspace")),
    )
    preferred_nodes: Strings = Field(
        default=(), description="Names of nodes to take first, where they match the label selector."
    )
    partition: Partition | None = Field(
        default=None, description="Use a part of each node's GPUs. Only for nodes that you bring along."
    )


class Metric(ApiModel):
    """One measured figure."""

    description: str | None = Field(default=None, description="What was measured.")
    value: str | None = Field(default=None, description="The figure.")
    unit: str | None = Field(default=None, description="Its unit.")
    config: Labels = Field(default_factory=dict, description="The settings of the measurement.")


class Performance(ApiModel):
    """What the endpoint was measured to do."""

    metrics: dict[str, Metric] = Field(default_factory=dict, description="Figures by name.")


class WorkspaceState(StrEnum):
    """The workspace in one word: the first three for inference; Pending and the last three for tuning."""

    PENDING = "Pending"
    READY = "Ready"
    NOT_READY = "NotReady"
    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"


class AdapterStatus(ApiModel):
    """One adapter in one pod."""

    name: str = Field(description="The name by which a request picks it.")
    state: str = Field(description="Pulling, Loading, Loaded, Unloading or Failed, as the pod reports it.")
    message: str | None = Field(default=None, description="Why it failed, or what it waits for.")


class PodAdapters(ApiModel):
    """The adapters that one pod reports."""

    pod: str = Field(description="The pod's name.")
    state: str = Field(
        description="Loaded: it has all that is wanted. Loading, Outdated (an older list is in force) and Failed "
        "say what is missing; Unknown: it does not answer."
    )
    revision: str | None = Field(default=None, description="The revision of the list that is in force there.")
    message: str | None = Field(default=None, description="What is in the way.")
    adapters: tuple[AdapterStatus, ...] = Field(default=(), description="Each adapter that the pod has.")


class Eta(ApiModel):
    """How long it will take, where that is known from others of its kind or from bytes that were counted."""

    stage: str = Field(description="CreatingMachine, JoiningNode, PullingImage or LoadingModel.")
    seconds: int | None = Field(
        default=None,
        description="Seconds, counted from estimatedAt; absent when it takes longer than it usually does.",
        json_schema_extra={"format": "int32"},
    )
    until: str = Field(description="What is there then: Ready (the workspace), or StageEnd (the next stage).")
    basis: str = Field(description="What the estimate rests on.")
    estimated_at: str = Field(
        description="When the estimate was made; it is replaced once it is wrong by more than a fifth.",
        json_schema_extra={"format": "date-time"},
    )
    bytes_done: int | None = Field(
        default=None,
        description="Bytes of the model that were there at that time.",
        json_schema_extra={"format": "int64"},
    )
    bytes_total: int | None = Field(
        default=None, description="Bytes of the whole model.", json_schema_extra={"format": "int64"}
    )


class TuningStatus(ApiModel):
    """How far a tuning run is, as its pod said last; what is not known is absent."""

    stage: str = Field(
        description="Fetching, Loading, Training, Saving, Pushing, Succeeded or Failed, as the run says itself."
    )
    epoch: str | None = Field(default=None, description="Passes over the dataset that are done.")
    step: int | None = Field(
        default=None, description="Optimiser steps that are done.", json_schema_extra={"format": "int64"}
    )
    steps: int | None = Field(
        default=None, description="Optimiser steps of the whole run.", json_schema_extra={"format": "int64"}
    )
    loss: str | None = Field(default=None, description="Loss of the last steps.")
    eta: str | None = Field(
        default=None,
        description="When training ends, by what was seen.",
        json_schema_extra={"format": "date-time"},
    )
    image: str | None = Field(default=None, description="The image that the adapter was pushed as.")
    digest: str | None = Field(default=None, description="The digest of that image.")
    restarts: int | None = Field(
        default=None,
        description="How often the run was started again, from its last checkpoint.",
        json_schema_extra={"format": "int32"},
    )
    observed_at: str | None = Field(
        default=None,
        description="When the pod said so; the figures are renewed every 15 s at most.",
        json_schema_extra={"format": "date-time"},
    )


class WorkspaceStatus(ApiModel):
    """What the operator last saw. Derived from live objects on every reconcile."""

    worker_nodes: Strings = Field(default=(), description="Names of the nodes in use, sorted.")
    conditions: Conditions = Field(
        default=(),
        description="What is the case and why. ResourceReady: the nodes are there. InferenceReady: the "
        "endpoint answers. AdaptersReady: every pod has the adapters. WorkspaceReady: the nodes and the "
        "endpoint. Each message ends in what you can do next.",
    )
    state: WorkspaceState | None = Field(default=None, description="The workspace in one word.")
    target_node_count: int | None = Field(
        default=None, description="How many nodes the plan asks for.", json_schema_extra={"format": "int32"}
    )
    observed_generation: int | None = Field(
        default=None, description="The generation of the workspace that this status is about."
    )
    eta: Eta | None = Field(
        default=None, description="When the workspace will be ready. Absent where nobody can know it yet."
    )
    adapters: tuple[PodAdapters, ...] = Field(
        default=(), description="The adapters that each serving pod reports, by pod."
    )
    tuning: TuningStatus | None = Field(default=None, description="How far the tuning run is.")
    performance: Performance | None = Field(default=None, description="Measured figures of the endpoint.")


class Workspace(Resource):
    """A model to serve or to tune, and the nodes to do it on."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "has(self.inference) || has(self.tuning)",
                "Either Inference or Tuning must be specified, not neither",
            ),
            (
                "!(has(self.inference) && has(self.tuning))",
                "Either Inference or Tuning must be specified, but not both: use two workspaces",
            ),
            (
                "has(self.inference) == has(oldSelf.inference)",
                "Inference field cannot be toggled once set: create another workspace for that",
            ),
            (
                "has(self.tuning) == has(oldSelf.tuning)",
                "Tuning field cannot be toggled once set: create another workspace for that",
            ),
        )
    )

    KIND: ClassVar[str] = KIND
    API_VERSION: ClassVar[str] = API_VERSION

    resource: ResourceSpec = Field(description="The nodes to run on.")
    inference: InferenceSpec | None = Field(
        default=None,
        description="Serve a model. Exactly one of inference and tuning must be set; it cannot be changed "
        "into the other.",
    )
    tuning: TuningSpec | None = Field(
        default=None, description="Train a LoRA adapter. Exactly one of inference and tuning must be set."
    )
    status: WorkspaceStatus = Field(
        default_factory=WorkspaceStatus, description="What the operator last saw; written by the operator only."
    )

    @property
    def preset(self) -> PresetSpec | None:
        """The preset of whichever half is set."""
        half = self.inference or self.tuning
        return half.preset if half else None

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """``status.conditions``."""
        return self.status.conditions
