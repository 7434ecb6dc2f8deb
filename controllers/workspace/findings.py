"""What a reconcile finds out, as values, and which finding is told when there are several.

In: findings: a condition's type, its status and why. Out: the one that blocks. Pure. There is always one cause at
a time in REASON, because a list of all that is not so yet sends its reader looking for the first; the status and
``kaito explain`` ask the same :func:`blocking`. The order is from what a person must act on, over what mends
itself, to what only follows from something else.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Final

from api.conditions import INFERENCE_READY, JOB_STARTED, RESOURCE_READY, Status
from api.reasons import RUN_FAILURES, Reason
from controllers.workspace.model import Finding as Finding

GATES: Final = (
    RESOURCE_READY,
    INFERENCE_READY,
    JOB_STARTED,
)  # the conditions that together make a ready Workspace


class Turn(StrEnum):
    """Whose move it is."""

    YOU = "you"
    OPERATOR = "operator"
    CLOUD = "cloud"
    KUBERNETES = "kubernetes"
    ENGINE = "engine"


# A person's move comes first: causes before what they lead to. A reason that is in no list is a cloud's refusal.
_YOURS: Final = (
    Reason.UNKNOWN_PRESET,
    Reason.INVALID_SPEC,
    Reason.PLACEHOLDER_IN_SPEC,
    Reason.KIND_TOGGLED,
    Reason.MODEL_UNKNOWN,
    Reason.MODEL_DOES_NOT_FIT,
    Reason.NO_INSTANCE_TYPE_FITS,
    Reason.NO_NODE_MATCHES,
    Reason.NODES_MISSING,
    Reason.INSTANCE_TYPE_NEEDED,
    Reason.MACHINE_API_MISSING,
    Reason.NODECLAIM_API_MISSING,
    Reason.WORKLOAD_CONFLICT,
    Reason.CONFIG_MISSING,
    Reason.CONFIG_INVALID,
    *RUN_FAILURES,
    Reason.TUNING_JOB_FAILED,
    Reason.MACHINE_CREATION_FAILED,
    Reason.NODECLAIM_CREATION_FAILED,
    Reason.RECONCILE_FAILED,
    "",  # where the refusals of clouds stand
    Reason.NODE_MISMATCH,
    Reason.MULTIPLE_NODES_FOUND,
    Reason.GPU_NOT_VISIBLE,
    Reason.IMAGE_PULL_FAILED,
    Reason.OUT_OF_MEMORY,
    Reason.CRASH_LOOP,
    Reason.CONTAINER_START_FAILED,
    Reason.ENGINE_FAILED,
    Reason.REPLICAS_REFUSED,
)
_HEALING: Final[dict[str, Turn]] = {  # broken now; somebody else is at work on it
    Reason.MACHINE_VANISHED: Turn.CLOUD,
    Reason.DELETION_STUCK: Turn.KUBERNETES,
    "CapacityUnavailable": Turn.CLOUD,
    "Throttled": Turn.CLOUD,
    "OperationInProgress": Turn.CLOUD,
    "CloudUnavailable": Turn.CLOUD,
    "InsufficientCapacityError": Turn.CLOUD,  # Karpenter's word
    "InstanceExists": Turn.OPERATOR,
    "InstanceGone": Turn.OPERATOR,
    "NodeDeleted": Turn.OPERATOR,
    "RegistrationTimeout": Turn.OPERATOR,
    Reason.NODE_NOT_READY: Turn.KUBERNETES,
    Reason.NODE_DISK_PRESSURE: Turn.KUBERNETES,
    Reason.NODE_MEMORY_PRESSURE: Turn.KUBERNETES,
    Reason.POD_STUCK: Turn.YOU,
    Reason.POD_EVICTED: Turn.KUBERNETES,
    Reason.TUNING_RETRYING: Turn.KUBERNETES,
}
_WAITING: Final[dict[str, Turn]] = {  # only takes time
    Reason.DELETING: Turn.OPERATOR,
    Reason.LEFTOVER: Turn.KUBERNETES,
    Reason.MACHINE_DELETING: Turn.OPERATOR,
    Reason.CREATE_MACHINE_PENDING: Turn.OPERATOR,
    Reason.CREATE_NODECLAIM_PENDING: Turn.OPERATOR,
    Reason.NODECLAIM_NOT_READY: Turn.CLOUD,
    Reason.MACHINE_CREATING: Turn.CLOUD,
    "InstanceCreating": Turn.CLOUD,
    "InstanceDeleting": Turn.CLOUD,
    "Launching": Turn.CLOUD,
    "NotLaunched": Turn.CLOUD,
    "AwaitingReconciliation": Turn.OPERATOR,
    "ReconcilingDependents": Turn.KUBERNETES,
    "Draining": Turn.KUBERNETES,
    Reason.NODE_CREATING: Turn.CLOUD,
    Reason.MACHINE_NOT_LAUNCHED: Turn.CLOUD,
    Reason.MACHINE_NOT_REGISTERED: Turn.CLOUD,
    Reason.NODE_NOT_FOUND: Turn.CLOUD,
    Reason.STARTUP_TAINTS_EXIST: Turn.KUBERNETES,
    Reason.RESOURCE_NOT_REGISTERED: Turn.KUBERNETES,  # a device plugin takes minutes
    "KnownEphemeralTaintsExist": Turn.KUBERNETES,
    # What follows from nodes that are missing stands behind them, however bad it sounds.
    Reason.POD_UNSCHEDULABLE: Turn.YOU,
    Reason.ROLLING_OUT: Turn.KUBERNETES,
    Reason.POD_TERMINATING: Turn.KUBERNETES,
    Reason.MODEL_PULLING: Turn.ENGINE,
    Reason.MODEL_LOADING: Turn.ENGINE,
    Reason.CONTAINER_STARTING: Turn.ENGINE,
    Reason.JOB_REPLACING: Turn.KUBERNETES,
    Reason.TUNING_JOB_PENDING: Turn.KUBERNETES,
    Reason.TUNING_STARTING: Turn.ENGINE,
    Reason.TUNING_FETCHING: Turn.ENGINE,
    Reason.TUNING_LOADING: Turn.ENGINE,
    Reason.TUNING_TRAINING: Turn.ENGINE,
    Reason.TUNING_SAVING: Turn.ENGINE,
    Reason.TUNING_PUSHING: Turn.ENGINE,
    Reason.NODE_RELEASED: Turn.OPERATOR,
    Reason.POD_PENDING: Turn.KUBERNETES,
    Reason.WORKLOAD_PENDING: Turn.KUBERNETES,
    Reason.WAITING_FOR_RESOURCE: Turn.OPERATOR,
    Reason.ADAPTERS_LOADING: Turn.ENGINE,
    Reason.ADAPTERS_OUTDATED: Turn.ENGINE,
    Reason.ADAPTERS_UNKNOWN: Turn.KUBERNETES,
}
_RANKS: Final = {str(reason): rank for rank, reason in enumerate((*_YOURS, *_HEALING, *_WAITING))}
_PASSING: Final = frozenset(map(str, _WAITING)) - {str(Reason.POD_UNSCHEDULABLE)}


def urgency(reason: str) -> int:
    """The rank of a reason; the smallest is told."""
    return _RANKS.get(reason, _RANKS[""])


def passes(reason: str) -> bool:
    """Whether this only takes time, so that nobody has to be warned."""
    return reason in _PASSING


def turn_of(reason: str) -> Turn:
    """Who has to move for this to go on. What nobody has classified needs a person."""
    return _HEALING.get(reason) or _WAITING.get(reason) or Turn.YOU


def blocking(findings: Iterable[Finding]) -> Finding | None:
    """The finding to tell: the most urgent of those that keep the Workspace from being ready; of equals the first.

    What is no part of being ready (adapters, say) never blocks.
    """
    open_ = (item for item in findings if item.type in GATES and item.status != Status.TRUE)
    return min(open_, key=lambda item: urgency(item.why.reason), default=None)
