"""Emptying a node that goes: who has to leave, in which order, who may be asked and who is held back.

In: the node's pods, what the API server said to those that were asked, and the time. Out: the next requests, and
what blocks, in words. Pods leave through the eviction API, which respects disruption budgets, ordinary ones first,
the cluster's critical ones when no others are left. By the deadline every pod has had the grace that it asks for:
one that long before it is deleted whatever forbids it. Nobody waits for pods that belong to the node itself or do
not mind where it goes. Order and rules: Karpenter's terminator.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime, timedelta

from api import keys
from api.conditions import READY, find, parse_time, render_time
from controllers.machine.model import Action, Blocked, DeletePod, EvictPod, Observation, PatchNode
from manager.types import Obj

_CRITICAL = ("system-cluster-critical", "system-node-critical")
_STUCK = timedelta(minutes=1)  # past its own deletion's time: its kubelet does not answer any more
_DEFAULT_GRACE = 30


def deadline(obs: Observation) -> datetime:
    """When the node goes, empty or not."""
    deleted = (
        parse_time(obs.machine["metadata"].get("deletionTimestamp")) or datetime.fromtimestamp(0).astimezone()
    )
    return obs.kind.going_by(obs.machine) or deleted + timedelta(seconds=obs.limits.drain)


def leaving(pods: Sequence[Obj], now: datetime) -> list[Obj]:
    """The pods that have to be gone before the node is."""
    return [pod for pod in pods if _must_leave(pod, now)]


def cordon(node: Obj) -> PatchNode | None:
    """Let no pod come, and no load balancer send traffic; None when it is so."""
    meta, spec = node["metadata"], node.get("spec") or {}
    patch: Obj = {}
    taints = list(spec.get("taints") or [])
    if not any(taint.get("key") == keys.DISRUPTED_TAINT for taint in taints):
        patch["taints"] = [*taints, {"key": keys.DISRUPTED_TAINT, "effect": "NoSchedule"}]
    if not spec.get("unschedulable"):
        patch["unschedulable"] = True
    excluded = (meta.get("labels") or {}).get(keys.EXCLUDE_FROM_LB_LABEL)
    if not patch and excluded:
        return None
    # A list is replaced whole, so the patch is bound to the node as it was read.
    meta_patch: Obj = {"resourceVersion": meta["resourceVersion"]} if "resourceVersion" in meta else {}
    if not excluded:
        meta_patch["labels"] = {keys.EXCLUDE_FROM_LB_LABEL: "karpenter"}
    return PatchNode(meta["name"], {"metadata": meta_patch} | ({"spec": patch} if patch else {}))


def volumes(attachments: Sequence[Obj], nodes: Sequence[Obj], pods: Sequence[Obj]) -> tuple[str, ...]:
    """The volumes that have to be detached before these nodes go.

    None where a pod that stays with its node uses volumes: those are never detached, and which is whose is not
    told.
    """
    for pod in pods:
        ended = (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")
        uses = any("persistentVolumeClaim" in item for item in (pod.get("spec") or {}).get("volumes") or [])
        if uses and not ended:
            return ()
    names = {node["metadata"]["name"] for node in nodes}
    found = [item.get("spec") or {} for item in attachments]
    return tuple(
        sorted(
            str((spec.get("source") or {}).get("persistentVolumeName") or "an inline volume")
            for spec in found
            if spec.get("nodeName") in names
        )
    )


def requests(obs: Observation, pods: Sequence[Obj], now: datetime) -> tuple[Action, ...]:
    """What is asked of the pods now."""
    by = deadline(obs)
    actions: list[Action] = []
    turn = _turn(pods)
    for pod in pods:
        meta = pod["metadata"]
        if meta.get("deletionTimestamp"):
            continue
        left = (by - now).total_seconds()
        if left <= _grace(pod):
            actions.append(DeletePod(meta["namespace"], meta["name"], meta["uid"], max(1, int(left))))
        elif pod in turn and not obs.evicted and not _protected(pod):
            actions.append(EvictPod(meta["namespace"], meta["name"], meta["uid"]))
    return tuple(actions)


def told(obs: Observation, pods: Sequence[Obj], now: datetime) -> str:
    """Who is still there and what holds them, as the condition says it."""
    names = sorted(_name(pod) for pod in pods)
    text = f"{len(names)} pod{'s have' if len(names) > 1 else ' has'} to leave the node: {_few(names)}"
    held = [Blocked(_name(pod), "", f"it carries {_protected(pod)}") for pod in _turn(pods) if _protected(pod)]
    held += obs.blocked
    if not held:
        return text
    first = min(held, key=lambda item: item.pod)
    since = _since(obs, first.pod) or render_time(now)
    why = f"disruption budget {first.budget}: {first.message}" if first.budget else first.message
    more = f" (and {len(held) - 1} more)" if len(held) > 1 else ""
    goes = render_time(deadline(obs))
    return f"{text}. Pod {first.pod} is held since {since}, {why}{more}. The node goes at {goes}"


def _since(obs: Observation, pod: str) -> str | None:
    """Since when the status says that this pod is held: what is told once stays so."""
    ready = find(obs.conditions, READY)
    found = re.search(rf"Pod {re.escape(pod)} is held since (\S+),", ready.message) if ready is not None else None
    return found[1] if found else None


def _turn(pods: Sequence[Obj]) -> list[Obj]:
    ordinary = [pod for pod in pods if (pod.get("spec") or {}).get("priorityClassName") not in _CRITICAL]
    return ordinary or list(pods)


def _must_leave(pod: Obj, now: datetime) -> bool:
    meta, spec = pod["metadata"], pod.get("spec") or {}
    if (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
        return False
    # A DaemonSet's pod comes straight back, and a static pod belongs to its node.
    if {owner.get("kind") for owner in meta.get("ownerReferences") or []} & {"DaemonSet", "Node"}:
        return False
    if keys.MIRROR_POD in (meta.get("annotations") or {}):
        return False
    gone_at = parse_time(meta.get("deletionTimestamp"))
    if gone_at is not None and now - gone_at > _STUCK:
        return False
    return not any(_tolerates(item) for item in spec.get("tolerations") or [])


def _tolerates(toleration: Obj) -> bool:
    """Whether it is about the very taints of a node that goes: such a pod would come straight back."""
    if toleration.get("effect") not in (None, "", "NoSchedule"):
        return False
    key, operator = toleration.get("key"), toleration.get("operator") or "Equal"
    if not key:
        return operator == "Exists"
    return key in (keys.UNSCHEDULABLE_TAINT, keys.DISRUPTED_TAINT)


def _protected(pod: Obj) -> str:
    annotations = pod["metadata"].get("annotations") or {}
    return next((key for key in (keys.DO_NOT_DISRUPT, keys.DO_NOT_EVICT) if annotations.get(key) == "true"), "")


def _grace(pod: Obj) -> int:
    wanted = (pod.get("spec") or {}).get("terminationGracePeriodSeconds")
    return int(wanted) if wanted is not None else _DEFAULT_GRACE


def _name(pod: Obj) -> str:
    return f"{pod['metadata'].get('namespace')}/{pod['metadata']['name']}"


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
