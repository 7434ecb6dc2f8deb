"""Who owns whom, over every kind of object.

In: what the informers saw, reduced to identity, owners, deletion and finalizers. Out: for an object its
dependents, and after each change the uids that deserve a look. Owners that nobody has seen are remembered only
through their dependents. Synchronous, no I/O; the collector owns the one instance.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from manager.types import Obj, Resource

from .. import pods as p

FOREGROUND = "foregroundDeletion"
ORPHAN = "orphan"


@dataclass(frozen=True, slots=True)
class Owner:
    """One ownerReference."""

    uid: str
    api_version: str
    kind: str
    name: str
    blocks: bool

    @classmethod
    def parse(cls, reference: Obj) -> Owner:
        """From its JSON form."""
        return cls(
            uid=str(reference.get("uid", "")),
            api_version=str(reference.get("apiVersion", "")),
            kind=str(reference.get("kind", "")),
            name=str(reference.get("name", "")),
            blocks=bool(reference.get("blockOwnerDeletion")),
        )


@dataclass(frozen=True, slots=True)
class Node:
    """One object, as far as garbage collection cares."""

    uid: str
    resource: Resource
    namespace: str
    name: str
    owners: tuple[Owner, ...] = ()
    deleting: bool = False
    finalizers: frozenset[str] = frozenset()

    @classmethod
    def parse(cls, resource: Resource, obj: Obj) -> Node:
        """From an object of that resource."""
        meta = p.meta_of(obj)
        return cls(
            uid=p.uid_of(obj),
            resource=resource,
            namespace=p.namespace_of(obj),
            name=p.name_of(obj),
            owners=tuple(Owner.parse(r) for r in meta.get("ownerReferences") or ()),
            deleting=bool(meta.get("deletionTimestamp")),
            finalizers=frozenset(meta.get("finalizers") or ()),
        )

    @property
    def waits_for_dependents(self) -> bool:
        """Whether it is being deleted in the foreground."""
        return self.deleting and FOREGROUND in self.finalizers

    @property
    def orphans_dependents(self) -> bool:
        """Whether it is being deleted and wants its dependents kept."""
        return self.deleting and ORPHAN in self.finalizers


class Graph:
    """All nodes by uid, and the reverse of their owner references."""

    def __init__(self) -> None:
        self.nodes: dict[str, Node] = {}
        self._dependents: dict[str, set[str]] = {}

    def __repr__(self) -> str:
        return f"Graph(nodes={len(self.nodes)}, owners={len(self._dependents)})"

    def dependents(self, uid: str) -> list[Node]:
        """The objects that name ``uid`` as an owner."""
        return [self.nodes[d] for d in sorted(self._dependents.get(uid, ())) if d in self.nodes]

    def with_unseen_owners(self) -> list[str]:
        """The uids of objects that name an owner which has not been seen."""
        return sorted(
            {d for owner, members in self._dependents.items() if owner not in self.nodes for d in members}
        )

    def put(self, node: Node) -> list[str]:
        """An object was seen. Returns the uids to look at."""
        old = self.nodes.get(node.uid)
        self.nodes[node.uid] = node
        before = {o.uid for o in old.owners} if old else set()
        after = {o.uid for o in node.owners}
        self._unlink(node.uid, before - after)
        for owner in after:
            self._dependents.setdefault(owner, set()).add(node.uid)
        look = []
        if node.owners and (old is None or old.owners != node.owners or old.deleting != node.deleting):
            look.append(node.uid)
        starts_waiting = node.waits_for_dependents and not (old and old.waits_for_dependents)
        if starts_waiting or node.orphans_dependents:
            look.append(node.uid)
        if starts_waiting:
            look += [d.uid for d in self.dependents(node.uid)]
        # A dependent that let go, or stopped blocking, may have been the last that its owner waited for.
        look += self._waiting({*before, *after} if old is not None and old.owners != node.owners else ())
        return list(dict.fromkeys(look))

    def drop(self, uid: str) -> list[str]:
        """An object is gone. Returns the uids to look at: its dependents, and owners that waited for it."""
        old = self.nodes.pop(uid, None)
        look = [d.uid for d in self.dependents(uid)]
        if old is not None:
            owners = {o.uid for o in old.owners}
            self._unlink(uid, owners)
            look += self._waiting(owners)
        return list(dict.fromkeys(look))

    def drop_resource(self, resource: Resource) -> list[str]:
        """A whole kind is no longer served."""
        look: list[str] = []
        for uid in [n.uid for n in self.nodes.values() if n.resource == resource]:
            look += self.drop(uid)
        return list(dict.fromkeys(look))

    def _waiting(self, uids: Iterable[str]) -> list[str]:
        return [u for u in uids if u in self.nodes and self.nodes[u].waits_for_dependents]

    def _unlink(self, uid: str, owners: Iterable[str]) -> None:
        for owner in owners:
            members = self._dependents.get(owner)
            if members is not None:
                members.discard(uid)
                if not members:
                    del self._dependents[owner]
