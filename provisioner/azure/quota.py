"""How many more machines of a size a subscription may have in a region, from what Azure's compute service says.

In: two lists of ARM, the sizes of a region and the usages of the subscription there. Out: a :class:`QuotaBook`
that answers without asking again. Pure. Azure counts vCPUs: of the size's family, and of the whole region; a spot
machine counts in a family of its own. What Azure does not tell is None, and never a guess.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from provisioner.errors import Quota

REGIONAL = "cores"  # Azure's name of the region's whole
SPOT = "lowPriorityCores"


@dataclass(frozen=True, slots=True)
class Size:
    """A VM size as the region offers it. ``restrictions`` are the codes with which all of it is withheld."""

    name: str
    family: str
    vcpus: int
    zones: tuple[str, ...] = ()
    restrictions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Usage:
    """One quota: ``label`` is its name for people."""

    name: str
    label: str
    used: int
    limit: int

    @property
    def left(self) -> int:
        """vCPUs that may still be had."""
        return max(0, self.limit - self.used)


@dataclass(frozen=True, slots=True)
class Room:
    """The answer for one size.

    Attributes:
        nodes: how many more; None where Azure does not say.
        tightest: the quota that decides, for a person.
        withheld: why none can be had whatever the quota; empty where nothing withholds it.
    """

    nodes: int | None
    tightest: Quota | None = None
    withheld: str = ""


@dataclass(frozen=True, slots=True)
class QuotaBook:
    """What was read, by lower-case names; keeps the promise of ``kaito.plan.Quota``."""

    location: str
    sizes: Mapping[str, Size] = field(default_factory=dict)
    usages: Mapping[str, Usage] = field(default_factory=dict)

    @classmethod
    def read(
        cls, location: str, skus: Iterable[Mapping[str, Any]], usages: Iterable[Mapping[str, Any]]
    ) -> QuotaBook:
        """Of ARM's items. Those of another shape are passed over: a book with holes still answers for the rest."""
        sizes = [size for item in skus if (size := _size(item, location)) is not None]
        counted = [usage for item in usages if (usage := _usage(item)) is not None]
        return cls(
            location, {size.name.lower(): size for size in sizes}, {usage.name.lower(): usage for usage in counted}
        )

    def left(self, instance_type: str) -> int | None:
        """On-demand nodes of a type that may still be had; None where Azure does not say."""
        return self.room(instance_type).nodes

    def room(self, instance_type: str, *, spot: bool = False) -> Room:
        """How much room there is, and which quota is the tightest."""
        size = self.sizes.get(instance_type.lower())
        if size is None:
            # The list of sizes is that of the region: what is not in it is not offered here.
            return (
                Room(0, withheld=f"{instance_type} is not offered in {self.location}")
                if self.sizes
                else Room(None)
            )
        if size.restrictions:
            codes = ", ".join(size.restrictions)
            return Room(0, withheld=f"{size.name} is withheld from this subscription in {self.location} ({codes})")
        names = (SPOT,) if spot else (size.family, REGIONAL)
        known = [usage for name in names if (usage := self.usages.get(name.lower())) is not None]
        if not known or size.vcpus < 1:
            return Room(None)
        tightest = min(known, key=lambda usage: usage.left)
        quota = Quota(tightest.label, size.vcpus, tightest.limit, tightest.used, tightest.left, self.location)
        return Room(tightest.left // size.vcpus, quota)


def _size(item: Mapping[str, Any], location: str) -> Size | None:
    if item.get("resourceType") != "virtualMachines" or not item.get("name"):
        return None
    able = {str(it.get("name")): str(it.get("value")) for it in item.get("capabilities") or []}
    here = [it for it in item.get("locationInfo") or [] if str(it.get("location")).lower() == location.lower()]
    zones = sorted({str(zone) for it in here for zone in it.get("zones") or []})
    withheld = {
        str(it.get("reasonCode") or "Restricted")
        for it in item.get("restrictions") or []
        if it.get("type") == "Location"  # a restriction of type Zone leaves the other zones
    }
    vcpus = able.get("vCPUs", "")
    return Size(
        str(item["name"]),
        str(item.get("family") or ""),
        int(vcpus) if vcpus.isdigit() else 0,
        tuple(zones),
        tuple(sorted(withheld)),
    )


def _usage(item: Mapping[str, Any]) -> Usage | None:
    name, used, limit = item.get("name") or {}, item.get("currentValue"), item.get("limit")
    if not name.get("value") or not isinstance(used, int) or not isinstance(limit, int):
        return None
    return Usage(str(name["value"]), str(name.get("localizedValue") or name["value"]), used, limit)
