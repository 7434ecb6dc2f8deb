"""From objects to one Table.

In: a resource type and objects (of that version), the time, and what each row shall carry of its object. Out:
the Table. ``include`` is the request parameter of the same name: ``Metadata`` (the default of real servers),
``Object`` or ``None``.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import TYPE_CHECKING, Literal

from manager.types import Obj

from .column import AGE, NAME, Column

if TYPE_CHECKING:
    from ..registry import ResourceType

Include = Literal["Metadata", "None", "Object"]
_BUILTIN: dict[tuple[str, str], list[Column]] = {}


def columns_of(resource_type: ResourceType) -> list[Column]:
    """The columns of a type's tables."""
    if resource_type.columns is not None:
        return resource_type.columns
    return _BUILTIN.get((resource_type.group, resource_type.kind), [NAME, AGE])


def render_table(
    resource_type: ResourceType,
    objects: Iterable[Obj],
    *,
    now: datetime,
    include: Include = "Metadata",
    list_meta: Obj | None = None,
    headings: bool = True,
) -> Obj:
    """The objects as a Table.

    Args:
        resource_type: the version that was asked for; the objects are of it.
        objects: in the order of the rows.
        now: for ages.
        include: what ``row.object`` holds.
        list_meta: the metadata of the list (resourceVersion, continue, remainingItemCount).
        headings: False for the later events of a watch, which carry no column definitions.
    """
    columns = columns_of(resource_type)
    rows = []
    for obj in objects:
        row: Obj = {"cells": [column.cell(obj, now) for column in columns]}
        if include == "Object":
            row["object"] = obj
        elif include == "Metadata":
            row["object"] = {
                "kind": "PartialObjectMetadata",
                "apiVersion": "meta.k8s.io/v1",
                "metadata": obj.get("metadata") or {},
            }
        else:
            row["object"] = None
        rows.append(row)
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": dict(list_meta or {}),
        "columnDefinitions": [column.definition() for column in columns] if headings else [],
        "rows": rows,
    }
