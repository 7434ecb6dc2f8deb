"""What is taken and what is left on each node.

In: nodes and all pods of the cluster. Out: one :class:`NodeInfo` per node with the sums that the filters and
scores look at, and the requests of a pod as the kubelet would admit them. Pure; amounts are exact fractions of
the resource's unit (cores, bytes, devices).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from fractions import Fraction

from kaito.local.quantities import add, at_least, parse_list
from manager.types import Obj

from .. import pods as p
from . import taints

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
    taints: list[Obj] = field(default_factory=list)

    @classmethod
    def of(cls, node: Obj) -> NodeInfo:
        """An empty node."""
        return cls(node, _allocatable(node), taints=taints.effective(node))

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
    placed: dict[str, list[Obj]] = {}
    for pod in pods:
        placed.setdefault(p.node_of(pod), []).append(pod)
    return Snapshots().take(nodes, lambda name: placed.get(name, []))


class Snapshots:
    """Makes each snapshot from the one before: a node about which nothing has changed is not counted anew.

    What has changed is told by identity: objects of a cache are replaced, never changed.
    """

    def __init__(self) -> None:
        self._kept: dict[str, tuple[Obj, list[Obj], NodeInfo]] = {}

    def take(self, nodes: Iterable[Obj], pods_on: Callable[[str], list[Obj]]) -> list[NodeInfo]:
        """See :func:`snapshot`. ``pods_on``: the pods of a node, in an order that does not change by itself."""
        kept: dict[str, tuple[Obj, list[Obj], NodeInfo]] = {}
        for node in nodes:
            name = p.name_of(node)
            pods = pods_on(name)
            entry = self._kept.get(name)
            if entry is None or entry[0] is not node or not _same(entry[1], pods):
                info = NodeInfo.of(node)
                for pod in pods:
                    if not p.is_finished(pod):
                        info.add(pod)
                entry = node, pods, info
            kept[name] = entry
        self._kept = kept
        return [kept[name][2] for name in sorted(kept)]


def _same(before: list[Obj], now: list[Obj]) -> bool:
    return len(before) == len(now) and all(a is b for a, b in zip(before, now, strict=True))


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
