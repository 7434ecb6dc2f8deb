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
from controllers.workspace.upgrade import UpgradeGate
from controllers.workspace.watch_children import requests_of, watch_children
from manager.builder import ControllerBuilder
from manager.channel import Channel, ChannelSource
from manager.handlers import enqueue_self
from manager.manager import Manager
from manager.ownwrites import OwnWrites
from manager.resources import DEPLOYMENTS, NODES, SERVICES
from manager.store import Store
from manager.types import Obj, Request


def add_workspace_controller(mgr: Manager, settings: WorkspaceSettings) -> None:
    """Add the controller that turns Workspaces into Machines and workloads."""
    cache = mgr.cache
    heard, reader = Channel(), settings.pod_reader or HttpPodReader()
    reports = Reports(reader, lambda request: heard.send(_object_of(request)))
    mgr.add(reports.run, name="pod-reader")
    builder = ControllerBuilder(mgr, "workspace").for_(WORKSPACES)
    builder.owns(DEPLOYMENTS).owns(SERVICES)
    builder.watches_raw_source(ChannelSource(heard, enqueue_self))
    children = watch_children(mgr, builder)
    stores = Stores(
        workspaces=cache.informer(WORKSPACES).store,
        nodes=cache.informer(NODES).store,
        deployments=cache.informer(DEPLOYMENTS).store,
        services=cache.informer(SERVICES).store,
        pods=children.pods,
        machines=cache.informer(MACHINES).store if settings.machine_api else None,
        children=children,
    )
    builder.watches(NODES, _workspaces_of(stores.workspaces))
    if stores.machines is not None:
        stores.machines.add_index(BY_WORKSPACE, of_machine)
        builder.watches(MACHINES, requests_of(of_machine))
    reconciler = WorkspaceReconciler(
        client=mgr.live,
        stores=stores,
        recorder=mgr.events("kaito-workspace"),
        clock=settings.clock,
        registry=settings.registry,
        own=OwnWrites(lambda: stores.workspaces.resource_version),
        switches=settings.switches,
        operator=settings.version,
        gate=UpgradeGate(
            settings.upgrade_workloads,
            settings.version,
            lambda: (*stores.deployments.list(), *children.statefulsets.list()),
        ),
        reports=reports,
    )
    builder.options(max_concurrent=settings.max_concurrent).build(reconciler)


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


def of_machine(machine: Obj) -> Iterable[str]:
    """The Workspace that a Machine is for, as "namespace/name"."""
    labels = machine["metadata"].get("labels") or {}
    name, namespace = labels.get(keys.WORKSPACE_LABEL), labels.get(keys.WORKSPACE_NAMESPACE_LABEL)
    return [f"{namespace}/{name}"] if name and namespace else []
