"""The operator's stores, filled with one list each instead of a watch.

In: a client. Out: ``Stores`` as the operator's ``observe`` reads them, with the same indexes. What the reader may
not list stays empty and is noted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from api import keys
from controllers.resources import WORKSPACES
from controllers.workspace.observe import BY_NODE, BY_WORKSPACE, Stores
from controllers.workspace.observe_children import BY_CONFIG, ChildStores, of_config, of_label
from controllers.workspace.rivals import node_of_pod, nodes_of_workspace
from controllers.workspace.setup import of_machine
from controllers.workspace.target import selector_labels
from manager.client import Client
from manager.errors import Forbidden, NotFound
from manager.labelindex import BY_LABEL, label_pairs
from manager.resources import (
    CONFIGMAPS,
    CONTROLLERREVISIONS,
    DEPLOYMENTS,
    JOBS,
    NODES,
    PODS,
    SERVICES,
    STATEFULSETS,
)
from manager.selectors import selector_from
from manager.store import Store
from manager.types import Obj, Resource


class Lists:
    """Stores by what they are to hold."""

    def __init__(self) -> None:
        self._wanted: dict[tuple[Resource, bool], Store] = {}

    def store(self, resource: Resource, *, labelled: bool = False) -> Store:
        """The store of a kind, empty until ``fill``; ``labelled``: only what bears a Workspace's label."""
        return self._wanted.setdefault((resource, labelled), Store())

    async def fill(self, client: Client, namespace: str, workspace: Obj) -> list[str]:
        """List everything that was asked for; what could not be read, as notes.

        Namespaced kinds of that namespace; of Workspaces all, and of pods also those on the matching nodes,
        because somebody else may have what this one waits for.
        """
        said = await asyncio.gather(
            *(
                self._fill(client, store, resource, namespace, keys.WORKSPACE_LABEL if labelled else None)
                for (resource, labelled), store in self._wanted.items()
            )
        )
        said += await asyncio.gather(
            self._fill(client, self.store(WORKSPACES), WORKSPACES, None),
            *(
                self._fill(client, self.store(PODS), PODS, None, field=f"spec.nodeName={name}")
                for name in self._matching(workspace)
            ),
        )
        return list(dict.fromkeys(note for note in said if note))

    def _matching(self, workspace: Obj) -> list[str]:
        labels = selector_labels(workspace)
        found = self.store(NODES).list(selector=selector_from({"matchLabels": labels})) if labels else []
        return [str(node["metadata"]["name"]) for node in found]

    async def _fill(
        self,
        client: Client,
        store: Store,
        resource: Resource,
        namespace: str | None,
        label: str | None = None,
        *,
        field: str | None = None,
    ) -> str:
        where = namespace if resource.namespaced else None
        try:
            found = await client.list(resource, where, label_selector=label, field_selector=field)
        except NotFound:
            return ""  # not served, so there are none
        except Forbidden:
            others = " of other namespaces" if resource.namespaced and where is None else ""
            return f"you may not list {resource.plural}{others}, so what they say is left out"
        for item in found.items:
            store.put(item)
        return ""


def stores_of(lists: Lists, made_of: Iterable[Resource]) -> Stores:
    """The stores, not filled yet. ``made_of``: the kinds that become nodes, as far as they are served."""
    children = ChildStores(
        statefulsets=lists.store(STATEFULSETS),
        jobs=lists.store(JOBS),
        services=lists.store(SERVICES),
        configmaps=lists.store(CONFIGMAPS),
        adapters=lists.store(CONFIGMAPS, labelled=True),
        revisions=lists.store(CONTROLLERREVISIONS, labelled=True),
    )
    for labelled in (children.adapters, children.revisions):
        labelled.add_index(BY_WORKSPACE, of_label)
    made = {resource: lists.store(resource) for resource in made_of}
    stores = Stores(
        workspaces=lists.store(WORKSPACES),
        nodes=lists.store(NODES),
        deployments=lists.store(DEPLOYMENTS),
        services=children.services,
        pods=lists.store(PODS),
        made=made,
        children=children,
    )
    stores.workspaces.add_index(BY_CONFIG, of_config)
    stores.workspaces.add_index(BY_NODE, nodes_of_workspace)
    stores.nodes.add_index(BY_LABEL, label_pairs)
    stores.pods.add_index(BY_WORKSPACE, of_label)
    stores.pods.add_index(BY_NODE, node_of_pod)
    for store in made.values():
        store.add_index(BY_WORKSPACE, of_machine)
    return stores
