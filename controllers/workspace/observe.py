"""The world around one Workspace, gathered from the cache.

In: a Workspace and the stores. Out: an :class:`Observation`. Everything comes from the cache except the Machines
of a Workspace that is being deleted: these are listed live, because a Machine that was created a moment ago and is
not in the cache yet would be left behind when the finalizer falls.
"""

from __future__ import annotations

from dataclasses import dataclass

from api.errors import InvalidSpec
from api.v1alpha1 import Workspace
from api.validation import DEFAULT, Switches
from controllers.resources import MACHINES
from controllers.workspace.model import Observation
from controllers.workspace.observe_children import BY_WORKSPACE as BY_WORKSPACE
from controllers.workspace.observe_children import ChildStores, observe_children
from controllers.workspace.target import owner_labels, selector_labels
from manager.client import Client
from manager.errors import NotFound
from manager.selectors import selector_from
from manager.store import Store
from manager.types import Obj


@dataclass(frozen=True, slots=True)
class Stores:
    """What the controller reads. ``machines`` is None where the cluster does not serve Machines."""

    workspaces: Store
    nodes: Store
    deployments: Store
    services: Store
    pods: Store
    machines: Store | None
    children: ChildStores


async def observe(
    client: Client, stores: Stores, obj: Obj, registry: str, switches: Switches = DEFAULT, operator: str = ""
) -> Observation:
    """All that a decision about this Workspace rests on."""
    name, namespace = obj["metadata"]["name"], obj["metadata"]["namespace"]
    workspace, problem = _typed(obj)
    if obj["metadata"].get("deletionTimestamp"):
        machines = await _live_machines(client, namespace, name)
    else:
        machines = tuple(stores.machines.by_index(BY_WORKSPACE, f"{namespace}/{name}")) if stores.machines else ()
    labels = (workspace.resource.label_selector.as_labels() if workspace else None) or selector_labels(obj)
    matching = stores.nodes.list(selector=selector_from({"matchLabels": labels})) if labels else []
    return Observation(
        obj=obj,
        workspace=workspace,
        problem=problem,
        machines=tuple(sorted(machines, key=lambda machine: str(machine["metadata"]["name"]))),
        nodes=tuple(matching),
        deployment=stores.deployments.get(name, namespace),
        service=stores.services.get(name, namespace),
        pods=tuple(stores.pods.by_index(BY_WORKSPACE, f"{namespace}/{name}")),
        machine_api=stores.machines is not None,
        registry=registry,
        switches=switches,
        children=await observe_children(client, stores.children, obj, workspace, matching, operator),
    )


async def _live_machines(client: Client, namespace: str, name: str) -> tuple[Obj, ...]:
    selector = ",".join(f"{key}={value}" for key, value in owner_labels(namespace, name).items())
    try:
        return tuple((await client.list(MACHINES, label_selector=selector)).items)
    except NotFound:
        return ()  # the cluster does not serve Machines (any more), so there are none


def _typed(obj: Obj) -> tuple[Workspace | None, str]:
    try:
        return Workspace.parse(obj), ""
    except InvalidSpec as error:
        return None, "; ".join(f"{path}: {what}" for path, what in error.problems)
