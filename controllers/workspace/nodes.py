"""Which nodes a Workspace uses, and how many are missing.

In: the nodes that match its labels and its Machines. Out: the chosen nodes in order of preference, what is on its
way, and the names of the Machines to create. Pure. There are never more Machines than wanted nodes: names are made
from an index below the count, so that a decision taken twice, or taken on a stale cache, asks for the same object.
A Machine that turns out to be one too many, because a node appeared elsewhere, is left alone: it may serve.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from api import keys
from controllers.workspace.candidates import fits, is_ready, preference, provisioning, returns_by
from controllers.workspace.gpus import gpus_requested
from controllers.workspace.made import instance_type, is_leaving, machine_name, node_name
from controllers.workspace.model import Observation
from controllers.workspace.target import Target
from manager.types import Obj


@dataclass(frozen=True, slots=True)
class Selection:
    """The nodes of a Workspace.

    Attributes:
        nodes: chosen and ready, at most ``count``.
        pending: Machines of this Workspace that stand for none of the chosen nodes.
        create: names of the Machines to create.
        awaited: nodes that match, are not Ready, and are expected back in a moment.
        paused: names of missing Machines that were made before, went, and are not to be made again yet.
    """

    nodes: tuple[Obj, ...]
    pending: tuple[Obj, ...]
    create: tuple[str, ...]
    awaited: tuple[Obj, ...] = ()
    paused: tuple[str, ...] = ()


def select(obs: Observation, target: Target, now: datetime) -> Selection:
    """Choose nodes that exist first; ask for Machines only for what is missing then."""
    workspace = target.workspace
    found = [node for node in obs.nodes if _qualifies(node, obs, target)]
    usable = sorted(filter(is_ready, found), key=lambda node: preference(node, workspace))
    chosen = tuple(usable[: target.count])
    names = {node["metadata"]["name"] for node in chosen}
    own = tuple(machine_name(obs.namespace, obs.name, obs.uid, index) for index in range(target.count))
    pending = tuple(
        machine for machine in obs.machines if node_name(machine) not in names and _counts(machine, target, own)
    )
    back = {node_name(machine) for machine in pending}
    missing = target.count - len(chosen) - len(pending)
    awaited = tuple(
        node for node in found if node["metadata"]["name"] not in back and returns_by(node, obs, now) is not None
    )[: max(0, missing)]
    missing -= len(awaited)
    if missing <= 0 or not target.instance_type or provisioning(obs, workspace) == keys.PROVISION_NEVER:
        return Selection(chosen, pending, (), awaited)
    taken = {machine["metadata"]["name"] for machine in obs.machines}
    free = [name for name in own if name not in taken]
    paused = tuple(name for name in free if name in obs.pauses and now < obs.pauses[name].until)
    create = tuple(name for name in free if name not in paused)[:missing]
    return Selection(chosen, pending, create, awaited, paused[: missing - len(create)])


def _qualifies(node: Obj, obs: Observation, target: Target) -> bool:
    if target.only is not None and node["metadata"]["name"] not in target.only:
        return False
    asked = target.gpus or gpus_requested((target.template or {}).get("spec") or {})
    return fits(node, obs, target.workspace, target.instance_type, asked)


def _counts(machine: Obj, target: Target, own: tuple[str, ...]) -> bool:
    """Whether a Machine that has no chosen node is one of those that are wanted.

    A namesake that was deleted may have left Machines under the same labels. One that is leaving, or of another
    type, will never be a node of this Workspace; it goes with the namesake, or with this Workspace.
    """
    if machine["metadata"]["name"] in own:
        return True
    return not is_leaving(machine) and instance_type(machine) == target.instance_type
