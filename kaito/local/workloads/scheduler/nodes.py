"""What is taken and what is left on each node.

In: nodes and all pods of the cluster. Out: one :class:`NodeInfo` per node with the sums that the filters and
scores look at, and the requests of a pod as the kubelet would admit them. Pure; amounts are exact fractions of
the resource's unit (cores, bytes, devices).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from fractions import Fraction

from kaito.local.quantities import add, at_least, parse_list
from manager.types import Obj

from .. import pods as p

_DEFAULT_PODS = Fraction(110)
HostPort = tuple[str, str, int]  # protocol, address, port


@dataclass(slots=True)
class NodeInfo:
    """One node, the pods on it and what they have asked for."""

    node: Obj
    allocatable: dict[str, Fraction]
    pods: list[Obj] = field(default_factory=list)
    requested: dict[str, Fraction] = field(default_factory=dict)
    host_ports: set[HostPort] = field(default_factory=set)

    @property
    def name(self) -> str:
        """The node's name."""
        return p.name_of(self.node)

    def add(self, pod: Obj) -> None:
        """Count a pod in."""
        self.pods.append(pod)
        add(self.requested, requests(pod))
        self.host_ports |= host_ports(pod)


def snapshot(nodes: Iterable[Obj], pods: Iterable[Obj]) -> list[NodeInfo]:
    """Every node with its pods, by name. Finished pods take nothing; terminating ones still do."""
    infos = {p.name_of(node): NodeInfo(node, _allocatable(node)) for node in nodes}
    for pod in pods:
        info = infos.get(p.node_of(pod))
        if info is not None and not p.is_finished(pod):
            info.add(pod)
    return [infos[name] for name in sorted(infos)]


def _allocatable(node: Obj) -> dict[str, Fraction]:
    status = p.status_of(node)
    amounts = parse_list(status.get("allocatable") or status.get("capacity"))
    amounts.setdefault("pods", _DEFAULT_PODS)
    return amounts


def requests(pod: Obj) -> dict[str, Fraction]:
    """What the pod asks for: its containers together, or its largest init container, plus overhead."""
    spec = p.spec_of(pod)
    total: dict[str, Fraction] = {}
    for container in spec.get("containers") or ():
        add(total, _of_container(container))
    sidecars: dict[str, Fraction] = {}
    start: dict[str, Fraction] = {}
    for container in spec.get("initContainers") or ():
        amounts = _of_container(container)
        if container.get("restartPolicy") == "Always":
            add(sidecars, amounts)
            at_least(start, sidecars)
        else:
            add(amounts, sidecars)
            at_least(start, amounts)
    add(total, sidecars)
    at_least(total, start)
    add(total, parse_list(spec.get("overhead")))
    total["pods"] = Fraction(1)
    return total


def _of_container(container: Obj) -> dict[str, Fraction]:
    resources = container.get("resources") or {}
    # The API server defaults requests from limits; a pod of another origin may still lack them.
    return parse_list({**(resources.get("limits") or {}), **(resources.get("requests") or {})})


def host_ports(pod: Obj) -> set[HostPort]:
    """The ports of the node itself that the pod wants."""
    return {
        (str(port.get("protocol") or "TCP"), str(port.get("hostIP") or "0.0.0.0"), int(port["hostPort"]))  # noqa: S104
        for container in p.spec_of(pod).get("containers") or ()
        for port in container.get("ports") or ()
        if port.get("hostPort")
    }


def ports_clash(wanted: set[HostPort], taken: set[HostPort]) -> bool:
    """Whether a wanted port is taken; the unspecified address clashes with every address."""
    wild = "0.0.0.0"  # noqa: S104 - compared, never bound
    return any(
        protocol == other_protocol and port == other_port and (wild in (ip, other_ip) or ip == other_ip)
        for protocol, ip, port in wanted
        for other_protocol, other_ip, other_port in taken
    )
