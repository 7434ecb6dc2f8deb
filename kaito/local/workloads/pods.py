"""What a pod's status means to the controllers above it.

Pure functions over pod objects (shared and read-only). "Active" is neither finished nor being deleted;
"available" is ready for at least ``minReadySeconds``.
"""

from __future__ import annotations

from datetime import datetime
from typing import cast

from manager import meta
from manager.types import Obj

from .conditions import condition, is_true
from .times import parse

name_of, namespace_of, uid_of = meta.name, meta.namespace, meta.uid
labels_of, annotations_of, is_terminating = meta.labels, meta.get_annotations, meta.is_deleting


def spec_of(obj: Obj) -> Obj:
    """The spec, or an empty one."""
    return cast(Obj, obj.get("spec") or {})


def status_of(obj: Obj) -> Obj:
    """The status, or an empty one."""
    return cast(Obj, obj.get("status") or {})


def meta_of(obj: Obj) -> Obj:
    """The metadata, or an empty one."""
    return cast(Obj, obj.get("metadata") or {})


def node_of(pod: Obj) -> str:
    """The node that the pod is bound to, or ""."""
    return str(spec_of(pod).get("nodeName") or "")


def phase_of(pod: Obj) -> str:
    """The phase; a pod that nobody has reported on is Pending."""
    return str(status_of(pod).get("phase") or "Pending")


def is_finished(pod: Obj) -> bool:
    """Whether all its containers have ended for good."""
    return phase_of(pod) in ("Succeeded", "Failed")


def is_active(pod: Obj) -> bool:
    """Whether it still counts towards what its owner wants."""
    return not is_finished(pod) and not is_terminating(pod)


def is_ready(pod: Obj) -> bool:
    """Whether its Ready condition is True."""
    return is_true(status_of(pod).get("conditions"), "Ready")


def ready_since(pod: Obj) -> datetime | None:
    """Since when it is ready; None when it is not, or does not say."""
    ready = condition(status_of(pod).get("conditions"), "Ready")
    if ready is None or ready.get("status") != "True":
        return None
    return parse(ready.get("lastTransitionTime"))


def available_in(pod: Obj, min_ready_seconds: int, now: datetime) -> float | None:
    """Seconds until the pod is available: 0 when it is, None when it is not even ready."""
    if not is_ready(pod):
        return None
    since = ready_since(pod)
    if min_ready_seconds <= 0 or since is None:
        return 0.0 if min_ready_seconds <= 0 else None
    return max(0.0, min_ready_seconds - (now - since).total_seconds())


def is_available(pod: Obj, min_ready_seconds: int, now: datetime) -> bool:
    """Whether the pod has been ready for at least ``min_ready_seconds``."""
    return available_in(pod, min_ready_seconds, now) == 0.0


def max_restarts(pod: Obj) -> int:
    """The restart count of the container that restarted most."""
    statuses = status_of(pod).get("containerStatuses") or ()
    return max((int(s.get("restartCount") or 0) for s in statuses), default=0)


def deletion_rank(pod: Obj, on_same_node: int, now: datetime) -> tuple[float, ...]:
    """Sort key: the pod that is cheapest to lose first.

    Order as the ReplicaSet controller has it: not assigned before assigned, Pending before Unknown before
    Running, not ready before ready, lower ``controller.kubernetes.io/pod-deletion-cost`` first, more
    companions on its node first, ready for a shorter time (in powers of two) first, more restarts first,
    created later (in powers of two) first.
    """
    try:
        cost = int(annotations_of(pod).get("controller.kubernetes.io/pod-deletion-cost", "0"))
    except ValueError:
        cost = 0
    since = ready_since(pod)
    created = parse(meta_of(pod).get("creationTimestamp"))
    return (
        1.0 if node_of(pod) else 0.0,
        {"Pending": 0.0, "Unknown": 1.0}.get(phase_of(pod), 2.0),
        1.0 if is_ready(pod) else 0.0,
        float(cost),
        -float(on_same_node),
        _age_power(since, now),
        -float(max_restarts(pod)),
        _age_power(created, now),
    )


def _age_power(moment: datetime | None, now: datetime) -> float:
    # Ages within the same power of two count as equal, so that a rollout does not always hit the newest pod.
    if moment is None:
        return -1.0
    return float(int(max(0.0, (now - moment).total_seconds())).bit_length())
