"""The tables of Services, Endpoints, EndpointSlices, Ingresses and NetworkPolicies.

In: objects of those kinds. Out: their columns, as data.
"""

from __future__ import annotations

from manager.types import Obj

from .cells import NONE, at, field, labels, listed, plain, selector
from .column import AGE, NAME, Column


def _load_balancer(obj: Obj) -> str:
    found = {
        str(one.get("ip") or one.get("hostname"))
        for one in at(obj, "status.loadBalancer.ingress", [])
        if one.get("ip") or one.get("hostname")
    }
    return ",".join(sorted(found))


def _external_ip(service: Obj) -> str:
    kind = at(service, "spec.type", "ClusterIP")
    extra = at(service, "spec.externalIPs", [])
    if kind == "ExternalName":
        return str(at(service, "spec.externalName", ""))
    if kind == "LoadBalancer":
        found = [part for part in (_load_balancer(service), *extra) if part]
        return ",".join(found) or "<pending>"
    return listed(extra)


def _port(port: Obj) -> str:
    node = f":{port['nodePort']}" if port.get("nodePort") else ""
    return f"{port.get('port')}{node}/{port.get('protocol', 'TCP')}"


SERVICE: list[Column] = [
    NAME,
    field("Type", "spec.type", "ClusterIP"),
    plain("Cluster-IP", lambda obj: at(obj, "spec.clusterIP") or NONE),
    plain("External-IP", _external_ip),
    plain("Port(s)", lambda obj: listed(_port(port) for port in at(obj, "spec.ports", []))),
    AGE,
    plain("Selector", lambda obj: labels(at(obj, "spec.selector")), wide=True),
]


def _endpoints(obj: Obj) -> str:
    found = []
    for subset in at(obj, "subsets", []):
        addresses = [str(one.get("ip", "")) for one in subset.get("addresses") or ()]
        ports = subset.get("ports") or ()
        if not ports:
            found += addresses
        found += [_host_port(address, port.get("port")) for port in ports for address in addresses]
    return listed(found, 3)


def _host_port(host: str, port: object) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


ENDPOINTS: list[Column] = [NAME, plain("Endpoints", _endpoints), AGE]


def _slice_ports(obj: Obj) -> str:
    ports = obj.get("ports")
    if ports is None:
        return "*" if "ports" in obj else "<unset>"
    found = [str(port.get("port")) if port.get("port") is not None else port.get("name") or "*" for port in ports]
    return listed(found, 3) if found else "<unset>"


def _slice_endpoints(obj: Obj) -> str:
    found = [
        str(address) for endpoint in obj.get("endpoints") or () for address in endpoint.get("addresses") or ()
    ]
    return listed(found, 3) if found else "<unset>"


ENDPOINT_SLICE: list[Column] = [
    NAME,
    field("AddressType", "addressType"),
    plain("Ports", _slice_ports),
    plain("Endpoints", _slice_endpoints),
    AGE,
]


def _hosts(obj: Obj) -> str:
    found = [str(rule["host"]) for rule in at(obj, "spec.rules", []) if rule.get("host")]
    return listed(found, 3) if found else "*"


INGRESS: list[Column] = [
    NAME,
    plain("Class", lambda obj: at(obj, "spec.ingressClassName") or NONE),
    plain("Hosts", _hosts),
    plain("Address", _load_balancer),
    plain("Ports", lambda obj: "80, 443" if at(obj, "spec.tls", []) else "80"),
    AGE,
]


def _parameters(obj: Obj) -> str:
    found = at(obj, "spec.parameters", {})
    if not found:
        return NONE
    group = f".{found['apiGroup']}" if found.get("apiGroup") else ""
    return f"{found.get('kind', '')}{group}/{found.get('name', '')}"


INGRESS_CLASS: list[Column] = [
    NAME,
    field("Controller", "spec.controller"),
    plain("Parameters", _parameters),
    AGE,
]
NETWORK_POLICY: list[Column] = [
    NAME,
    plain("Pod-Selector", lambda obj: selector(at(obj, "spec.podSelector"))),
    AGE,
]
