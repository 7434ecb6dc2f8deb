"""One column of a table: its heading and how a cell comes from an object.

In: a name, a type and a cell function, or a CRD's ``additionalPrinterColumns``. Out: :class:`Column`, with the
definition that a Table carries. Cell functions get the object and the time; they never raise for objects that
lack fields.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson

from manager.types import Obj

from .durations import since
from .jsonpath import JsonPath

Cell = Callable[[Obj, datetime], Any]


@dataclass(frozen=True, slots=True)
class Column:
    """A heading and its cells. ``priority`` above 0 shows with ``-o wide`` only."""

    name: str
    cell: Cell
    type: str = "string"
    format: str = ""
    description: str = ""
    priority: int = 0

    def definition(self) -> Obj:
        """The entry of ``columnDefinitions``."""
        return {
            "name": self.name,
            "type": self.type,
            "format": self.format,
            "description": self.description,
            "priority": self.priority,
        }

    @classmethod
    def from_crd(cls, raw: list[Obj]) -> list[Column]:
        """The columns of ``additionalPrinterColumns``, after the NAME that every CRD's table begins with.

        Raises:
            ValueError: a JSONPath that cannot be parsed (``validate_crd`` names it earlier).
        """
        return [NAME, *(cls._from_printer_column(column) for column in raw)]

    @classmethod
    def _from_printer_column(cls, raw: Obj) -> Column:
        kind = str(raw.get("type", "string"))
        path = JsonPath(str(raw.get("jsonPath", "")))

        def cell(obj: Obj, now: datetime) -> Any:
            return _printed(path.find(obj), kind, now)

        return cls(
            name=str(raw["name"]),
            cell=cell,
            type=kind,
            format=str(raw.get("format", "")),
            description=str(
                raw.get("description", "")
                or f"Custom resource definition column (in JSONPath format): {raw.get('jsonPath', '')}"
            ),
            priority=int(raw.get("priority", 0)),
        )


def _printed(values: list[Any], kind: str, now: datetime) -> Any:
    """The cell of a CRD column: the first value found, typed; None where there is nothing of that type."""
    if not values or values[0] is None:
        return None
    value = values[0]
    if kind == "string":
        return _text(value)
    if kind == "date":
        return since(value, now) if isinstance(value, str) else "<invalid>"
    if kind == "integer":
        return int(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
    if kind == "number":
        return value if isinstance(value, int | float) and not isinstance(value, bool) else None
    if kind == "boolean":
        return value if isinstance(value, bool) else None
    return None


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    return orjson.dumps(value).decode()


NAME = Column(
    "Name",
    lambda obj, _now: (obj.get("metadata") or {}).get("name", ""),
    format="name",
    description="Name must be unique within a namespace.",
)
AGE = Column(
    "Age",
    lambda obj, now: since((obj.get("metadata") or {}).get("creationTimestamp"), now),
    description="Time since the object was created.",
)
