"""Removing the Node object of an instance that is gone.

In: a node's name and uid. Out: the node is being deleted, and our finalizer is not what keeps it. The order
matters: a node without the finalizer that is not being deleted would stay for ever if we died in between.
"""

from __future__ import annotations

from api import keys
from manager.client import Client
from manager.errors import NotFound
from manager.resources import NODES
from manager.types import Obj


async def remove_node(client: Client, name: str, uid: str) -> None:
    """Delete a node and let go of it. Absent is done, and so is another node of that name.

    Raises:
        Conflict: it changed in the middle; look again.
    """
    try:
        node = await client.get(NODES, name)
        if node["metadata"]["uid"] != uid:
            return
        if not node["metadata"].get("deletionTimestamp"):
            await client.delete(NODES, name, uid=uid)
            node = await client.get(NODES, name)
        meta = node["metadata"]
        finalizers = list(meta.get("finalizers") or [])
        if meta["uid"] != uid or keys.TERMINATION_FINALIZER not in finalizers:
            return
        kept = [item for item in finalizers if item != keys.TERMINATION_FINALIZER]
        patch: Obj = {"metadata": {"finalizers": kept, "resourceVersion": meta["resourceVersion"]}}
        await client.patch(NODES, name, patch)
    except NotFound:
        return
