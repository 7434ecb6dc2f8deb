"""Small pieces that many tables share: reading a path, listing containers, spelling selectors and sizes.

In: objects or parts of them, possibly incomplete. Out: texts and numbers for cells. Nothing here raises for a
missing field: a table must print whatever is stored.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from manager.types import Obj

from .column import Cell, Column
from .durations import since

NONE = "<none>"
UNKNOWN = "<unknown>"


def at(obj: Any, path: str, default: Any = None) -> Any:
    """The value at ``a.b.c``, or the default where the path ends early or leads to null."""
    for name in path.split("."):
        if not isinstance(obj, dict):
            return default
        obj = obj.get(name)
    return default if obj is None else obj


def field(name: str, path: str, default: Any = "", *, kind: str = "string", wide: bool = False) -> Column:
    """A column that shows one field."""
    return Column(name, lambda obj, _now: at(obj, path, default), type=kind, priority=int(wide))


def number(name: str, path: str, *, wide: bool = False) -> Column:
    """A column that shows one number; absent is 0."""
    return field(name, path, 0, kind="integer", wide=wide)


def computed(name: str, cell: Cell, *, kind: str = "string", wide: bool = False) -> Column:
    """A column whose cell is computed from the object and the time."""
    return Column(name, cell, type=kind, priority=int(wide))


def plain(name: str, cell: Any, *, kind: str = "string", wide: bool = False) -> Column:
    """A column whose cell is computed from the object alone."""
    return Column(name, lambda obj, _now: cell(obj), type=kind, priority=int(wide))


def age_of(name: str, path: str, *, wide: bool = False) -> Column:
    """A column that shows the age of a time."""

    def cell(obj: Obj, now: datetime) -> str:
        return since(at(obj, path), now)

    return Column(name, cell, priority=int(wide))


def listed(items: Iterable[str], limit: int | None = None, separator: str = ",") -> str:
    """Items in one cell, ``+ n more...`` past the limit; ``<none>`` for nothing."""
    found = list(items)
    if not found:
        return NONE
    if limit is not None and len(found) > limit:
        return f"{separator.join(found[:limit])} + {len(found) - limit} more..."
    return separator.join(found)


def labels(found: Any) -> str:
    """``a=b,c=d`` in the order of the keys."""
    if not isinstance(found, dict) or not found:
        return NONE
    return ",".join(f"{key}={found[key]}" for key in sorted(found))


def selector(found: Any) -> str:
    """A label selector in kubectl's syntax."""
    if not isinstance(found, dict):
        return NONE
    parts = [f"{key}={value}" for key, value in sorted((found.get("matchLabels") or {}).items())]
    for rule in found.get("matchExpressions") or ():
        key, values = rule.get("key", ""), ",".join(sorted(rule.get("values") or ()))
        spelled = {
            "In": f"{key} in ({values})",
            "NotIn": f"{key} notin ({values})",
            "Exists": key,
            "DoesNotExist": f"!{key}",
        }
        parts.append(spelled.get(rule.get("operator", ""), key))
    return ",".join(parts) or NONE


def containers(template: str) -> list[Column]:
    """The wide columns CONTAINERS and IMAGES of a pod template at a path."""

    def names(key: str) -> Cell:
        def cell(obj: Obj, _now: datetime) -> str:
            found = at(obj, f"{template}.spec.containers", [])
            return ",".join(str(container.get(key, "")) for container in found)

        return cell

    return [computed("Containers", names("name"), wide=True), computed("Images", names("image"), wide=True)]


def condition(obj: Obj, kind: str) -> Obj | None:
    """The condition of a type."""
    found = at(obj, "status.conditions", [])
    return next((one for one in found if isinstance(one, dict) and one.get("type") == kind), None)


def is_true(obj: Obj, kind: str) -> bool:
    """Whether the condition of a type is True."""
    found = condition(obj, kind)
    return found is not None and found.get("status") == "True"


_MODES = {
    "ReadWriteOnce": "RWO",
    "ReadOnlyMany": "ROX",
    "ReadWriteMany": "RWX",
    "ReadWriteOncePod": "RWOP",
}


def access_modes(found: Any) -> str:
    """``RWO,ROX`` in Kubernetes' order."""
    return ",".join(short for long, short in _MODES.items() if long in (found or ()))
