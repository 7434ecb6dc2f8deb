"""A Machine's spec as a request to a cloud.

In: the Machine as a plain dict, perhaps written by hand. Out: an ``InstanceRequest``, or ``UnusableMachine``
with the field to correct. Pure.
"""

from __future__ import annotations

from api import keys
from api.errors import InvalidQuantity
from api.quantity import to_bytes
from manager.types import Obj
from provisioner import InstanceRequest, Taint


class UnusableMachine(ValueError):
    """The Machine's spec cannot be turned into a request; the text says which field to correct."""


def instance_request(machine: Obj) -> InstanceRequest:
    """What to ask of the cloud for this Machine.

    The first value of the instance-type requirement is the one that is used: the order is the author's.

    Raises:
        UnusableMachine: no instance type is required, or the storage is no quantity.
    """
    spec = machine.get("spec") or {}
    types = tuple(
        str(value)
        for requirement in spec.get("requirements") or []
        if requirement.get("key") == keys.INSTANCE_TYPE_LABEL and requirement.get("operator") == "In"
        for value in requirement.get("values") or []
    )
    if not types:
        raise UnusableMachine(
            f"spec.requirements names no instance type: add {keys.INSTANCE_TYPE_LABEL} In [<type>]"
        )
    requested = ((spec.get("resources") or {}).get("requests") or {}).get("storage", "0")
    try:
        storage = to_bytes(requested)
    except InvalidQuantity as error:
        raise UnusableMachine(f"spec.resources.requests.storage: {error}") from error
    taints = [*(spec.get("taints") or []), *(spec.get("startupTaints") or [])]
    return InstanceRequest(
        name=str(machine["metadata"]["name"]),
        instance_types=types,
        labels=dict(machine["metadata"].get("labels") or {}),
        taints=tuple(Taint(str(t["key"]), str(t["effect"]), str(t.get("value") or "")) for t in taints),
        storage_bytes=max(storage, 0),
    )
