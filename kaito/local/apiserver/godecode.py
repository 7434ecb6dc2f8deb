"""Whether a Go server could decode a built-in object: the sentence with which it would refuse.

In: an object and its node. Out: one sentence, or None. A built-in kind whose field has the wrong type is a bad
request, not an invalid object, so this comes before validation. Custom resources have Go types for their
metadata only.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from .fielderrors import render
from .formats import is_base64, is_date_time
from .structure import ANY, Node
from .values import fits, json_type

_QUANTITY = re.compile(r"[+-]?(\d+|\d+\.\d*|\.\d+)(Ki|Mi|Gi|Ti|Pi|Ei|n|u|m|k|M|G|T|P|E|[eE][+-]?\d+)?")
_GO_JSON = {"boolean": "bool", "integer": "number", "number": "number", "string": "string", "array": "array"}


def decode_error(value: Any, node: Node) -> str | None:
    """Go's reason for refusing a value of a built-in type, or None. See ``Schema.decode_error``."""
    for problem in _decode_errors(value, node, "", ""):
        return problem
    return None


def _decode_errors(value: Any, node: Node, path: str, struct: str) -> Iterator[str]:
    if value is None or node is ANY:
        return
    if not node.builtin:
        # a custom resource: only the metadata has a Go type
        child = node.properties.get("metadata") if not path and node.embedded else None
        if child is not None and isinstance(value, dict):
            yield from _decode_errors(value.get("metadata"), child, "metadata", "")
        return
    if node.quantity and isinstance(value, str):
        if not _QUANTITY.fullmatch(value):
            yield ("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")
        return
    if not fits(value, node) and not node.loose:
        yield _unmarshal(value, node, path, struct)
        return
    if isinstance(value, dict):
        for key, item in value.items():
            child = node.field(key)
            if child is not None:
                yield from _decode_errors(item, child, f"{path}.{key}" if path else key, node.name or struct)
    elif isinstance(value, list) and node.items is not None:
        for item in value:
            yield from _decode_errors(item, node.items, path, struct)
    elif isinstance(value, str) and node.format == "date-time" and not is_date_time(value):
        yield (f'parsing time "{value}" as "2006-01-02T15:04:05Z07:00": cannot parse "{value}" as "2006"')
    elif isinstance(value, str) and node.format == "byte" and not is_base64(value):
        yield "illegal base64 data at input byte 0"


def _unmarshal(value: Any, node: Node, path: str, struct: str) -> str:
    go_type = _go_type(node)
    found = json_type(value)
    if go_type == "int32" and found == "number":
        return f"json: cannot unmarshal number {render(value)} into Go struct field {struct}.{path} of type int32"
    kind = _GO_JSON.get(found, found)
    return f"json: cannot unmarshal {kind} into Go struct field {struct}.{path} of type {go_type}"


def _go_type(node: Node) -> str:
    if node.int_or_string:
        return "intstr.IntOrString"
    if node.quantity:
        return "resource.Quantity"
    if node.type == "integer":
        return node.format or "int64"
    if node.type == "boolean":
        return "bool"
    if node.type == "number":
        return "float64"
    if node.type == "array":
        return f"[]{_go_type(node.items)}" if node.items is not None else "[]interface {}"
    if node.is_map and node.additional is not None:
        return f"map[string]{_go_type(node.additional)}"
    if node.type == "object":
        return f"v1.{node.name}" if node.name else "map[string]interface {}"
    return node.type or "interface {}"
