"""How pods are replaced: new beside old where a GPU is free for it, else one after the other, groups at once.

In: nodes, pods and what one pod needs. Out: a Deployment's strategy, or the pods of a group to let go. Pure. Old
pods serve until the new ones are ready wherever there is room. The answer does not change because of the
roll-out's own pods, or the room that the new pod takes would count as gone, and the old pod would be taken down.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from controllers.nodes import readiness
from controllers.workspace.gpus import allocatable, gpus_requested
from controllers.workspace.pods import is_leaving, is_ready, started_at, true_since
from controllers.workspace.rollout import replicas
from manager.types import Obj

_BESIDE: Obj = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
_AFTER: Obj = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}}
_REVISION = "controller-revision-hash"  # the label by which a StatefulSet's pods show their revision


def strategy(nodes: Sequence[Obj], own: Sequence[Obj], taken: Mapping[str, int], pod: Obj, count: int) -> Obj:
    """The strategy of a Deployment of ``count`` pods with this spec.

    ``nodes``: all that match the Workspace's labels; ``own``: its pods; ``taken``: GPUs of pods that are not the
    Workspace's, by node.
    """
    return _BESIDE if has_room(nodes, own, taken, pod, count) else _AFTER


def kept_strategy(stored: Obj) -> Obj | None:
    """The strategy of a Deployment that replaces nothing now: only the next roll-out has to choose one.

    Which GPUs are free changes with the pods of others, and an object that is written because a neighbour came is
    never at rest. None: a roll-out is under way, or somebody else has written another strategy.
    """
    status, wanted = stored.get("status") or {}, replicas(stored)
    seen = (status.get("observedGeneration") or 0) >= (stored["metadata"].get("generation") or 0)
    if not seen or not (status.get("updatedReplicas") or 0) == (status.get("replicas") or 0) == wanted:
        return None
    found: Obj = (stored.get("spec") or {}).get("strategy") or {}
    return found if found in (_BESIDE, _AFTER) else None


def has_room(nodes: Sequence[Obj], own: Sequence[Obj], taken: Mapping[str, int], pod: Obj, count: int) -> bool:
    """Whether one pod more than ``count`` fits on the nodes."""
    if any(map(_found_no_room, own)):
        return False  # the scheduler knows of more than GPUs
    usable = [node for node in nodes if readiness(node)[0] and not (node.get("spec") or {}).get("unschedulable")]
    wanted = gpus_requested(pod)
    if wanted == 0:
        return bool(usable)
    free = [allocatable(node) - taken.get(str(node["metadata"]["name"]), 0) for node in usable]
    return sum(max(amount, 0) // wanted for amount in free) > count


def stale_members(statefulset: Obj, pods: Iterable[Obj]) -> tuple[Obj, ...]:
    """Pods of a group whose revision is not the newest; all of them go at once.

    One model spans the group: a member of another revision serves nobody, and replacing members one by one would
    wait for a readiness that half a group cannot reach.
    """
    status = statefulset.get("status") or {}
    newest = status.get("updateRevision")
    if not newest or (status.get("observedGeneration") or 0) < (statefulset["metadata"].get("generation") or 0):
        return ()
    return tuple(
        pod
        for pod in _members(statefulset, pods)
        if (pod["metadata"].get("labels") or {}).get(_REVISION) not in (newest, None)
    )


def torn_members(statefulset: Obj, pods: Iterable[Obj]) -> tuple[tuple[Obj, ...], str]:
    """The pods of a group in which one started anew after another was ready; and which one did.

    The parts of a model meet once, when they start. One that comes later is waited for by nobody, and those that
    had met wait for a process that is gone, ready as they look: only all together can begin again (LeaderWorkerSet
    calls it RecreateGroupOnPodRestart). A group that was never ready is not torn: its members restart by
    themselves.
    """
    members = _members(statefulset, pods)
    met = [since for pod in members if (since := true_since(pod, "Ready"))]
    for pod in members:
        began = None if is_ready(pod) else started_at(pod)
        if began is not None and any(since < began for since in met):
            return tuple(members), str(pod["metadata"]["name"])
    return (), ""


def _members(statefulset: Obj, pods: Iterable[Obj]) -> list[Obj]:
    uid = statefulset["metadata"]["uid"]
    return [
        pod
        for pod in pods
        if any(item.get("uid") == uid for item in pod["metadata"].get("ownerReferences") or [])
        and not is_leaving(pod)
    ]


def _found_no_room(pod: Obj) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or []
    return not pod["metadata"].get("deletionTimestamp") and any(
        item.get("type") == "PodScheduled" and item.get("reason") == "Unschedulable" for item in conditions
    )
