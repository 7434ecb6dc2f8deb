"""Versions of one resource: what is stored, and what a request at another version sees.

In: an object at the version of a request, or a stored one. Out: the same object at the other version.
Custom resources convert by strategy None, where only ``apiVersion`` differs, or by what their webhook has said
(``hooks.table``; an object that it was not asked about raises ``Unconverted``). Of the built-in kinds only Event
has two served shapes (``v1`` and ``events.k8s.io/v1``) over one storage; it is stored in the ``v1`` shape.
Nothing is lost on the way there and back, and a stored object is never changed in place.
"""

from __future__ import annotations

from kaito.local.apiserver.registry import ResourceType
from manager.types import Obj

__all__ = ["from_storage", "to_storage"]

_EVENT_FIELDS = (  # v1, events.k8s.io/v1
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
    ("reportingComponent", "reportingController"),
)
_TO_CORE = {new: old for old, new in _EVENT_FIELDS}
_FROM_CORE = dict(_EVENT_FIELDS)


def to_storage(resource: ResourceType, obj: Obj) -> Obj:
    """The object as it is stored; a new outer dict where the versions differ."""
    if resource.is_storage_version:
        return obj
    if resource.table is not None:
        return resource.table.converted(obj, resource.storage_api_version)
    if resource.group == "events.k8s.io":
        obj = {_TO_CORE.get(key, key): value for key, value in obj.items()}
    return obj | {"apiVersion": resource.storage_api_version}


def from_storage(resource: ResourceType, obj: Obj) -> Obj:
    """The stored object at the version of ``resource``."""
    if resource.is_storage_version:
        return obj
    if resource.table is not None:
        return resource.table.converted(obj, resource.api_version)
    if resource.group == "events.k8s.io":
        obj = {_FROM_CORE.get(key, key): value for key, value in obj.items()}
    return obj | {"apiVersion": resource.api_version}
