"""The GPUs of nodes: what a node has, whether it shows them, and until when they are waited for.

In: Node objects, the time. Out: facts and reasons. Pure. A node says what it has by the labels of NVIDIA's
feature discovery, else by its instance type, else by what the device plugin registered, and then nothing is
known of the GPUs' memory. A node that is Ready and shows no GPUs lacks its device plugin: that takes a minute
on a new node, and after the deadline somebody has to look.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from api import catalog, keys
from api.conditions import parse_time, render_time
from api.errors import InvalidQuantity
from api.quantity import parse
from api.reasons import Cause, Reason
from api.sizing import GpuFacts
from controllers.nodes import offers
from controllers.workspace.model import Observation, Why
from manager.types import Obj


def gpus_of(node: Obj, in_use: int = 0) -> GpuFacts | None:
    """The GPUs of a node; memory 0 where it is not known, None where the node has none.

    ``in_use``: what pods that exist ask for. A GPU that drops out for a moment must not lay their model out anew.
    """
    name, labels = node["metadata"]["name"], node["metadata"].get("labels") or {}
    visible = allocatable(node)
    kind = str(labels.get(keys.INSTANCE_TYPE_LABEL) or "")
    known = catalog.sku(kind) if kind else None
    found = GpuFacts.of_labels(kind or name, labels)
    if found is None and known is not None and known.gpus:
        found = GpuFacts.of(known)
    if found is None:
        count = max(in_use, visible)
        return GpuFacts(kind or name, in_use or count, 0) if count else None
    if 0 < in_use <= found.count:
        return replace(found, count=in_use)
    # Some may be broken, or cut up for others: what pods can have is what counts.
    return replace(found, count=min(found.count, visible)) if visible else found


def allocatable(node: Obj) -> int:
    """Whole GPUs that pods may have, in use or not."""
    status = node.get("status") or {}
    amount = (status.get("allocatable") or status.get("capacity") or {}).get(keys.GPU_RESOURCE, "0")
    try:
        return int(parse(amount))
    except InvalidQuantity:
        return 0


def ready_since(node: Obj) -> datetime | None:
    """When the node's health last changed; None where it does not say."""
    for condition in (node.get("status") or {}).get("conditions") or []:
        if condition.get("type") == "Ready":
            return parse_time(condition.get("lastTransitionTime"))
    return None


def gpu_deadline(node: Obj, obs: Observation) -> datetime | None:
    """Until when a Ready node without GPUs is waited for; None for a node that shows them or does not say when."""
    if offers(node, keys.GPU_RESOURCE):
        return None
    since = ready_since(node)
    return since + timedelta(seconds=obs.rules.gpu_deadline) if since else None


def unplugged(node: Obj, obs: Observation, now: datetime) -> Why | None:
    """Why a chosen node cannot give GPUs yet; None when it can.

    The times are absolute, so that the text changes when the deadline passes and not before.
    """
    if offers(node, keys.GPU_RESOURCE):
        return None
    deadline = gpu_deadline(node, obs)
    if deadline is None:
        wait = "its NVIDIA device plugin has not reported any"
    elif now < deadline:
        wait = f"its NVIDIA device plugin has {obs.rules.gpu_deadline:g} s for that, until {render_time(deadline)}"
    else:
        limit = f"{obs.rules.gpu_deadline:g} s"
        wait = f"its NVIDIA device plugin has not reported any within {limit}, by {render_time(deadline)}"
    facts = {"node": node["metadata"]["name"], "resource": keys.GPU_RESOURCE, "wait": wait}
    return Why.of(Cause(Reason.GPU_NOT_VISIBLE, facts))


def gpus_requested(pod_spec: Obj) -> int:
    """GPUs that a pod asks for, over its containers."""
    total = 0
    for container in pod_spec.get("containers") or []:
        resources = container.get("resources") or {}
        amount = (resources.get("limits") or resources.get("requests") or {}).get(keys.GPU_RESOURCE, "0")
        try:
            total += int(parse(amount))
        except InvalidQuantity:
            continue
    return total
