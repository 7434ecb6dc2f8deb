"""The pods behind a Service, as addresses with resolved ports and states.

In: a Service and the pods of its namespace that its selector matches. Out: :class:`Backend` values, sorted, from
which both Endpoints and EndpointSlices are built, so the two can never disagree. A pod counts once it has an
address and until it has finished. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from manager.types import Obj

from .. import pods as p


@dataclass(frozen=True, slots=True, order=True)
class Port:
    """One resolved port."""

    name: str
    port: int
    protocol: str
    app_protocol: str = ""

    def to_json(self) -> Obj:
        """As both kinds write it."""
        written: Obj = {"port": self.port, "protocol": self.protocol}
        if self.name:
            written["name"] = self.name
        if self.app_protocol:
            written["appProtocol"] = self.app_protocol
        return written


@dataclass(frozen=True, slots=True)
class Backend:
    """One pod address: ``serving`` is its readiness, ``ready`` is whether to send it new connections."""

    address: str
    ports: tuple[Port, ...]
    ready: bool
    serving: bool
    terminating: bool
    node: str
    hostname: str
    target: Obj

    @property
    def ipv6(self) -> bool:
        """Whether the address is of that family."""
        return ":" in self.address


def is_headless(service: Obj) -> bool:
    """Whether the Service has no address of its own, on purpose."""
    return p.spec_of(service).get("clusterIP") == "None"


def publishes_not_ready(service: Obj) -> bool:
    """Whether addresses count as ready before their pods are."""
    return bool(p.spec_of(service).get("publishNotReadyAddresses"))


def backends(service: Obj, pods: Iterable[Obj]) -> list[Backend]:
    """The addresses behind the Service, by address."""
    always = publishes_not_ready(service)
    found = []
    for pod in pods:
        address = p.status_of(pod).get("podIP")
        if not address or p.is_finished(pod):
            continue
        ports = _ports(service, pod)
        if ports is None:
            continue
        serving, terminating = p.is_ready(pod), p.is_terminating(pod)
        spec = p.spec_of(pod)
        named = spec.get("hostname") and spec.get("subdomain") == p.name_of(service)
        found.append(
            Backend(
                address=str(address),
                ports=ports,
                ready=always or (serving and not terminating),
                serving=serving,
                terminating=terminating,
                node=p.node_of(pod),
                hostname=str(spec["hostname"]) if named else "",
                target={
                    "kind": "Pod",
                    "namespace": p.namespace_of(pod),
                    "name": p.name_of(pod),
                    "uid": p.uid_of(pod),
                },
            )
        )
    return sorted(found, key=lambda b: (b.address, b.target["name"]))


def _ports(service: Obj, pod: Obj) -> tuple[Port, ...] | None:
    """The Service's ports on this pod; None when the pod has none of them (a headless one may want none)."""
    wanted = p.spec_of(service).get("ports") or ()
    resolved = []
    for port in wanted:
        protocol = str(port.get("protocol") or "TCP")
        number = _target(port.get("targetPort") or port["port"], protocol, pod)
        if number is not None:
            name, app = str(port.get("name") or ""), str(port.get("appProtocol") or "")
            resolved.append(Port(name, number, protocol, app))
    if wanted and not resolved:
        return None
    return tuple(sorted(resolved))


def _target(target: object, protocol: str, pod: Obj) -> int | None:
    if isinstance(target, int):
        return target or None
    spec = p.spec_of(pod)
    # A restartable init container is a sidecar: it serves like any other container.
    sidecars = [c for c in spec.get("initContainers") or () if c.get("restartPolicy") == "Always"]
    for container in [*(spec.get("containers") or ()), *sidecars]:
        for port in container.get("ports") or ():
            if port.get("name") == target and (port.get("protocol") or "TCP") == protocol:
                return int(port["containerPort"])
    return int(str(target)) if str(target).isdecimal() else None
