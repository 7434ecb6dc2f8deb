"""A Machine's spec as a request to a cloud.

In: the Machine as a plain dict, perhaps written by hand. Out: an ``InstanceRequest``, or ``UnusableMachine``
with the field to correct. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from api import catalog, keys
from api.errors import InvalidQuantity
from api.quantity import to_bytes
from manager.types import Obj
from provisioner import ON_DEMAND, InstanceRequest, Owner, Taint


class UnusableMachine(ValueError):
    """The Machine's spec cannot be turned into a request; the text says which field to correct."""


def instance_request(machine: Obj, name: str) -> InstanceRequest:
    """What to ask of the cloud for this Machine, whose instance is called ``name``.

    Values of a requirement keep their order, which is the author's: the first one that the cloud has is used.

    Raises:
        UnusableMachine: no instance type is required, or the storage is no quantity.
    """
    spec, meta = machine.get("spec") or {}, machine["metadata"]
    types = _required(spec, keys.INSTANCE_TYPE_LABEL)
    if not types:
        raise UnusableMachine(
            f"spec.requirements names no instance type: add {keys.INSTANCE_TYPE_LABEL} In [<type>]"
        )
    requested = ((spec.get("resources") or {}).get("requests") or {}).get("storage", "0")
    try:
        storage = to_bytes(requested)
    except InvalidQuantity as error:
        raise UnusableMachine(f"spec.resources.requests.storage: {error}") from error
    return InstanceRequest(
        name=name,
        instance_types=types,
        labels=dict(meta.get("labels") or {}),
        taints=_taints(spec.get("taints")),
        storage_bytes=max(storage, 0),
        owner=_owner(machine),
        startup_taints=_taints(spec.get("startupTaints")),
        zones=_required(spec, keys.ZONE_LABEL),
        capacity_types=_required(spec, keys.CAPACITY_TYPE_LABEL) or (ON_DEMAND,),
        image_family=str((meta.get("annotations") or {}).get(keys.NODE_IMAGE_FAMILY) or ""),
    )


def _required(spec: Obj, key: str) -> tuple[str, ...]:
    return tuple(
        str(value)
        for requirement in spec.get("requirements") or []
        if requirement.get("key") == key and requirement.get("operator") == "In"
        for value in requirement.get("values") or []
    )


def _taints(taints: Iterable[Any] | None) -> tuple[Taint, ...]:
    return tuple(Taint(str(t["key"]), str(t["effect"]), str(t.get("value") or "")) for t in taints or ())


def _owner(machine: Obj) -> Owner:
    meta = machine["metadata"]
    created = meta.get("creationTimestamp")
    return Owner(
        name=str(meta["name"]),
        uid=str(meta["uid"]),
        kind=str(machine.get("kind") or "Machine"),
        created_at=datetime.fromisoformat(created) if created else None,
    )


def wants_gpu(machine: Obj) -> bool:
    """Whether the node is made for its NVIDIA GPUs: then it is of use only once they show."""
    spec, labels = machine.get("spec") or {}, machine["metadata"].get("labels") or {}
    known = next((sku for type_ in _required(spec, keys.INSTANCE_TYPE_LABEL) if (sku := catalog.sku(type_))), None)
    if known is not None:
        return known.gpus > 0 and known.gpu_model.startswith("NVIDIA")
    asked = (*_required(spec, keys.MACHINE_TYPE_LABEL), labels.get(keys.MACHINE_TYPE_LABEL))
    return keys.MACHINE_TYPE_GPU in asked
