"""Cluster addresses and node ports of Services.

In: a Service that is about to be stored, the stored ones, and the state before. Out: the same Service with
``clusterIP(s)``, IP family fields and node ports filled in, or the fields that cannot be honoured. Nothing is
kept here: what is taken is read from the stored Services every time, so that a crash between choosing and
storing leaks nothing. Addresses from the range's first part are left to those who ask for one by name.
"""

from __future__ import annotations

import ipaddress
import random
from collections.abc import Callable, Iterable

from kaito.local.apiserver.fielderrors import FieldError, invalid
from manager.types import Obj

__all__ = ["ServiceAddresses"]

_RESERVED = 256  # addresses at the start of the range that are given on request only
_PORTS = range(30000, 32768)


class ServiceAddresses:
    """Chooses addresses out of one IPv4 range."""

    def __init__(
        self, network: str, services: Callable[[], Iterable[Obj]], chance: random.Random | None = None
    ) -> None:
        self.network = ipaddress.IPv4Network(network)
        self._services = services
        self._chance = chance or random.Random()  # noqa: S311 - spreads addresses, guards nothing

    @property
    def first(self) -> str:
        """The address of the ``kubernetes`` Service."""
        return str(self.network[1])

    def assign(self, service: Obj, before: Obj | None) -> list[FieldError]:
        """Fill in what the Service's type needs; what it had before is kept."""
        spec = service["spec"]
        old = (before or {}).get("spec") or {}
        if spec.get("type") == "ExternalName":
            for field in ("clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"):
                spec.pop(field, None)
            return []
        problems = self._address(service, spec, old)
        if problems:
            return problems
        if spec["clusterIP"] == "None" and not spec.get("selector"):
            spec.setdefault("ipFamilyPolicy", "RequireDualStack")
            spec.setdefault("ipFamilies", ["IPv4", "IPv6"])
        else:
            spec["ipFamilies"] = ["IPv4"]
            if spec.get("ipFamilyPolicy") not in ("SingleStack", "PreferDualStack"):
                spec["ipFamilyPolicy"] = "SingleStack"
        return self._node_ports(service, spec, old)

    def _address(self, service: Obj, spec: Obj, old: Obj) -> list[FieldError]:
        wanted = str(spec.get("clusterIP") or next(iter(spec.get("clusterIPs") or ()), "") or "")
        had = str(old.get("clusterIP") or "") if old.get("type") != "ExternalName" else ""
        if had and not wanted:
            wanted = had
        if had and wanted != had:
            return [invalid("spec.clusterIPs[0]", [wanted], "may not change once set")]
        if not wanted:
            taken = self._taken(service)
            wanted = self._free(taken)
            if not wanted:
                return [invalid("spec.clusterIPs", [], f"no address of {self.network} is free")]
        elif wanted not in ("None", had):
            try:
                address = ipaddress.ip_address(wanted)
            except ValueError:
                return [invalid("spec.clusterIPs[0]", wanted, "must be a valid IP address")]
            if address not in self.network:
                why = (
                    f"failed to allocate IP {wanted}: the provided IP is not in the valid range. "
                    f"The range of valid IPs is {self.network}"
                )
                return [invalid("spec.clusterIPs", [wanted], why)]
            if wanted in self._taken(service):
                why = f"failed to allocate IP {wanted}: provided IP is already allocated"
                return [invalid("spec.clusterIPs", [wanted], why)]
        spec["clusterIP"] = wanted
        spec["clusterIPs"] = [wanted]
        return []

    def _taken(self, but: Obj) -> set[str]:
        me = (but["metadata"].get("namespace"), but["metadata"].get("name"))
        return {
            str(service["spec"].get("clusterIP"))
            for service in self._services()
            if (service["metadata"].get("namespace"), service["metadata"].get("name")) != me
        }

    def _free(self, taken: set[str]) -> str:
        size = self.network.num_addresses
        start = self._chance.randrange(min(_RESERVED, size // 2), size - 1)
        for step in range(size - 2):
            candidate = str(self.network[1 + (start + step) % (size - 2)])
            if candidate not in taken:
                return candidate
        return ""

    def _node_ports(self, service: Obj, spec: Obj, old: Obj) -> list[FieldError]:
        ports: list[Obj] = spec.get("ports") or []
        if spec.get("type") not in ("NodePort", "LoadBalancer"):
            for port in ports:
                port.pop("nodePort", None)
            return []
        me = (service["metadata"].get("namespace"), service["metadata"].get("name"))
        taken = {
            (port.get("protocol", "TCP"), port["nodePort"])
            for other in self._services()
            if (other["metadata"].get("namespace"), other["metadata"].get("name")) != me
            for port in other["spec"].get("ports") or ()
            if port.get("nodePort")
        }
        had = {
            (port.get("protocol"), port.get("port")): port["nodePort"]
            for port in old.get("ports") or ()
            if port.get("nodePort")
        }
        for index, port in enumerate(ports):
            path = f"spec.ports[{index}].nodePort"
            number = port.get("nodePort") or had.get((port.get("protocol"), port.get("port")))
            if number:
                if (port.get("protocol"), number) in taken:
                    return [invalid(path, number, "provided port is already allocated")]
                if number not in _PORTS:
                    why = "provided port is not in the valid range. The range of valid ports is 30000-32767"
                    return [invalid(path, number, why)]
            else:
                free = [p for p in _PORTS if (port.get("protocol"), p) not in taken]
                if not free:
                    return [invalid(path, 0, "no node port is free")]
                number = self._chance.choice(free)
            port["nodePort"] = number
            taken.add((port.get("protocol", "TCP"), number))
        return []
