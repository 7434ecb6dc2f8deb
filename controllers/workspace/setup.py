"""Wires the Workspace controller into a manager: what it watches, and whom a change concerns."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from api import keys
from controllers.resources import MACHINES, WORKSPACES
from controllers.settings import WorkspaceSettings
from controllers.workspace.observe import BY_WORKSPACE, Stores
from controllers.workspace.podreader import HttpPodReader, Reports
from controllers.workspace.reconciler import WorkspaceReconciler
from controllers.workspace.target import selector_labels
from manager.builder import ControllerBuilder
from manager.channel import Channel, ChannelSource
from manager.handlers import enqueue_self
from manager.manager import Manager
from manager.ownwrites import OwnWrites
from manager.resources import DEPLOYMENTS, NODES, PODS, SERVICES
from manager.store import Store
from manager.types import Obj, Request, Resource


def add_workspace_controller(mgr: Manager, settings: WorkspaceSettings) -> None:
    """Add the controller that turns Workspaces into Machines and workloads."""
    stores = stores_of(lambda resource: mgr.cache.informer(resource).store, settings)
    heard, reader = Channel(), settings.pod_reader or HttpPodReader()
    reports = Reports(reader, lambda request: heard.send(_object_of(request)))
    mgr.add(reports.run, name="pod-reader")
    builder = ControllerBuilder(mgr, "workspace").for_(WORKSPACES)
    builder.owns(DEPLOYMENTS).owns(SERVICES)
    builder.watches_raw_source(ChannelSource(heard, enqueue_self))
    builder.watches(PODS, _requests(_of_pod)).watches(NODES, _workspaces_of(stores.workspaces))
    if stores.machines is not None:
        builder.watches(MACHINES, _requests(_of_machine))
    reconciler = WorkspaceReconciler(
        client=mgr.live,
        stores=stores,
        recorder=mgr.events("kaito-workspace"),
        clock=settings.clock,
        registry=settings.registry,
        own=OwnWrites(lambda: stores.workspaces.resource_version),
        switches=settings.switches,
        reports=reports,
    )
    builder.options(max_concurrent=settings.max_concurrent).build(reconciler)


def stores_of(store: Callable[[Resource], Store], settings: WorkspaceSettings) -> Stores:
    """The stores that are observed, from whatever gives the store of a kind, with their indexes."""
    stores = Stores(
        workspaces=store(WORKSPACES),
        nodes=store(NODES),
        deployments=store(DEPLOYMENTS),
        services=store(SERVICES),
        pods=store(PODS),
        machines=store(MACHINES) if settings.machine_api else None,
    )
    stores.pods.add_index(BY_WORKSPACE, _of_pod)
    if stores.machines is not None:
        stores.machines.add_index(BY_WORKSPACE, _of_machine)
    return stores


def _workspaces_of(workspaces: Store) -> Callable[[Obj], Iterable[Request]]:
    """Whom a node concerns: Workspaces that select it, and those that use it though its labels have changed."""

    def requests(node: Obj) -> Iterable[Request]:
        name, labels = node["metadata"]["name"], node["metadata"].get("labels") or {}
        for workspace in workspaces.list():
            wanted = selector_labels(workspace)
            used = (workspace.get("status") or {}).get("workerNodes") or []
            if name in used or (wanted and wanted.items() <= labels.items()):
                yield Request(workspace["metadata"]["namespace"], workspace["metadata"]["name"])

    return requests


def _object_of(request: Request) -> Obj:
    return {"metadata": {"namespace": request.namespace, "name": request.name}}


def _of_machine(machine: Obj) -> Iterable[str]:
    labels = machine["metadata"].get("labels") or {}
    name, namespace = labels.get(keys.WORKSPACE_LABEL), labels.get(keys.WORKSPACE_NAMESPACE_LABEL)
    return [f"{namespace}/{name}"] if name and namespace else []


def _of_pod(pod: Obj) -> Iterable[str]:
    name = (pod["metadata"].get("labels") or {}).get(keys.WORKSPACE_LABEL)
    return [f"{pod['metadata']['namespace']}/{name}"] if name else []


def _requests(keys_of: Callable[[Obj], Iterable[str]]) -> Callable[[Obj], Iterable[Request]]:
    def requests(obj: Obj) -> Iterable[Request]:
        for key in keys_of(obj):
            namespace, _, name = key.partition("/")
            yield Request(namespace, name)

    return requests
