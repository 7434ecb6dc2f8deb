"""The world around one Workspace, gathered from the cache.

In: a Workspace and the stores. Out: an :class:`Observation`. Everything comes from the cache except the Machines
of a Workspace that is being deleted: these are listed live, because a Machine that was created a moment ago and is
not in the cache yet would be left behind when the finalizer falls.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from api import keys
from api.errors import InvalidSpec
from api.v1alpha1 import Workspace
from api.validation import DEFAULT, Switches
from api.validation.inference_config import wanted_context
from controllers.workspace.claims import Claims
from controllers.workspace.gpus import gpus_requested
from controllers.workspace.model import DEFAULT_RULES, NodeRules, NodeUse, Observation
from controllers.workspace.nodeapi import MACHINE_API, NODE_APIS, NodeApi
from controllers.workspace.observe_children import BY_WORKSPACE as BY_WORKSPACE
from controllers.workspace.observe_children import ChildStores, observe_children
from controllers.workspace.recreations import Recreations
from controllers.workspace.sharing import claim_of, key_of
from controllers.workspace.target import owner_labels, selector_labels
from manager.client import Client
from manager.errors import NotFound
from manager.labelindex import labelled
from manager.store import Store
from manager.types import Obj, Resource

BY_NODE = "node"  # index on pods and Workspaces: the nodes that they use


@dataclass(frozen=True, slots=True)
class Stores:
    """What the controller reads. ``made`` holds Machines and NodeClaims, as far as the cluster serves them.

    They need indexes: ``BY_WORKSPACE`` and ``BY_NODE`` on pods, ``BY_NODE`` on Workspaces, the labels of nodes
    (``manager.labelindex``).
    """

    workspaces: Store
    nodes: Store
    deployments: Store
    services: Store
    pods: Store
    made: Mapping[Resource, Store]
    children: ChildStores


async def observe(
    client: Client,
    stores: Stores,
    obj: Obj,
    registry: str,
    switches: Switches = DEFAULT,
    *,
    node_api: NodeApi = MACHINE_API,
    rules: NodeRules = DEFAULT_RULES,
    decided: Claims | None = None,
    recreations: Recreations | None = None,
    operator: str = "",
) -> Observation:
    """All that a decision about this Workspace rests on. Nothing is awaited once the stores have been read."""
    name, namespace = obj["metadata"]["name"], obj["metadata"]["namespace"]
    workspace, problem = _typed(obj)
    key = key_of(namespace, name)
    children = await observe_children(client, stores.children, obj, workspace, operator)
    made = stores.made.get(node_api.resource)
    if obj["metadata"].get("deletionTimestamp"):
        node_api, machines = await _leftovers(client, node_api, namespace, name)
    else:
        machines = tuple(made.by_index(BY_WORKSPACE, key)) if made is not None else ()
    labels = (workspace.resource.label_selector.as_labels() if workspace else None) or selector_labels(obj)
    matching = list(labelled(stores.nodes, labels))
    return Observation(
        obj=obj,
        workspace=workspace,
        problem=problem,
        machines=tuple(sorted(machines, key=lambda machine: str(machine["metadata"]["name"]))),
        nodes=tuple(matching),
        deployment=stores.deployments.get(name, namespace),
        service=stores.services.get(name, namespace),
        pods=tuple(stores.pods.by_index(BY_WORKSPACE, key)),
        context=_context(workspace, children.configs or {}),
        use={
            name: _use(stores, name, decided or Claims())
            for name in (node["metadata"]["name"] for node in matching)
        },
        machine_api=made is not None,
        node_api=node_api,
        rules=rules,
        pauses=recreations.pauses(key) if recreations is not None else {},
        registry=registry,
        switches=switches,
        children=children,
    )


def _context(workspace: Workspace | None, configs: Mapping[str, Obj | None]) -> int | None:
    """What the ConfigMap that the Workspace names asks of the context."""
    name = workspace.inference.config if workspace is not None and workspace.inference is not None else None
    return wanted_context(name, configs) if name else None


async def _leftovers(client: Client, api: NodeApi, namespace: str, name: str) -> tuple[NodeApi, tuple[Obj, ...]]:
    """What was made for a Workspace: of the kind in use, then of the other, which an earlier run may have made."""
    selector = ",".join(f"{key}={value}" for key, value in owner_labels(namespace, name).items())
    for kind in (api, *(other for other in NODE_APIS.values() if other is not api)):
        try:
            if items := (await client.list(kind.resource, label_selector=selector)).items:
                return kind, tuple(items)
        except NotFound:
            continue  # the cluster does not serve it (any more), so there are none
    return api, ()


def _use(stores: Stores, node: str, decided: Claims) -> NodeUse:
    gpus: dict[str, int] = {}
    for pod in stores.pods.by_index(BY_NODE, node):
        if (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
            continue
        workspace = (pod["metadata"].get("labels") or {}).get(keys.WORKSPACE_LABEL)
        key = key_of(pod["metadata"]["namespace"], workspace) if workspace else ""
        gpus[key] = gpus.get(key, 0) + gpus_requested(pod.get("spec") or {})
    stored = map(claim_of, stores.workspaces.by_index(BY_NODE, node))
    return NodeUse(decided.on(node, stored), gpus)


def _typed(obj: Obj) -> tuple[Workspace | None, str]:
    try:
        return Workspace.parse(obj), ""
    except InvalidSpec as error:
        return None, "; ".join(f"{path}: {what}" for path, what in error.problems)
