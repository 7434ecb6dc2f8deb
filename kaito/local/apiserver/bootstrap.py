"""What every cluster has from the start: its namespaces, and the Service through which pods find the API.

In: an empty or a grown database and the address of the server. Out: the missing objects, created; the API's
endpoints follow the address of this start. Idempotent: a second start writes nothing that is there already.
"""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Callable

from kaito.local.apiserver.deletion import rfc3339
from kaito.local.apiserver.storage import Storage
from manager.types import Obj

__all__ = ["NAMESPACES", "bootstrap"]

NAMESPACES = ("default", "kube-node-lease", "kube-public", "kube-system")
_SERVICE = "kubernetes"


def bootstrap(
    storage: Storage, *, host: str, port: int, service_address: str, clock: Callable[[], dt.datetime]
) -> None:
    """Create what is missing; ``service_address`` is the cluster address of the API."""
    now = rfc3339(clock())
    for name in NAMESPACES:
        if storage.get("namespaces", "", name) is None:
            labels = {"kubernetes.io/metadata.name": name}
            space = _object("v1", "Namespace", name, "", now, labels)
            space |= {"spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}}
            storage.create("namespaces", "", name, space)
    _put(storage, "services", _service(service_address, port, now))
    _put(storage, "endpoints", _endpoints(host, port, now))
    _put(storage, "discovery.k8s.io/endpointslices", _slice(host, port, now))


def _object(api_version: str, kind: str, name: str, namespace: str, now: str, labels: dict[str, str]) -> Obj:
    meta: Obj = {"name": name, "uid": str(uuid.uuid4()), "creationTimestamp": now, "labels": labels}
    if namespace:
        meta["namespace"] = namespace
    return {"apiVersion": api_version, "kind": kind, "metadata": meta}


def _put(storage: Storage, resource: str, wanted: Obj) -> None:
    name, namespace = wanted["metadata"]["name"], wanted["metadata"]["namespace"]
    record = storage.get(resource, namespace, name)
    if record is None:
        storage.create(resource, namespace, name, wanted)
        return
    merged = record.obj | {key: value for key, value in wanted.items() if key != "metadata"}
    if merged != record.obj:
        merged["metadata"] = dict(record.obj["metadata"])
        storage.update(resource, namespace, name, merged, expected=record.revision)


def _labels() -> dict[str, str]:
    return {"component": "apiserver", "provider": "kubernetes"}


def _service(address: str, port: int, now: str) -> Obj:
    service = _object("v1", "Service", _SERVICE, "default", now, _labels())
    service["spec"] = {
        "clusterIP": address,
        "clusterIPs": [address],
        "internalTrafficPolicy": "Cluster",
        "ipFamilies": ["IPv4"],
        "ipFamilyPolicy": "SingleStack",
        "ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": port}],
        "sessionAffinity": "None",
        "type": "ClusterIP",
    }
    service["status"] = {"loadBalancer": {}}
    return service


def _endpoints(host: str, port: int, now: str) -> Obj:
    endpoints = _object(
        "v1", "Endpoints", _SERVICE, "default", now, {"endpointslice.kubernetes.io/skip-mirror": "true"}
    )
    endpoints["subsets"] = [
        {"addresses": [{"ip": host}], "ports": [{"name": "https", "port": port, "protocol": "TCP"}]}
    ]
    return endpoints


def _slice(host: str, port: int, now: str) -> Obj:
    found = _object(
        "discovery.k8s.io/v1", "EndpointSlice", _SERVICE, "default", now, {"kubernetes.io/service-name": _SERVICE}
    )
    found["addressType"] = "IPv4"
    found["endpoints"] = [
        {"addresses": [host], "conditions": {"ready": True, "serving": True, "terminating": False}}
    ]
    found["ports"] = [{"name": "https", "port": port, "protocol": "TCP"}]
    return found
