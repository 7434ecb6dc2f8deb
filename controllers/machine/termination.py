"""The way out: the node is emptied, the instance goes, the node object goes, then the Machine.

In: a Machine that is being deleted, its instance, node and pods. Out: the next step only. Anything that is
absent counts as done, so that the way out can be entered anywhere, any number of times. The finalizer falls
last: as long as the Machine is there, its instance is known to someone.
"""

from __future__ import annotations

from datetime import datetime

from api.conditions import READY
from controllers.machine.model import (
    DeleteInstance,
    DeleteNode,
    DeletePod,
    Mark,
    Observation,
    PatchNode,
    Phase,
    RemoveFinalizer,
)
from manager.types import Obj
from provisioner import InstanceState


def termination(obs: Observation, now: datetime) -> Phase:
    """One step towards nothing being left."""
    if obs.cloud_error is not None:
        error = obs.cloud_error
        delay = max(0.0, (obs.attempts.next_at - now).total_seconds()) if obs.attempts.next_at else 0.0
        mark = _not_ready(error.reason, f"the instance cannot be deleted: {error.message}. {error.next_step}")
        return Phase(marks=(mark,), requeue_after=delay or obs.poll_interval)
    if not obs.asked:
        wait = (obs.attempts.next_at - now).total_seconds() if obs.attempts.next_at else obs.poll_interval
        return Phase(requeue_after=max(wait, 0.0) or obs.poll_interval)
    # A pod that runs somewhere is drained; one whose machine is gone cannot be, and goes with its node.
    running = obs.instance is not None and obs.instance.state is not InstanceState.DELETING
    if running and (drain := _drain(obs, now)):
        return drain
    if obs.instance is not None:
        mark = _not_ready("InstanceDeleting", f"the cloud is deleting instance {obs.instance.name}")
        return Phase(
            marks=(mark,),
            cloud=DeleteInstance() if running else None,
            requeue_after=obs.poll_interval,
        )
    nodes = tuple(DeleteNode(node["metadata"]["name"], node["metadata"]["uid"]) for node in obs.nodes)
    return Phase(actions=(*nodes, RemoveFinalizer()))


def _drain(obs: Observation, now: datetime) -> Phase | None:
    """Keep the instance alive while pods leave it; None when it may go."""
    since = datetime.fromisoformat(obs.machine["metadata"]["deletionTimestamp"])
    left = obs.limits.drain - (now - since).total_seconds()
    pods = [pod for pod in obs.pods if _must_leave(pod)]
    if not pods or left <= 0:
        return None
    cordon = tuple(
        PatchNode(node["metadata"]["name"], {"spec": {"unschedulable": True}})
        for node in obs.nodes
        if not (node.get("spec") or {}).get("unschedulable")
    )
    asked = tuple(
        DeletePod(pod["metadata"]["namespace"], pod["metadata"]["name"], pod["metadata"]["uid"])
        for pod in pods
        if not pod["metadata"].get("deletionTimestamp")
    )
    mark = _not_ready("Draining", f"{len(pods)} pods have to leave the node")
    return Phase(marks=(mark,), actions=(*cordon, *asked), requeue_after=min(left, obs.poll_interval))


def _must_leave(pod: Obj) -> bool:
    if (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
        return False
    # A DaemonSet's pod comes straight back, and a static pod belongs to its node.
    owners = {owner.get("kind") for owner in pod["metadata"].get("ownerReferences") or []}
    return not owners & {"DaemonSet", "Node"}


def _not_ready(reason: str, message: str) -> Mark:
    return Mark(READY, "False", reason, message)
