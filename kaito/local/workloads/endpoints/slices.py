"""The EndpointSlices of a Service: backends grouped by address family and ports, at most a hundred per slice.

Names follow from Service, family, ports and number of the slice, so that a stale cache cannot create one twice.
The v1beta1 form (Kubernetes before 1.21) says the node in ``topology``. Pure.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import orjson

from manager.meta import owner_reference
from manager.types import Obj

from .. import pods as p
from .backends import Backend, Port, is_headless
from .legacy import HEADLESS

SERVICE_NAME = "kubernetes.io/service-name"
MANAGED_BY = "endpointslice.kubernetes.io/managed-by"
MANAGER = "endpointslice-controller.k8s.io"
_ZONE = "topology.kubernetes.io/zone"
_SIZE = 100


def slices(service: Obj, backends: Sequence[Backend], zones: Mapping[str, str], version: str) -> dict[str, Obj]:
    """Every slice that should exist, by name. ``zones`` maps node names to zones; ``version`` is the API's."""
    groups: dict[tuple[bool, tuple[Port, ...]], list[Backend]] = {}
    for backend in backends:
        groups.setdefault((backend.ipv6, backend.ports), []).append(backend)
    if not groups:
        # An empty slice tells watchers that the Service has been looked at and has nobody.
        families = p.spec_of(service).get("ipFamilies") or ["IPv4"]
        groups = {(family == "IPv6", ()): [] for family in families}
    made: dict[str, Obj] = {}
    for (ipv6, ports), members in groups.items():
        for start in range(0, max(1, len(members)), _SIZE):
            obj = _slice(service, ipv6, ports, start // _SIZE, version)
            obj["endpoints"] = [_endpoint(b, zones, version) for b in members[start : start + _SIZE]]
            made[p.name_of(obj)] = obj
    return made


def _slice(service: Obj, ipv6: bool, ports: tuple[Port, ...], number: int, version: str) -> Obj:
    written = [port.to_json() for port in ports]
    seed = orjson.dumps([p.uid_of(service), ipv6, written, number], option=orjson.OPT_SORT_KEYS)
    labels = {
        **p.labels_of(service),
        SERVICE_NAME: p.name_of(service),
        MANAGED_BY: MANAGER,
    }
    if is_headless(service):
        labels[HEADLESS] = ""
    return {
        "apiVersion": f"discovery.k8s.io/{version}",
        "kind": "EndpointSlice",
        "metadata": {
            "name": f"{p.name_of(service)}-{hashlib.sha256(seed).hexdigest()[:8]}",
            "namespace": p.namespace_of(service),
            "labels": labels,
            "ownerReferences": [owner_reference(service, controller=True)],
        },
        "addressType": "IPv6" if ipv6 else "IPv4",
        # An unnamed port is written with an empty name, which the schema tells apart from none.
        "ports": [{"name": "", **port} for port in written],
    }


def _endpoint(backend: Backend, zones: Mapping[str, str], version: str) -> Obj:
    endpoint: Obj = {
        "addresses": [backend.address],
        "conditions": {"ready": backend.ready},
        "targetRef": backend.target,
    }
    if backend.hostname:
        endpoint["hostname"] = backend.hostname
    zone = zones.get(backend.node, "")
    if version == "v1beta1":
        topology = {"kubernetes.io/hostname": backend.node, _ZONE: zone}
        if backend.node:
            endpoint["topology"] = {k: v for k, v in topology.items() if v}
        return endpoint
    endpoint["conditions"] |= {"serving": backend.serving, "terminating": backend.terminating}
    if backend.node:
        endpoint["nodeName"] = backend.node
    if zone:
        endpoint["zone"] = zone
    return endpoint
