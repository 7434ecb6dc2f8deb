"""Why something is as it is, as a value: a ``Reason`` with facts and the next step.

A reconciler's decision makes a ``Cause``; the same value becomes the condition's reason and message, the
event's, the log line's and the CLI's, through one ``render``. So the operator, ``kubectl describe`` and
``kaito explain`` cannot disagree. Reasons are CamelCase words that users may match on: rename none.

Adding one: a member of ``Reason``, its sentence in ``_SENTENCES``, and a default next step where there is one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from string import Formatter
from typing import Final, TypeAlias

Fact: TypeAlias = str | int | float | bool


class Reason(StrEnum):
    """A condition's or event's reason. Comments name the facts that the sentence uses."""

    # -- the specification
    UNKNOWN_PRESET = "UnknownPreset"  # preset
    INVALID_SPEC = "InvalidSpec"  # problems
    PLACEHOLDER_IN_SPEC = "PlaceholderInSpec"  # field, value
    OLD_GPU = "OldGpu"  # instance_type, gpu, compute_capability, effects
    # -- nodes
    MACHINE_CREATING = "MachineCreating"  # machine, instance_type
    MACHINE_LAUNCH_FAILED = "MachineLaunchFailed"  # machine, instance_type, error (the cloud's, verbatim)
    MACHINE_NOT_REGISTERED = "MachineNotRegistered"  # machine
    MACHINE_API_MISSING = "MachineApiMissing"
    NODE_NOT_READY = "NodeNotReady"  # node, message
    GPU_NOT_VISIBLE = "GpuNotVisible"  # node, resource, wait
    # -- the workload
    WORKLOAD_PENDING = "WorkloadPending"  # ready, wanted
    WORKLOAD_CONFLICT = "WorkloadConflict"  # kind, name
    POD_PENDING = "PodPending"  # pod
    POD_UNSCHEDULABLE = "PodUnschedulable"  # pod, message
    IMAGE_PULL_FAILED = "ImagePullFailed"  # pod, image, message
    CRASH_LOOP = "CrashLoop"  # pod, restarts, exit_code, message
    OUT_OF_MEMORY = "OutOfMemory"  # pod
    CONTAINER_STARTING = "ContainerStarting"  # pod
    POD_EVICTED = "PodEvicted"  # pod, message
    WORKLOAD_READY = "WorkloadReady"  # ready
    # -- the whole
    READY = "Ready"
    WAITING_FOR_RESOURCE = "WaitingForResource"
    RECONCILE_FAILED = "ReconcileFailed"  # error
    DELETING = "Deleting"
    INSTANCE_TYPE_NEEDED = "InstanceTypeNeeded"  # labels
    KIND_TOGGLED = "InvalidToggle"  # field
    NODE_MISMATCH = "NodeMismatch"  # node, machine
    MACHINE_DELETING = "MachineDeleting"  # machine
    CONTAINER_START_FAILED = "ContainerStartFailed"  # pod, message
    REPLICAS_REFUSED = "ReplicasRefused"  # message
    MODEL_UNKNOWN = "ModelUnknown"  # preset
    MODEL_DOES_NOT_FIT = "ModelDoesNotFit"  # preset, why
    NO_INSTANCE_TYPE_FITS = "NoInstanceTypeFits"  # preset, why
    NO_NODE_MATCHES = "NoNodeMatches"  # labels
    NODES_MISSING = "NodesMissing"  # labels, ready, wanted, matching
    NODECLAIM_API_MISSING = "NodeClaimApiMissing"
    MACHINE_VANISHED = "MachineVanished"  # kind, machine, times, time
    # -- upstream's own words, which scripts of the seed's era match on
    CREATE_MACHINE_PENDING = "CreateMachinePending"  # count
    MACHINE_CREATION_FAILED = "machineFailedCreation"  # machine, error
    CREATE_NODECLAIM_PENDING = "CreateNodeClaimPending"  # count
    NODECLAIM_CREATION_FAILED = "nodeClaimFailedCreation"  # machine, error
    NODECLAIM_NOT_READY = "NodeClaimNotReady"  # machine, instance_type, state
    NODE_PLUGINS_READY = "installNodePluginsSuccess"
    RESOURCE_SUCCESS = "workspaceResourceStatusSuccess"
    INFERENCE_SUCCESS = "WorkspaceInferenceStatusSuccess"
    WORKSPACE_READY = "workspaceReady"
    WORKSPACE_SUCCEEDED = "workspaceSucceeded"
    WORKSPACE_DELETED = "workspaceDeleted"
    WORKSPACE_FAILED = "workspaceFailed"  # message
    # -- a Machine's life (specs of Karpenter name these; users of its API know them)
    NODE_LAUNCHED = "NodeLaunched"  # provider_id
    NODE_CREATING = "NodeCreating"  # instance_type
    LAUNCH_FAILED = "LaunchFailed"  # error
    MACHINE_NOT_LAUNCHED = "MachineNotLaunched"
    NODE_NOT_FOUND = "NodeNotFound"  # provider_id
    MULTIPLE_NODES_FOUND = "MultipleNodesFound"  # provider_id
    STARTUP_TAINTS_EXIST = "StartupTaintsExist"  # taints
    RESOURCE_NOT_REGISTERED = "ResourceNotRegistered"  # resource
    MACHINE_INVALID = "MachineInvalid"  # problems
    # -- what nodes, pods and the engine say of themselves
    NODE_DISK_PRESSURE = "NodeDiskPressure"  # node, message
    NODE_MEMORY_PRESSURE = "NodeMemoryPressure"  # node, message
    POD_STUCK = "PodStuckTerminating"  # pod, node, since
    POD_TERMINATING = "PodTerminating"  # pod
    ROLLING_OUT = "RollingOut"  # updated, wanted
    MODEL_PULLING = "ModelPulling"  # pod, progress
    MODEL_LOADING = "ModelLoading"  # pod, message
    ENGINE_FAILED = "EngineFailed"  # pod, message
    # -- the workload's objects, and deletion
    CONFIG_MISSING = "ConfigMissing"  # name
    CONFIG_INVALID = "ConfigInvalid"  # problems
    LEFTOVER = "LeftoverOfAnEarlierWorkspace"  # kind, name
    DELETION_STUCK = "DeletionStuck"  # what (one clause for each)
    # -- adapters
    ADAPTERS_READY = "AdaptersLoaded"  # count, pods
    ADAPTERS_LOADING = "AdaptersLoading"  # pod, adapters
    ADAPTER_FAILED = "AdapterFailed"  # pod, adapter, message
    ADAPTERS_OUTDATED = "AdaptersOutdated"  # pod, revision, wanted
    ADAPTERS_UNKNOWN = "AdaptersUnknown"  # pod, message
    # -- tuning: upstream's words for the Job
    TUNING_JOB_STARTED = "WorkspaceTuningJobStatusStarted"
    TUNING_JOB_PENDING = "WorkspaceTuningJobStatusPending"  # name
    TUNING_JOB_FAILED = "WorkspaceTuningJobStatusFailed"  # message
    # -- tuning: where a run is
    TUNING_STARTING = "TuningStarting"  # pod
    TUNING_FETCHING = "DatasetFetching"  # pod, progress
    TUNING_LOADING = "BaseModelLoading"  # pod
    TUNING_TRAINING = "Training"  # pod, progress
    TUNING_SAVING = "AdapterSaving"  # pod
    TUNING_PUSHING = "AdapterPushing"  # pod
    TUNING_RETRYING = "TuningRetrying"  # pod, exit_code, message, restarts
    JOB_REPLACING = "TuningJobReplacing"  # name
    NODE_RELEASED = "TuningNodeReleased"  # labels
    # -- tuning: why a run failed; the values of api.progress.TuneFailure, all with: message
    TUNING_CONFIG_INVALID = "TuningConfigInvalid"
    DATASET_NOT_FOUND = "DatasetNotFound"
    DATASET_REFUSED = "DatasetAddressRefused"
    DATASET_INVALID = "DatasetInvalid"
    COLUMN_MISSING = "DatasetColumnMissing"
    BASE_MODEL_NOT_FOUND = "BaseModelNotFound"
    TUNING_OUT_OF_MEMORY = "TuningOutOfMemory"
    TUNING_DISK_FULL = "TuningDiskFull"
    PUSH_DENIED = "OutputPushDenied"
    PUSH_FAILED = "OutputPushFailed"
    TRAINING_FAILED = "TrainingFailed"


RUN_FAILURES: Final = (  # a tuning program's own words: the values of api.progress.TuneFailure
    Reason.TUNING_CONFIG_INVALID,
    Reason.DATASET_NOT_FOUND,
    Reason.DATASET_REFUSED,
    Reason.DATASET_INVALID,
    Reason.COLUMN_MISSING,
    Reason.BASE_MODEL_NOT_FOUND,
    Reason.TUNING_OUT_OF_MEMORY,
    Reason.TUNING_DISK_FULL,
    Reason.PUSH_DENIED,
    Reason.PUSH_FAILED,
    Reason.TRAINING_FAILED,
)

_SENTENCES: Final[Mapping[Reason, str]] = {
    Reason.UNKNOWN_PRESET: "There is no preset named {preset!r}",
    Reason.INVALID_SPEC: "The specification cannot be used: {problems}",
    Reason.PLACEHOLDER_IN_SPEC: "{field} still holds the placeholder {value!r}",
    Reason.OLD_GPU: "{instance_type} has {gpu}, compute capability {compute_capability}: {effects}",
    Reason.MACHINE_CREATING: "Machine {machine} ({instance_type}) is being created",
    Reason.MACHINE_LAUNCH_FAILED: "Machine {machine} ({instance_type}) was refused by the cloud: {error}",
    Reason.MACHINE_NOT_REGISTERED: "Machine {machine} was launched and its node has not joined the cluster yet",
    Reason.MACHINE_API_MISSING: "The cluster does not serve machines.karpenter.sh",
    Reason.NODE_NOT_READY: "Node {node} is not Ready: {message}",
    Reason.GPU_NOT_VISIBLE: "Node {node} is Ready and offers no {resource}: {wait}",
    Reason.WORKLOAD_PENDING: "{ready} of {wanted} replicas are ready",
    Reason.WORKLOAD_CONFLICT: "A {kind} named {name} exists and belongs to something else",
    Reason.POD_PENDING: "Pod {pod} has not started yet",
    Reason.POD_UNSCHEDULABLE: "No node takes pod {pod}: {message}",
    Reason.IMAGE_PULL_FAILED: "Pod {pod} cannot pull image {image}: {message}",
    Reason.CRASH_LOOP: "Pod {pod} ended with exit code {exit_code} and was restarted {restarts} times: {message}",
    Reason.OUT_OF_MEMORY: "Pod {pod} was killed for using more memory than it may",
    Reason.CONTAINER_STARTING: "Pod {pod} runs and the model server is not ready yet",
    Reason.POD_EVICTED: "Pod {pod} was evicted: {message}",
    Reason.WORKLOAD_READY: "All {ready} replicas are ready",
    Reason.READY: "The workspace is ready",
    Reason.WAITING_FOR_RESOURCE: "The workload is created once the nodes are ready",
    Reason.RECONCILE_FAILED: "The last attempt failed: {error}",
    Reason.DELETING: "The workspace is being deleted",
    Reason.INSTANCE_TYPE_NEEDED: "No node matches {labels}, and resource.instanceType is absent",
    Reason.KIND_TOGGLED: "{field} field cannot be toggled once set",
    Reason.NODE_MISMATCH: "Node {node} of Machine {machine} does not have the workspace's labels or instance type",
    Reason.MACHINE_DELETING: "Machine {machine} is being deleted, and its replacement follows",
    Reason.CONTAINER_START_FAILED: "Pod {pod} cannot start its container: {message}",
    Reason.REPLICAS_REFUSED: "The pods could not be created: {message}",
    Reason.CREATE_MACHINE_PENDING: "creating {count} machines",
    Reason.MACHINE_CREATION_FAILED: "Machine {machine} could not be created: {error}",
    Reason.MODEL_UNKNOWN: "The catalogue does not know {preset}, so how many GPUs and nodes it needs is not known",
    Reason.MODEL_DOES_NOT_FIT: "{preset} does not fit: {why}",
    Reason.NO_INSTANCE_TYPE_FITS: "No instance type of the catalogue holds {preset}: {why}",
    Reason.NO_NODE_MATCHES: "No node matches {labels}, and none is made for this workspace",
    Reason.NODES_MISSING: "{matching} nodes match {labels}, {ready} of them can be used and {wanted} are wanted, "
    "and none is made for this workspace",
    Reason.MACHINE_VANISHED: "{kind} {machine} was made {times} times and deleted by somebody else; the next "
    "one is made at {time}",
    Reason.NODECLAIM_API_MISSING: "The cluster does not serve nodeclaims.karpenter.sh",
    Reason.CREATE_NODECLAIM_PENDING: "creating {count} node claims",
    Reason.NODECLAIM_CREATION_FAILED: "NodeClaim {machine} could not be created: {error}",
    Reason.NODECLAIM_NOT_READY: "NodeClaim {machine} ({instance_type}): {state}",
    Reason.NODE_PLUGINS_READY: "machines plugins have been installed successfully",
    Reason.RESOURCE_SUCCESS: "workspace resource is ready",
    Reason.INFERENCE_SUCCESS: "Inference has been deployed successfully",
    Reason.WORKSPACE_READY: "workspace is ready",
    Reason.WORKSPACE_SUCCEEDED: "workspace succeeds",
    Reason.WORKSPACE_DELETED: "workspace is being deleted",
    Reason.WORKSPACE_FAILED: "{message}",
    Reason.NODE_LAUNCHED: "The cloud made {provider_id}",
    Reason.NODE_CREATING: "The cloud is creating a {instance_type}",
    Reason.LAUNCH_FAILED: "{error}",
    Reason.MACHINE_NOT_LAUNCHED: "The machine is not launched yet",
    Reason.NODE_NOT_FOUND: "No node with provider ID {provider_id} has joined the cluster yet",
    Reason.MULTIPLE_NODES_FOUND: "More than one node has provider ID {provider_id}",
    Reason.STARTUP_TAINTS_EXIST: "The node still has its start-up taints: {taints}",
    Reason.RESOURCE_NOT_REGISTERED: "The node does not offer {resource} yet",
    Reason.MACHINE_INVALID: "The machine cannot be served: {problems}",
    Reason.NODE_DISK_PRESSURE: "Node {node} runs out of disk: {message}",
    Reason.NODE_MEMORY_PRESSURE: "Node {node} runs out of memory: {message}",
    Reason.POD_STUCK: "Pod {pod} should have ended at {since} and is still on node {node}",
    Reason.POD_TERMINATING: "Pod {pod} is ending",
    Reason.ROLLING_OUT: "{updated} of {wanted} replicas are of the newest revision",
    Reason.MODEL_PULLING: "Pod {pod} fetches the model: {progress}",
    Reason.MODEL_LOADING: "Pod {pod} loads the model into the engine: {message}",
    Reason.ENGINE_FAILED: "The model server in pod {pod} reports a failure: {message}",
    Reason.CONFIG_MISSING: "There is no ConfigMap {name} in the workspace's namespace",
    Reason.CONFIG_INVALID: "The engine's settings cannot be used: {problems}",
    Reason.LEFTOVER: "{kind} {name} of an earlier workspace of this name is being removed",
    Reason.DELETION_STUCK: "The workspace is held up by {what}",
    Reason.ADAPTERS_READY: "{count} adapters are loaded in {pods} pods",
    Reason.ADAPTERS_LOADING: "Pod {pod} is at work on {adapters}",
    Reason.ADAPTER_FAILED: "Pod {pod} cannot load adapter {adapter}: {message}",
    Reason.ADAPTERS_OUTDATED: "Pod {pod} serves adapters of revision {revision}, and {wanted} is wanted",
    Reason.ADAPTERS_UNKNOWN: "Pod {pod} does not tell its adapters: {message}",
    Reason.TUNING_JOB_STARTED: "Tuning job has started",
    Reason.TUNING_JOB_PENDING: "Job {name} has no pod yet",
    Reason.TUNING_JOB_FAILED: "The tuning run failed: {message}",
    Reason.TUNING_STARTING: "Pod {pod} runs and has not told yet how far it is",
    Reason.TUNING_FETCHING: "Pod {pod} fetches the dataset: {progress}",
    Reason.TUNING_LOADING: "Pod {pod} loads the base model",
    Reason.TUNING_TRAINING: "Pod {pod} trains: {progress}",
    Reason.TUNING_SAVING: "Pod {pod} saves the adapter",
    Reason.TUNING_PUSHING: "Pod {pod} pushes the adapter",
    Reason.TUNING_RETRYING: "Pod {pod} ended with exit code {exit_code} and goes on where it was (restart "
    "{restarts}): {message}",
    Reason.JOB_REPLACING: "Job {name} ran with other settings and is being removed; its successor follows",
    Reason.NODE_RELEASED: "The run is over and no node matches {labels} any more; none is made for it",
    **dict.fromkeys(RUN_FAILURES, "{message}"),
}

_NEXT_STEPS: Final[Mapping[Reason, str]] = {
    Reason.PLACEHOLDER_IN_SPEC: "Replace it with a value of yours and apply the manifest again",
    Reason.MACHINE_API_MISSING: "Install the CRDs (kubectl apply -k config/crd)",
    Reason.GPU_NOT_VISIBLE: "Check that the NVIDIA device plugin runs on the node",
    Reason.MODEL_UNKNOWN: "Create it again with resource.count and resource.instanceType, or use one of "
    "`kaito presets`",
    Reason.MODEL_DOES_NOT_FIT: "Create it again with a larger instance type or another count (`kaito plan` shows "
    "what holds it), or annotate it with kaito.sh/bypass-resource-checks to try all the same",
    Reason.NO_INSTANCE_TYPE_FITS: "Write resource.instanceType, or ask for less context",
    Reason.NODES_MISSING: "Label more nodes, or set the annotation kaito.sh/node-provisioning to auto",
    Reason.NO_NODE_MATCHES: "Label nodes that you have, or set the annotation kaito.sh/node-provisioning to auto",
    Reason.MACHINE_VANISHED: "`kubectl get events` tells what its provisioner did",
    Reason.NODECLAIM_API_MISSING: "Install Karpenter or the CRD (kubectl apply --server-side -k config/nodeclaim)",
    Reason.IMAGE_PULL_FAILED: "Check the image name and the pull secret",
    Reason.CRASH_LOOP: "`kaito logs` or `kubectl logs --previous` shows its output",
    Reason.OUT_OF_MEMORY: "Choose an instance type with more memory, or a smaller model",
    Reason.WORKLOAD_CONFLICT: "Rename the workspace or remove the other object",
    Reason.INSTANCE_TYPE_NEEDED: "Set resource.instanceType, or label nodes that you have",
    Reason.NODE_MISMATCH: "Undo the change, or delete the Machine to have a new one made",
    Reason.KIND_TOGGLED: "Give this one another name, or delete the workspace first",
    Reason.NODE_DISK_PRESSURE: "Free disk on the node, or take an instance type with a larger one",
    Reason.NODE_MEMORY_PRESSURE: "Move other pods off the node, or take an instance type with more memory",
    Reason.POD_STUCK: "Look at its node; once that is surely gone, `kubectl delete pod --force` lets go of it",
    Reason.POD_UNSCHEDULABLE: "Compare the pod's node selector, tolerations and resources with the nodes",
    Reason.REPLICAS_REFUSED: "Raise the quota that the message names, or correct the template",
    Reason.ENGINE_FAILED: "`kaito logs` shows its output",
    Reason.CONFIG_MISSING: "Create it with the key inference_config.yaml, or remove inference.config",
    Reason.CONFIG_INVALID: "Correct the ConfigMap; what runs keeps its settings until then",
    Reason.TUNING_JOB_FAILED: "`kaito logs` shows its output; `kubectl delete job` runs it again",
    Reason.TUNING_CONFIG_INVALID: "Correct the ConfigMap that tuning.config names",
    Reason.DATASET_NOT_FOUND: "Correct tuning.input",
    Reason.DATASET_REFUSED: "Name a public address, or start the operator with --allow-private-dataset-urls",
    Reason.DATASET_INVALID: "Correct the dataset, or name its file and format in the section DatasetConfig",
    Reason.COLUMN_MISSING: "Name the columns in the section DatasetConfig",
    Reason.BASE_MODEL_NOT_FOUND: "Check the preset's image, or the token in presetOptions.modelAccessSecret",
    Reason.TUNING_OUT_OF_MEMORY: "Write a smaller batch or max_length, or use method qlora or a larger node",
    Reason.TUNING_DISK_FULL: "Use an instance type with a larger disk, or a volume for the output",
    Reason.PUSH_DENIED: "Check tuning.output.imagePushSecret and what its user may push",
    Reason.PUSH_FAILED: "Check that the registry answers; `kubectl delete job` runs it again",
    Reason.TRAINING_FAILED: "`kaito logs` shows its output; `kubectl delete job` runs it again",
    Reason.ADAPTER_FAILED: "Correct the adapter's image and its pull secret; the others are served meanwhile",
}


def sentence_of(reason: Reason) -> str:
    """The sentence with its gaps, as documentation shows it."""
    return _SENTENCES[reason]


def next_step_of(reason: Reason) -> str:
    """What one usually does about it; empty where nothing is to be done."""
    return _NEXT_STEPS.get(reason, "")


class _Facts(Formatter):
    """``str.format`` that notes which facts the sentence used."""

    def __init__(self) -> None:
        self.used: set[str] = set()

    def get_value(self, key: int | str, args: object, kwargs: Mapping[str, object]) -> object:
        if not isinstance(key, str):
            raise KeyError(key)
        self.used.add(key)
        return kwargs[key]


@dataclass(frozen=True, slots=True)
class Cause:
    """A reason, the facts that make it true, and what the user can do next.

    ``facts`` may hold more than the reason's sentence names; the rest is added in brackets. ``next_step`` is a
    sentence without its full stop; empty means the reason's usual one, if it has one.
    """

    reason: Reason
    facts: Mapping[str, Fact] = field(default_factory=dict)
    next_step: str = ""

    @property
    def message(self) -> str:
        """What is the case, without the next step."""
        formatter = _Facts()
        try:
            sentence = formatter.vformat(_SENTENCES[self.reason], (), dict(self.facts))
        except KeyError:  # a fact is not known yet: better a plain sentence than none
            formatter.used.clear()
            sentence = str(self.reason)
        sentence = sentence.strip().rstrip(".")
        rest = ", ".join(f"{key}={value}" for key, value in self.facts.items() if key not in formatter.used)
        return f"{sentence} ({rest})" if rest else sentence

    def render(self) -> str:
        """The text for a condition, an event, a log line or a terminal: what is the case, then what to do."""
        step = (self.next_step or _NEXT_STEPS.get(self.reason, "")).strip().rstrip(".")
        closing = "" if step.endswith(("?", "!")) else "."
        return f"{self.message}. {step}{closing}" if step else self.message

    def __str__(self) -> str:
        return self.render()
