"""What the service proxy has to listen on: pure.

In: a Service and its EndpointSlices (v1 or v1beta1). Out: ClusterIP and port → addresses of ready
endpoints, in a stable order. Slice ports are matched by name, as kube-proxy does; an endpoint whose
readiness is not told is ready.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from manager.types import Obj

Address = tuple[str, int]
_SERVICE_LABEL = "kubernetes.io/service-name"


@dataclass(frozen=True, slots=True, order=True)
class Frontend:
    """One address at which a Service is reached."""

    service: str
    ip: str
    port: int

    def __str__(self) -> str:
        return f"{self.ip}:{self.port} ({self.service})"


def slice_service(slice_: Obj) -> str:
    """`namespace/name` of the Service that the slice belongs to."""
    meta = slice_["metadata"]
    return f"{meta.get('namespace', '')}/{(meta.get('labels') or {}).get(_SERVICE_LABEL, '')}"


def frontends(
    service: Obj, slices: Iterable[Obj], default: Address | None = None
) -> dict[Frontend, list[Address]]:
    """Every TCP address of the Service with its backends; `default` is the backend when there are no slices."""
    spec, meta = service["spec"], service["metadata"]
    name = f"{meta.get('namespace', '')}/{meta['name']}"
    if spec.get("type") == "ExternalName":
        return {}
    ips = [ip for ip in spec.get("clusterIPs") or [spec.get("clusterIP")] if ip and ip != "None" and ":" not in ip]
    slices = list(slices)
    found: dict[Frontend, list[Address]] = {}
    for port in spec.get("ports") or []:
        if (port.get("protocol") or "TCP") != "TCP":
            continue
        backends = sorted({a for s in slices for a in _addresses(s, port.get("name") or "")})
        if not backends and default is not None:
            backends = [default]
        for ip in ips:
            found[Frontend(name, ip, int(port["port"]))] = backends
    return found


def _addresses(slice_: Obj, port_name: str) -> Iterable[Address]:
    if slice_.get("addressType", "IPv4") not in ("IPv4", "IP"):
        return
    for port in slice_.get("ports") or []:
        if (port.get("name") or "") != port_name or not port.get("port"):
            continue
        for endpoint in slice_.get("endpoints") or []:
            if (endpoint.get("conditions") or {}).get("ready") is not False:
                for address in endpoint.get("addresses") or []:
                    yield str(address), int(port["port"])
