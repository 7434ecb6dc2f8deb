"""Wires the Machine controller into a manager: what it watches, and whom a change concerns."""

from __future__ import annotations

from collections.abc import Iterable

from api import keys
from controllers.machine.attempts import AttemptBook
from controllers.machine.reconciler import BY_PROVIDER_ID, MachineReconciler
from controllers.resources import MACHINES
from controllers.settings import MachineSettings
from manager.builder import ControllerBuilder
from manager.manager import Manager
from manager.ownwrites import OwnWrites
from manager.predicates import subject
from manager.resources import NODES
from manager.types import Obj, Request
from provisioner import CloudProvider


def add_machine_controller(mgr: Manager, provider: CloudProvider, settings: MachineSettings) -> None:
    """Add the controller that turns Machines into nodes with ``provider``."""
    machines = mgr.cache.informer(MACHINES).store
    nodes = mgr.cache.informer(NODES).store
    machines.add_index(BY_PROVIDER_ID, _machine_provider_id)
    if not nodes.has_index(BY_PROVIDER_ID):
        nodes.add_index(BY_PROVIDER_ID, _node_provider_id)

    def machines_of(node: Obj) -> Iterable[Request]:
        for provider_id in _node_provider_id(node):
            for machine in machines.by_index(BY_PROVIDER_ID, provider_id):
                yield Request("", machine["metadata"]["name"])

    reconciler = MachineReconciler(
        client=mgr.live,
        machines=machines,
        nodes=nodes,
        provider=provider,
        recorder=mgr.events("kaito-machine"),
        clock=settings.clock,
        limits=settings.limits,
        attempts=AttemptBook(),
        own=OwnWrites(lambda: machines.resource_version),
    )
    builder = (
        ControllerBuilder(mgr, "machine")
        .for_(MACHINES, lambda event: is_served(subject(event)))
        .watches(NODES, machines_of)
    )
    builder.options(max_concurrent=settings.max_concurrent).build(reconciler)


def is_served(machine: Obj) -> bool:
    """Whether this Machine is one of ours: others of the same API belong to another provisioner."""
    labels = machine["metadata"].get("labels") or {}
    return keys.WORKSPACE_LABEL in labels or keys.RAGENGINE_LABEL in labels


def _machine_provider_id(machine: Obj) -> Iterable[str]:
    provider_id = (machine.get("status") or {}).get("providerID")
    return [provider_id] if provider_id else []


def _node_provider_id(node: Obj) -> Iterable[str]:
    provider_id = (node.get("spec") or {}).get("providerID")
    return [provider_id] if provider_id else []
