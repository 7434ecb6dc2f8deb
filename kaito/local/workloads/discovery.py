"""Which resources the server has, each in one version: the one that its group prefers, if the resource is in it.

In: the discovery documents. Out: a list of :class:`Served`, CRDs included. A document that cannot be had is left
out and named, so that nobody takes an incomplete answer for a complete one. Versions of a group may differ in what
they hold (Machines are in karpenter.sh/v1alpha5 only, NodeClaims in v1 only): all are asked, as client-go's
``ServerPreferredResources`` does.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from manager.client import Client
from manager.errors import ApiError
from manager.types import Obj, Resource


@dataclass(frozen=True, slots=True)
class Served:
    """A resource and what can be done with it."""

    resource: Resource
    verbs: frozenset[str]

    def can(self, *verbs: str) -> bool:
        """Whether it has all of these verbs."""
        return self.verbs.issuperset(verbs)


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Everything that is served, and the group versions that did not answer."""

    served: list[Served] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)

    def collectable(self) -> list[Resource]:
        """What garbage collection must watch: deletable, and not the events, which nobody owns."""
        return [s.resource for s in self.served if s.can("delete", "list", "watch") and s.resource.kind != "Event"]

    def in_namespaces(self) -> list[Served]:
        """What a namespace can hold and must lose before it goes."""
        return [s for s in self.served if s.resource.namespaced and s.can("delete", "list")]


async def discover(client: Client) -> Catalogue:
    """Ask the server for all its resources.

    Raises:
        ManagerError: the list of groups itself could not be had.
    """
    groups = await client.request("GET", "/apis")
    wanted = [("", "v1", "/api/v1")]
    for group in groups.get("groups") or ():
        name = str(group["name"])
        wanted += [(name, version, f"/apis/{name}/{version}") for version in _versions(group)]
    answers = await asyncio.gather(*(_document(client, path) for _, _, path in wanted))
    catalogue = Catalogue()
    known: set[tuple[str, str]] = set()
    for (group_name, version, path), document in zip(wanted, answers, strict=True):
        if document is None:
            catalogue.missing.append(path.removeprefix("/apis/"))
            continue
        found = [
            _served(group_name, version, entry) for entry in document.get("resources") or () if _is_whole(entry)
        ]
        fresh = [item for item in found if (group_name, item.resource.plural) not in known]
        known.update((group_name, item.resource.plural) for item in fresh)
        catalogue.served.extend(fresh)
    return catalogue


def _versions(group: Obj) -> list[str]:
    """The versions of a group, the preferred one first."""
    preferred = str((group.get("preferredVersion") or {}).get("version") or "")
    others = [str(item.get("version")) for item in group.get("versions") or ()]
    return [*([preferred] if preferred else []), *(version for version in others if version != preferred)]


async def _document(client: Client, path: str) -> Obj | None:
    try:
        return await client.request("GET", path)
    except ApiError:
        return None


def _is_whole(entry: Obj) -> bool:
    return "/" not in str(entry.get("name", "/"))


def _served(group: str, version: str, entry: Obj) -> Served:
    resource = Resource(
        str(entry.get("group") or group),
        str(entry.get("version") or version),
        str(entry["name"]),
        str(entry["kind"]),
        bool(entry.get("namespaced")),
    )
    return Served(resource, frozenset(entry.get("verbs") or ()))
