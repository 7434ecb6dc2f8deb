"""The collector's edits of objects of any kind: merge patches of ownerReferences and finalizers.

Each patch carries uid and resourceVersion, so that it applies to exactly what was read. An object that is gone
needs no edit any more.
"""

from __future__ import annotations

from collections.abc import Collection

from manager.client import Client
from manager.errors import NotFound
from manager.types import Obj

from .. import pods as p
from .graph import Node


class Editor:
    """Reads and edits single objects."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def read(self, node: Node) -> Obj | None:
        """The object as it is now, or None when it, with this uid, is gone."""
        try:
            live = await self._client.get(node.resource, node.name, node.namespace or None)
        except NotFound:
            return None
        return live if p.uid_of(live) == node.uid else None

    async def drop_owners(self, node: Node, live: Obj, owners: Collection[str]) -> None:
        """Take these owners off."""
        kept = [r for r in p.meta_of(live).get("ownerReferences") or () if r.get("uid") not in owners]
        await self._patch(node, live, {"ownerReferences": kept or None})

    async def drop_finalizer(self, node: Node, live: Obj, finalizer: str) -> None:
        """Take this finalizer off."""
        present = p.meta_of(live).get("finalizers") or []
        if finalizer in present:
            await self._patch(node, live, {"finalizers": [f for f in present if f != finalizer] or None})

    async def orphan(self, dependent: Node, owner: str) -> None:
        """Take an owner off a dependent that is to stay."""
        live = await self.read(dependent)
        if live is not None:
            await self.drop_owners(dependent, live, {owner})

    async def unblock(self, dependent: Node, owner: str) -> None:
        """Let the owner go without waiting for this dependent."""
        live = await self.read(dependent)
        if live is None:
            return
        references = p.meta_of(live).get("ownerReferences") or []
        changed = [{**r, "blockOwnerDeletion": False} if r.get("uid") == owner else r for r in references]
        await self._patch(dependent, live, {"ownerReferences": changed})

    async def _patch(self, node: Node, live: Obj, metadata: Obj) -> None:
        version = p.meta_of(live).get("resourceVersion")
        patch: Obj = {"metadata": {"uid": node.uid, "resourceVersion": version, **metadata}}
        try:
            await self._client.patch(node.resource, node.name, patch, namespace=node.namespace or None)
        except NotFound:
            return
