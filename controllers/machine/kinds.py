"""The two kinds that ask for a node, and in what they differ; everything else is the same code.

In: objects as plain dicts. Out: what their conditions are called and how these change, which objects are ours,
how long they may take to go. A Machine is Karpenter's v1alpha5, a NodeClaim its v1: the same wish, renamed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta

from api import conditions, keys
from controllers.resources import MACHINES, NODECLAIMS
from manager.types import Obj, Resource

_PART = re.compile(r"(\d+)([smh])")
_SECONDS = {"s": 1, "m": 60, "h": 3600}


@dataclass(frozen=True, slots=True)
class Kind:
    """One of the two.

    Attributes:
        launched, registered, initialized: types of the three conditions that make it Ready, in order of events.
        knative: its conditions change by knative's rules; otherwise by metav1's, each with the generation seen.
        pending: status of a condition that is merely not reached yet.
        not_launched: reason of what waits for the launch.
        pool_label: which label names the pool that it counts for in metrics.
    """

    resource: Resource
    launched: str
    registered: str
    initialized: str
    knative: bool
    pending: conditions.Status
    not_launched: str
    pool_label: str

    @property
    def name(self) -> str:
        return self.resource.kind

    @property
    def dependents(self) -> tuple[str, str, str]:
        """What Ready is made of."""
        return self.launched, self.registered, self.initialized

    def serves(self, obj: Obj) -> bool:
        """Whether this object is one of ours: others of the same API belong to another provisioner."""
        labels = obj["metadata"].get("labels") or {}
        if keys.WORKSPACE_LABEL in labels or keys.RAGENGINE_LABEL in labels:
            return True
        if self.knative:
            return False
        reference = (obj.get("spec") or {}).get("nodeClassRef") or {}
        return (reference.get("group"), reference.get("kind")) == (keys.KAITO_GROUP, keys.NODE_CLASS_KIND)

    def going_by(self, obj: Obj) -> datetime | None:
        """When a deleted object's pods must have gone by its author's wish; None where that is left to us."""
        annotations = obj["metadata"].get("annotations") or {}
        if stamped := conditions.parse_time(annotations.get(keys.NODECLAIM_TERMINATION_TIMESTAMP)):
            return stamped
        wanted = seconds((obj.get("spec") or {}).get("terminationGracePeriod"))
        deleted = conditions.parse_time(obj["metadata"].get("deletionTimestamp"))
        return None if wanted is None or deleted is None else deleted + timedelta(seconds=wanted)


def seconds(duration: object) -> float | None:
    """A duration such as ``1h30m`` in seconds; None when there is none or it cannot be read."""
    parts = _PART.findall(duration) if isinstance(duration, str) else []
    return float(sum(int(count) * _SECONDS[unit] for count, unit in parts)) if parts else None


MACHINE = Kind(
    MACHINES,
    conditions.MACHINE_LAUNCHED,
    conditions.MACHINE_REGISTERED,
    conditions.MACHINE_INITIALIZED,
    knative=True,
    pending=conditions.Status.FALSE,
    not_launched="MachineNotLaunched",
    pool_label=keys.PROVISIONER_NAME_LABEL,
)
NODECLAIM = Kind(
    NODECLAIMS,
    conditions.NODECLAIM_LAUNCHED,
    conditions.NODECLAIM_REGISTERED,
    conditions.NODECLAIM_INITIALIZED,
    knative=False,
    pending=conditions.Status.UNKNOWN,
    not_launched="NotLaunched",
    pool_label=keys.NODEPOOL_LABEL,
)
KINDS = (MACHINE, NODECLAIM)
