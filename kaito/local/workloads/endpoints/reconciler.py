"""Endpoints and EndpointSlices at work: one reconcile writes both for one Service.

In: a Service with a selector, and the pods of its namespace. Out: the objects of ``legacy`` and ``slices``, only
where they differ. Services without a selector are their author's business.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

from manager.builder import ControllerBuilder
from manager.client import Client
from manager.errors import AlreadyExists, ApiError, Invalid, NotFound
from manager.events import EventRecorder
from manager.informer import Event, Updated
from manager.manager import Manager
from manager.resources import ENDPOINTS, PODS, SERVICES
from manager.types import Obj, Request, Resource, Result

from .. import pods as p
from ..acting import is_namespace_ending
from ..patching import merge_patch
from ..world import World, request_for
from . import legacy, slices
from .backends import backends

log = logging.getLogger("kaito.local.workloads.endpoints")

_ZONE = "topology.kubernetes.io/zone"


class EndpointsReconciler:
    """Keeps what stands behind each Service."""

    def __init__(self, manager: Manager, world: World, kind: Resource | None, events: EventRecorder) -> None:
        """``kind`` is the EndpointSlice resource in the version that the server speaks."""
        self._client: Client = manager.live
        self._world = world
        self._events = events
        self._endpoints = manager.cache.informer(ENDPOINTS).store
        self._kind = kind
        self._slices = manager.cache.informer(kind).store if kind else None
        if self._slices is not None:
            self._slices.add_index("service", _service_of)

    async def reconcile(self, request: Request) -> Result:
        """Write both kinds for one Service."""
        service = self._world.services.get(request.name, request.namespace)
        if service is None:
            await self._remove_endpoints(request)
            return Result()
        selector = p.spec_of(service).get("selector")
        if not selector or p.spec_of(service).get("type") == "ExternalName" or p.is_terminating(service):
            return Result()
        behind = backends(service, self._world.pods_labelled(request.namespace, selector))
        nodes = {backend.node: self._world.nodes.get(backend.node) for backend in behind if backend.node}
        zones = {name: p.labels_of(node).get(_ZONE, "") for name, node in nodes.items() if node is not None}
        try:
            await self._write_endpoints(service, legacy.endpoints(service, behind))
            if self._kind is not None and self._slices is not None:
                await self._write_slices(
                    request, slices.slices(service, behind, zones, self._kind.version), self._kind
                )
        except ApiError as error:
            if not is_namespace_ending(error):
                raise
        return Result()

    async def _write_endpoints(self, service: Obj, wanted: Obj) -> None:
        present = self._endpoints.get(p.name_of(service), p.namespace_of(service))
        try:
            await self._write(ENDPOINTS, present, wanted)
        except Invalid as error:
            # kube-apiserver refuses loopback addresses here and takes them in slices, which say all and more.
            log.debug("endpoints refused service=%s error=%s", p.name_of(service), error.message)

    async def _write_slices(self, request: Request, wanted: dict[str, Obj], kind: Resource) -> None:
        assert self._slices is not None  # noqa: S101 - the caller looked
        present = {p.name_of(s): s for s in self._slices.by_index("service", str(request))}
        for name, obj in wanted.items():
            await self._write(kind, present.get(name), obj)
        for name in present.keys() - wanted.keys():
            try:
                await self._client.delete(kind, name, request.namespace)
            except NotFound:
                pass  # gone already

    async def _write(self, resource: Resource, present: Obj | None, wanted: Obj) -> None:
        name, namespace = p.name_of(wanted), p.namespace_of(wanted)
        if present is None:
            try:
                await self._client.create(resource, wanted)
                return
            except AlreadyExists:
                present = await self._client.get(resource, name, namespace)
        patch = difference(present, wanted)
        if patch:
            try:
                await self._client.patch(resource, name, patch, namespace=namespace)
            except NotFound:
                await self._client.create(resource, wanted)

    async def _remove_endpoints(self, request: Request) -> None:
        # Only our own: an Endpoints object without a Service may be somebody's lock. Slices have an owner.
        present = self._endpoints.get(request.name, request.namespace)
        if present is not None and p.labels_of(present).get(legacy.MANAGED_BY) == legacy.MANAGER:
            try:
                await self._client.delete(ENDPOINTS, request.name, request.namespace, uid=p.uid_of(present))
            except NotFound:
                pass  # gone already

    def services_of(self, pod: Obj) -> Iterable[Request]:
        """The Services that select this pod."""
        return [request_for(service) for service in self._world.services_selecting(pod)]


def difference(present: Obj, wanted: Obj) -> Obj:
    """The merge patch for the fields that we own; others, and labels that others added, stay."""
    ours: Obj = {k: v for k, v in wanted.items() if k not in ("apiVersion", "kind", "metadata")}
    patch = merge_patch({k: present.get(k) or [] for k in ours}, ours)
    labels, has = p.labels_of(wanted), p.labels_of(present)
    if changed := {k: v for k, v in labels.items() if has.get(k) != v}:
        patch["metadata"] = {"labels": changed}
    return patch


def _service_of(endpoint_slice: Obj) -> Iterable[str]:
    labels = p.labels_of(endpoint_slice)
    if labels.get(slices.MANAGED_BY) != slices.MANAGER:
        return []
    return [f"{p.namespace_of(endpoint_slice)}/{labels.get(slices.SERVICE_NAME, '')}"]


def _slice_request(endpoint_slice: Obj) -> Iterable[Request]:
    return [Request(*key.split("/", 1)) for key in _service_of(endpoint_slice)]


def _pod_matters(event: Event) -> bool:
    """Not for what backends do not look at: most updates of a pod's status."""
    return not isinstance(event, Updated) or _facts(event.old) != _facts(event.new)


def _facts(pod: Obj) -> object:
    status = p.status_of(pod)
    return (
        p.labels_of(pod),
        status.get("podIP"),
        p.is_ready(pod),
        p.is_finished(pod),
        p.is_terminating(pod),
        p.node_of(pod),
    )


def add(manager: Manager, world: World, kind: Resource | None) -> None:
    """Register the controller; ``kind`` is the EndpointSlice resource, or None where there is none."""
    reconciler = EndpointsReconciler(manager, world, kind, manager.events("endpoint-controller"))
    builder = ControllerBuilder(manager, "endpoints").for_(SERVICES).watches(ENDPOINTS, _itself)
    builder.watches(PODS, reconciler.services_of, _pod_matters)
    if kind is not None:
        builder.watches(kind, _slice_request)
    builder.options(max_concurrent=4).build(reconciler)


def _itself(endpoints: Obj) -> Iterable[Request]:
    return [request_for(endpoints)] if p.labels_of(endpoints).get(legacy.MANAGED_BY) == legacy.MANAGER else []
