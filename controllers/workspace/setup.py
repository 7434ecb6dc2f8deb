"""Wires the Workspace controller into a manager: what it watches, and whom a change concerns."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from api import keys
from controllers.resources import WORKSPACES
from controllers.settings import WorkspaceSettings
from controllers.workspace.late import LateKind
from controllers.workspace.model import NodeRules
from controllers.workspace.nodeapi import NODE_APIS
from controllers.workspace.observe import BY_NODE, BY_WORKSPACE, Stores
from controllers.workspace.observe_children import of_label
from controllers.workspace.podreader import HttpPodReader, Reports
from controllers.workspace.reconciler import WorkspaceReconciler
from controllers.workspace.rivals import (
    BY_KEYS,
    BY_SELECTOR,
    by_keys,
    by_selector,
    moves,
    node_of_pod,
    nodes_of_workspace,
    rivals_of,
    selecting,
    waiting_for,
)
from controllers.workspace.upgrade import UpgradeGate
from controllers.workspace.watch_children import requests_of, watch_children
from manager.builder import ControllerBuilder
from manager.channel import Channel, ChannelSource
from manager.handlers import enqueue_self
from manager.labelindex import BY_LABEL, label_pairs
from manager.manager import Manager
from manager.ownwrites import OwnWrites
from manager.resources import DEPLOYMENTS, NODES, PODS, SERVICES
from manager.store import Store
from manager.types import Obj, Request, Resource

_RARELY = 20  # times more seldom is a kind looked for that is not made


def add_workspace_controller(mgr: Manager, settings: WorkspaceSettings) -> None:
    """Add the controller that turns Workspaces into Machines (or NodeClaims) and workloads."""
    cache = mgr.cache
    heard, reader = Channel(), settings.pod_reader or HttpPodReader()
    reports = Reports(reader, lambda request: heard.send(_object_of(request)))
    mgr.add(reports.run, name="pod-reader")
    builder = ControllerBuilder(mgr, "workspace").for_(WORKSPACES)
    builder.owns(DEPLOYMENTS).owns(SERVICES)
    builder.watches_raw_source(ChannelSource(heard, enqueue_self))
    children = watch_children(mgr, builder)
    made: dict[Resource, Store] = {}
    stores = Stores(
        workspaces=cache.informer(WORKSPACES).store,
        nodes=cache.informer(NODES).store,
        deployments=cache.informer(DEPLOYMENTS).store,
        services=cache.informer(SERVICES).store,
        pods=cache.informer(PODS).store,
        made=made,
        children=children,
    )
    stores.pods.add_index(BY_WORKSPACE, of_label)
    stores.pods.add_index(BY_NODE, node_of_pod)
    stores.workspaces.add_index(BY_NODE, nodes_of_workspace)
    stores.workspaces.add_index(BY_KEYS, by_keys)
    stores.workspaces.add_index(BY_SELECTOR, by_selector)
    stores.nodes.add_index(BY_LABEL, label_pairs)
    builder.watches(PODS, requests_of(of_label)).watches(NODES, _workspaces_of(stores.workspaces))
    builder.watches(WORKSPACES, rivals_of(stores.workspaces), moves(nodes_of_workspace))
    builder.watches(PODS, waiting_for(stores.workspaces, stores.nodes), moves(node_of_pod))
    node_api = NODE_APIS[settings.node_api]
    if settings.machine_api:
        informer = cache.informer(node_api.resource)
        informer.store.add_index(BY_WORKSPACE, of_machine)
        made[node_api.resource] = informer.store
        builder.watches(node_api.resource, requests_of(of_machine))
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
        wake=lambda key: heard.send(_object_of(Request(*key.split("/")))),
        node_api=node_api,
        rules=NodeRules(settings.gpu_deadline, settings.node_grace),
        reports=reports,
    )
    controller = builder.options(max_concurrent=settings.max_concurrent).build(reconciler)
    # Also the kind that is not made: a deletion waits for what an operator with the other setting has made.
    for kind in (api.resource for api in NODE_APIS.values() if api.resource not in stores.made):
        late = LateKind(
            mgr=mgr,
            controller=controller,
            resource=kind,
            index=(BY_WORKSPACE, of_machine),
            requests=requests_of(of_machine),
            made=made,
            workspaces=stores.workspaces,
            # The other kind wakes nothing but deletions, which look for what is left by themselves.
            poll=settings.crd_poll * (1 if kind == node_api.resource else _RARELY),
        )
        mgr.add(late.run, name=f"late-{kind.plural}")


def _workspaces_of(workspaces: Store) -> Callable[[Obj], Iterable[Request]]:
    """Whom a node concerns: Workspaces that select it, and those that use it though its labels have changed."""

    def requests(node: Obj) -> Iterable[Request]:
        used = workspaces.by_index(BY_NODE, node["metadata"]["name"])
        for workspace in (*used, *selecting(workspaces, node)):
            yield Request(workspace["metadata"]["namespace"], workspace["metadata"]["name"])

    return requests


def _object_of(request: Request) -> Obj:
    return {"metadata": {"namespace": request.namespace, "name": request.name}}


def of_machine(machine: Obj) -> Iterable[str]:
    """The Workspace that a Machine is for, as "namespace/name"."""
    labels = machine["metadata"].get("labels") or {}
    name, namespace = labels.get(keys.WORKSPACE_LABEL), labels.get(keys.WORKSPACE_NAMESPACE_LABEL)
    return [f"{namespace}/{name}"] if name and namespace else []
