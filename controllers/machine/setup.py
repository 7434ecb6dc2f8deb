"""Wires the Machine controller into a manager: what it watches, and whom a change concerns."""

from __future__ import annotations

from collections.abc import Iterable

from api import keys
from controllers.machine.attempts import AttemptBook
from controllers.machine.reconciler import BY_INSTANCE, MachineReconciler, instance_name
from controllers.resources import MACHINES
from controllers.settings import MachineSettings
from manager.builder import ControllerBuilder
from manager.manager import Manager
from manager.ownwrites import OwnWrites
from manager.predicates import subject
from manager.resources import NODES
from manager.types import Obj, Request
from provisioner import CloudProvider
from provisioner.errors import CloudError


def add_machine_controller(mgr: Manager, provider: CloudProvider, settings: MachineSettings) -> None:
    """Add the controller that turns Machines into nodes with ``provider``."""
    machines = mgr.cache.informer(MACHINES).store
    nodes = mgr.cache.informer(NODES).store

    def instance_of_machine(machine: Obj) -> Iterable[str]:
        try:
            return [instance_name(provider, machine)]
        except CloudError:
            return []  # another cloud's; its own reconcile says so

    def instance_of_node(node: Obj) -> Iterable[str]:
        name = provider.instance_of(node)
        return [name] if name else []

    machines.add_index(BY_INSTANCE, instance_of_machine)
    nodes.add_index(BY_INSTANCE, instance_of_node)

    def machines_of(node: Obj) -> Iterable[Request]:
        for name in instance_of_node(node):
            for machine in machines.by_index(BY_INSTANCE, name):
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
