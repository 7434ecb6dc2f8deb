"""The Endpoints object of a Service: ready and not ready addresses, grouped by their ports. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from manager.types import Obj

from .. import pods as p
from .backends import Backend, Port, is_headless

MANAGED_BY = "endpoints.kubernetes.io/managed-by"
MANAGER = "endpoint-controller"
HEADLESS = "service.kubernetes.io/headless"
_LIMIT = 1000  # addresses that one Endpoints object may hold


def endpoints(service: Obj, backends: Sequence[Backend]) -> Obj:
    """The whole object, ready to create or to replace the present one with."""
    labels = {**p.labels_of(service), MANAGED_BY: MANAGER}
    if is_headless(service):
        labels[HEADLESS] = ""
    return {
        "apiVersion": "v1",
        "kind": "Endpoints",
        "metadata": {
            "name": p.name_of(service),
            "namespace": p.namespace_of(service),
            "labels": labels,
        },
        "subsets": _subsets(backends),
    }


def _subsets(backends: Sequence[Backend]) -> list[Obj]:
    groups: dict[tuple[Port, ...], tuple[list[Obj], list[Obj]]] = {}
    # Terminating pods take no part here, unless the Service wants every address. Slices say more.
    shown = [b for b in backends if not b.ipv6 and (b.ready or not b.terminating)]
    for backend in shown[:_LIMIT]:
        ready, not_ready = groups.setdefault(backend.ports, ([], []))
        (ready if backend.ready else not_ready).append(_address(backend))
    subsets = []
    for ports, (ready, not_ready) in sorted(groups.items(), key=lambda g: g[0]):
        subset: Obj = {}
        if ready:
            subset["addresses"] = ready
        if not_ready:
            subset["notReadyAddresses"] = not_ready
        if ports:
            subset["ports"] = [port.to_json() for port in ports]
        subsets.append(subset)
    return subsets


def _address(backend: Backend) -> Obj:
    address: Obj = {"ip": backend.address, "targetRef": backend.target}
    if backend.node:
        address["nodeName"] = backend.node
    if backend.hostname:
        address["hostname"] = backend.hostname
    return address
