"""What the controllers see: one informer per kind, shared, with the look-ups that they need.

In: the manager's cache and the versions that the server speaks. Out: stores, and answers to "which objects may
belong to this owner". Everything handed out is shared and read-only. Every index is made here, once, so that no
two controllers index the same store twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import cast

from manager.cache import Cache
from manager.labelindex import BY_LABEL, label_pairs, labelled, pairs_of
from manager.meta import controller_of
from manager.resources import (
    CONTROLLERREVISIONS,
    DAEMONSETS,
    DEPLOYMENTS,
    JOBS,
    NAMESPACES,
    NODES,
    PERSISTENTVOLUMECLAIMS,
    PERSISTENTVOLUMES,
    PODS,
    REPLICASETS,
    SERVICES,
    STATEFULSETS,
)
from manager.store import Store
from manager.types import Obj, Request, Resource

from . import pods as p

_BY_CONTROLLER = "controller"
_ORPHANS = "orphans"
_BY_NODE = "node"
_BY_SELECTOR = "selector"


class World:
    """The stores of a manager's cache, by kind."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self.pods = self._store(PODS)
        self.nodes = self._store(NODES)
        self.namespaces = self._store(NAMESPACES)
        self.services = self._store(SERVICES)
        self.deployments = self._store(DEPLOYMENTS)
        self.replicasets = self._store(REPLICASETS)
        self.statefulsets = self._store(STATEFULSETS)
        self.daemonsets = self._store(DAEMONSETS)
        self.jobs = self._store(JOBS)
        self.revisions = self._store(CONTROLLERREVISIONS)
        self.claims = self._store(PERSISTENTVOLUMECLAIMS)
        self.volumes = self._store(PERSISTENTVOLUMES)
        for store in (self.pods, self.replicasets, self.revisions):
            store.add_index(_BY_CONTROLLER, _controller_uid)
            store.add_index(_ORPHANS, _orphan_namespace)
        self.pods.add_index(_BY_NODE, lambda pod: [p.node_of(pod)])
        self.pods.add_index(BY_LABEL, label_pairs)
        self.services.add_index(_BY_SELECTOR, _one_selector)

    def _store(self, resource: Resource) -> Store:
        return self._cache.informer(resource).store

    def candidates(self, store: Store, owner: Obj) -> list[Obj]:
        """The owner's objects, and those of its namespace that nobody controls."""
        own = store.by_index(_BY_CONTROLLER, p.uid_of(owner))
        return [*own, *store.by_index(_ORPHANS, p.namespace_of(owner))]

    def owned(self, store: Store, owner_uid: str) -> list[Obj]:
        """The objects that the owner controls."""
        return store.by_index(_BY_CONTROLLER, owner_uid)

    def pods_on(self, node: str) -> list[Obj]:
        """The pods bound to that node; "" gives those bound to none."""
        return self.pods.by_index(_BY_NODE, node)

    def pods_labelled(self, namespace: str, labels: Mapping[str, str]) -> list[Obj]:
        """The namespace's pods that carry all of these labels."""
        return [pod for pod in labelled(self.pods, labels) if p.namespace_of(pod) == namespace]

    def services_selecting(self, pod: Obj) -> list[Obj]:
        """The Services that the pod stands behind, ready or not."""
        namespace, labels = p.namespace_of(pod), p.labels_of(pod)
        return [
            service
            for pair in label_pairs(pod)
            for service in self.services.by_index(_BY_SELECTOR, pair)
            if p.namespace_of(service) == namespace
            and cast("Mapping[str, str]", p.spec_of(service)["selector"]).items() <= labels.items()
        ]


def request_for(obj: Obj) -> Request:
    """The key of an object."""
    return Request(p.namespace_of(obj), p.name_of(obj))


def _controller_uid(obj: Obj) -> Iterable[str]:
    controller = controller_of(obj)
    return [str(controller.get("uid", ""))] if controller else []


def _one_selector(service: Obj) -> Iterable[str]:
    """One label stands for all of a selector: a pod must have them all."""
    return sorted(pairs_of(p.spec_of(service).get("selector") or {}))[:1]


def _orphan_namespace(obj: Obj) -> Iterable[str]:
    return [] if controller_of(obj) else [p.namespace_of(obj)]
