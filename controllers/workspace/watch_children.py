"""What the Workspace controller watches of its children, as little as tells enough.

In: a manager and the controller's builder. Out: the stores to read. Whatever clusters have many of (ConfigMaps,
ControllerRevisions) is held only where it bears a Workspace's label, or by its metadata.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from api import keys
from controllers.resources import WORKSPACES
from controllers.workspace.observe_children import (
    BY_CONFIG,
    BY_WORKSPACE,
    ChildStores,
    of_config,
    of_label,
)
from manager.builder import ControllerBuilder
from manager.handlers import enqueue_mapped
from manager.manager import Manager
from manager.resources import CONFIGMAPS, CONTROLLERREVISIONS, JOBS, SERVICES, STATEFULSETS
from manager.sources import KindSource
from manager.store import Store
from manager.types import Obj, Request, Resource


def watch_children(mgr: Manager, builder: ControllerBuilder) -> ChildStores:
    """Watch them; the builder is not built yet."""
    cache = mgr.cache
    workspaces = cache.informer(WORKSPACES).store
    workspaces.add_index(BY_CONFIG, of_config)

    def labelled(resource: Resource) -> Store:
        of_ours = KindSource(
            cache, resource, enqueue_mapped(requests_of(of_label)), label_selector=keys.WORKSPACE_LABEL
        )
        builder.watches_raw_source(of_ours)
        store = cache.informer(resource, label_selector=keys.WORKSPACE_LABEL).store
        store.add_index(BY_WORKSPACE, of_label)
        return store

    builder.owns(STATEFULSETS).owns(JOBS)
    builder.watches_metadata(CONFIGMAPS, _users_of(workspaces))
    return ChildStores(
        statefulsets=cache.informer(STATEFULSETS).store,
        jobs=cache.informer(JOBS).store,
        services=cache.informer(SERVICES).store,
        configmaps=cache.informer(CONFIGMAPS, metadata_only=True).store,
        adapters=labelled(CONFIGMAPS),
        revisions=labelled(CONTROLLERREVISIONS),
    )


def _users_of(workspaces: Store) -> Callable[[Obj], Iterable[Request]]:
    """Whom a ConfigMap concerns: Workspaces whose settings it holds."""

    def requests(obj: Obj) -> Iterable[Request]:
        namespace, name = obj["metadata"]["namespace"], obj["metadata"]["name"]
        for workspace in workspaces.by_index(BY_CONFIG, f"{namespace}/{name}"):
            yield Request(namespace, workspace["metadata"]["name"])
        if name.endswith(keys.ADAPTERS_CONFIG_SUFFIX):  # one that is in a Workspace's way, or was
            yield Request(namespace, name.removesuffix(keys.ADAPTERS_CONFIG_SUFFIX))

    return requests


def requests_of(keys_of: Callable[[Obj], Iterable[str]]) -> Callable[[Obj], Iterable[Request]]:
    """Keys as requests."""

    def requests(obj: Obj) -> Iterable[Request]:
        for key in keys_of(obj):
            namespace, _, name = key.partition("/")
            yield Request(namespace, name)

    return requests
