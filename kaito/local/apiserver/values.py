"""Whether values fit their node: types, ranges, patterns, formats, enumerations, identities of list elements.

In: a value and its :class:`~structure.Node`. Out: every :class:`FieldError` below it. The wording is that of
kube-openapi's validator as clients see it in ``details.causes``. Nothing is changed and nothing is remembered,
apart from compiled patterns.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from manager.types import Obj

from . import fielderrors
from .fielderrors import FieldError, render
from .formats import FORMATS
from .structure import ANY, MISSING, Node

_JSON_TYPES: list[tuple[type | tuple[type, ...], str]] = [
    (bool, "boolean"),
    (int, "integer"),
    (float, "number"),
    (str, "string"),
    (list, "array"),
    (dict, "object"),
]


def json_type(value: Any) -> str:
    """The JSON type name; a whole float counts as an integer, as JSON makes no difference."""
    if value is None:
        return "null"
    if isinstance(value, float) and math.isfinite(value) and value == int(value):
        return "integer"
    return next(name for kind, name in _JSON_TYPES if isinstance(value, kind))


def fits(value: Any, node: Node) -> bool:
    """Whether a value has the JSON type that the node wants."""
    found = json_type(value)
    if node.int_or_string:
        return found in ("integer", "string")
    if node.quantity:
        return found in ("integer", "number", "string")
    if node.type == "number":
        return found in ("integer", "number")
    return not node.type or found == node.type


# ---------------------------------------------------------------------- validation


def validate_value(value: Any, node: Node, path: str, *, in_status: bool) -> list[FieldError]:
    """Every problem of a value. ``in_status``: below ``status`` of a built-in kind, where nothing is required."""
    if node is ANY:
        return []
    if node.builtin:
        return list(_builtin_problems(value, node, path, in_status))
    return list(_problems(value, node, path))


# the Go field may be absent although the definition lists it: its zero value is sent instead
_ZERO_IS_FINE = frozenset(
    {"endpoints", "conditions", "eventTime", "metadata", "status", "preferences", "revision", "spec"}
)


def _builtin_problems(value: Any, node: Node, path: str, in_status: bool) -> Iterator[FieldError]:
    if isinstance(value, dict):
        for name in [] if in_status or node.is_map else node.required:
            child = node.properties.get(name)
            scalar_zero = child is not None and child.type in ("integer", "number", "boolean")
            if name in _ZERO_IS_FINE or scalar_zero:
                continue
            if value.get(name) in (None, "", [], {}) and not (value.get(name) == {} and child and child.atomic):
                yield fielderrors.required(f"{path}.{name}" if path else name)
        for key, item in value.items():
            child = node.field(key)
            if child is None or child is ANY or item is None:
                continue
            below = in_status or (not path and key == "status")
            here = f"{path}[{key}]" if node.is_map else (f"{path}.{key}" if path else key)
            yield from _builtin_problems(item, child, here, below)
    elif isinstance(value, list) and node.items is not None:
        for index, item in enumerate(value):
            yield from _builtin_problems(item, node.items, f"{path}[{index}]", in_status)


def _problems(value: Any, node: Node, path: str) -> Iterator[FieldError]:
    if node is ANY:
        return
    if node.builtin:
        yield from _builtin_problems(value, node, path, False)
        return
    if value is None:
        if not node.nullable and (node.type or node.int_or_string):
            yield fielderrors.type_invalid(path, "null", _type_text(path, node, "null"))
        return
    if not fits(value, node):
        found = json_type(value)
        yield fielderrors.type_invalid(path, found, _type_text(path, node, found))
        return
    raw = node.raw
    enum = raw.get("enum")
    if enum is not None and not any(value == one and type(value) is type(one) for one in enum):
        yield fielderrors.not_supported(path, value, enum)
    if isinstance(value, str):
        yield from _string_problems(value, raw, path)
    elif isinstance(value, bool):
        pass
    elif isinstance(value, int | float):
        yield from _number_problems(value, raw, path)
    elif isinstance(value, list):
        yield from _list_problems(value, node, path)
    elif isinstance(value, dict):
        yield from _object_problems(value, node, path)
    yield from _junctor_problems(value, node, path)


def _type_text(path: str, node: Node, found: str) -> str:
    wanted = "integer,string" if node.int_or_string else node.type
    return f'{path} in body must be of type {wanted}: "{found}"'


def _string_problems(value: str, raw: Obj, path: str) -> Iterator[FieldError]:
    longest, shortest = raw.get("maxLength"), raw.get("minLength")
    pattern = raw.get("pattern")
    if longest is not None and len(value) > longest:
        yield fielderrors.too_long(path, longest)
    elif shortest is not None and len(value) < shortest:
        yield fielderrors.invalid(path, value, f"{path} in body should be at least {shortest} chars long")
    elif pattern is not None and not _compiled(pattern).search(value):
        yield fielderrors.invalid(path, value, f"{path} in body should match '{pattern}'")
    check = FORMATS.get(str(raw.get("format", "")))
    if check is not None and not check(value):
        detail = f"{path} in body must be of type {raw['format']}: {render(value)}"
        yield fielderrors.type_invalid(path, value, detail)


def _number_problems(value: float, raw: Obj, path: str) -> Iterator[FieldError]:
    low, high, step = raw.get("minimum"), raw.get("maximum"), raw.get("multipleOf")
    if low is not None and (value <= low if raw.get("exclusiveMinimum") else value < low):
        word = "greater than" if raw.get("exclusiveMinimum") else "greater than or equal to"
        yield fielderrors.invalid(path, value, f"{path} in body should be {word} {render(low)}")
    if high is not None and (value >= high if raw.get("exclusiveMaximum") else value > high):
        word = "less than" if raw.get("exclusiveMaximum") else "less than or equal to"
        yield fielderrors.invalid(path, value, f"{path} in body should be {word} {render(high)}")
    if step and not math.isclose(value / step, round(value / step), abs_tol=1e-9):
        yield fielderrors.invalid(path, value, f"{path} in body should be a multiple of {render(step)}")
    width = {"int32": 31, "int64": 63}.get(str(raw.get("format", "")))
    if width and not -(2**width) <= value < 2**width:
        detail = f"{path} in body must be of type {raw['format']}: {render(value)}"
        yield fielderrors.invalid(path, value, detail)


def _list_problems(value: list[Any], node: Node, path: str) -> Iterator[FieldError]:
    most, least = node.raw.get("maxItems"), node.raw.get("minItems")
    if most is not None and len(value) > most:
        yield fielderrors.too_many(path, len(value), most)
    if least is not None and len(value) < least:
        yield fielderrors.invalid(path, len(value), f"{path} in body should have at least {least} items")
    if node.raw.get("uniqueItems") and len({render(item) for item in value}) < len(value):
        yield fielderrors.invalid(path, value, f"{path} in body shouldn't contain duplicates")
    yield from _identity_problems(value, node, path)
    if node.items is not None:
        for index, item in enumerate(value):
            yield from _problems(item, node.items, f"{path}[{index}]")


def _identity_problems(value: list[Any], node: Node, path: str) -> Iterator[FieldError]:
    if node.list_type == "atomic":
        return
    seen: set[str] = set()
    for index, item in enumerate(value):
        shown: Any = item
        if node.list_type == "map":
            if not isinstance(item, dict):
                continue
            pairs = {key: item.get(key, node.key_default(key)) for key in node.list_keys}
            shown = {key: found for key, found in pairs.items() if found is not MISSING}
        identity = render(shown)
        if identity in seen:
            yield fielderrors.duplicate(f"{path}[{index}]", shown)
        seen.add(identity)


def _object_problems(value: Obj, node: Node, path: str) -> Iterator[FieldError]:
    raw = node.raw
    most, least = raw.get("maxProperties"), raw.get("minProperties")
    if most is not None and len(value) > most:
        yield fielderrors.too_many(path, len(value), most)
    if least is not None and len(value) < least:
        yield fielderrors.invalid(path, value, f"{path} in body should have at least {least} properties")
    for name in node.required:
        if name not in value:
            yield fielderrors.required(f"{path}.{name}" if path else name)
    for key, item in value.items():
        child = node.field(key)
        if child is not None and child is not ANY:
            yield from _problems(item, child, f"{path}.{key}" if path else key)


def _junctor_problems(value: Any, node: Node, path: str) -> Iterator[FieldError]:
    raw = node.raw
    if node.int_or_string:
        return  # the anyOf of an int-or-string is implied by the extension

    def holds(part: Obj) -> bool:
        return not validate_value(value, Node(_with_type(part, node), builtin=False), path, in_status=False)

    # the real server names these problems in the message alone: their field is empty
    for part in raw.get("allOf") or ():
        yield from validate_value(value, Node(_with_type(part, node), builtin=False), path, in_status=False)
    some = raw.get("anyOf")
    if some and not any(holds(part) for part in some):
        yield fielderrors.invalid("", "", f'"{path}" must validate at least one schema (anyOf)')
    one = raw.get("oneOf")
    if one:
        count = sum(holds(part) for part in one)
        if count != 1:
            found = "Found none valid" if count == 0 else f"Found {count} valid alternatives"
            yield fielderrors.invalid("", "", f'"{path}" must validate one and only one schema (oneOf). {found}')
    none = raw.get("not")
    if none is not None and holds(none):
        yield fielderrors.invalid("", "", f'"{path}" must not validate the schema (not)')


def _with_type(part: Obj, node: Node) -> Obj:
    return part if "type" in part or not node.type else {"type": node.type, **part}


@lru_cache(maxsize=512)
def _compiled(pattern: str) -> re.Pattern[str]:
    # Go's RE2 and Python agree on what CRDs use; \z and named classes are what they spell differently
    return re.compile(pattern.replace(r"\z", r"\Z").replace("[[:alnum:]]", "[0-9A-Za-z]"))
