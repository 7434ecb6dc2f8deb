"""What is read off a Machine or a NodeClaim, and how those of a Workspace are named.

In: plain objects. Out: text. Pure. Both kinds say the same things in the same places.
"""

from __future__ import annotations

import hashlib

from api import keys
from manager.types import Obj


def machine_name(namespace: str, name: str, uid: str, index: int) -> str:
    """The name of the Workspace's Machine number ``index``: 11 characters, fit for an agent pool's name."""
    digest = hashlib.sha256(f"{namespace}/{name}/{uid}/{index}".encode()).hexdigest()
    return f"ws{digest[:9]}"


def instance_type(machine: Obj) -> str:
    """The instance type that it asks for; "unknown" where it names none."""
    for requirement in (machine.get("spec") or {}).get("requirements") or []:
        if requirement.get("key") == keys.INSTANCE_TYPE_LABEL and requirement.get("values"):
            return str(requirement["values"][0])
    return "unknown"


def node_name(machine: Obj) -> str:
    """The node that it became; empty before."""
    return str((machine.get("status") or {}).get("nodeName") or "")


def is_leaving(machine: Obj) -> bool:
    """Whether it is being deleted."""
    return bool(machine["metadata"].get("deletionTimestamp"))
