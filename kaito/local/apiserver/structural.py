"""Whether a CRD's schema is structural, and sound enough to validate with.

In: ``openAPIV3Schema``. Out: every place that the real server refuses: a value without a type, logical
combinations that say more than value rules, metadata that is restricted, keys of lists that are not there,
defaults that do not fit, patterns that do not compile. CEL rules are not compiled. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from manager.types import Obj

from .fielderrors import FieldError, forbidden, invalid, not_supported, required
from .structure import MISSING, Node
from .values import validate_value

_TYPES = ["array", "boolean", "integer", "number", "object", "string"]
_JUNCTORS = ("allOf", "anyOf", "oneOf", "not")
_NOT_IN_JUNCTORS = (
    "type",
    "description",
    "title",
    "default",
    "nullable",
    "additionalProperties",
    "x-kubernetes-preserve-unknown-fields",
    "x-kubernetes-embedded-resource",
    "x-kubernetes-int-or-string",
    "x-kubernetes-list-type",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-map-type",
)
_UNSUPPORTED = (
    "$ref",
    "definitions",
    "dependencies",
    "deprecated",
    "discriminator",
    "id",
    "patternProperties",
    "readOnly",
    "writeOnly",
    "xml",
    "$schema",
    "additionalItems",
)
_STRUCTURAL_WORD = {"type": "empty", "description": "empty", "title": "empty", "nullable": "false"}
_INT_OR_STRING = [{"type": "integer"}, {"type": "string"}]


def structural_problems(schema: Obj, path: str) -> Iterator[FieldError]:
    """Everything that keeps a schema from being used."""
    if schema.get("type") and schema["type"] != "object":
        yield invalid(f"{path}.type", schema["type"], "must be object at the root")
    if schema.get("nullable"):
        yield forbidden(f"{path}.nullable", "nullable cannot be true at the root")
    yield from _problems(schema, path, "must not be empty at the root")
    metadata = (schema.get("properties") or {}).get("metadata")
    if isinstance(metadata, dict):
        yield from _metadata(metadata, f"{path}.properties[metadata]")


def _metadata(schema: Obj, path: str) -> Iterator[FieldError]:
    allowed = {"name", "generateName"}
    extra = set(schema) - {"type", "description", "properties"}
    if extra or set(schema.get("properties") or {}) - allowed:
        yield forbidden(
            path,
            "must not specify anything other than name and generateName, but metadata is implicitly specified",
        )


def _problems(schema: Obj, path: str, empty: str) -> Iterator[FieldError]:
    kind = schema.get("type")
    int_or_string = bool(schema.get("x-kubernetes-int-or-string"))
    if int_or_string and kind:
        yield invalid(f"{path}.type", kind, "must be empty if x-kubernetes-int-or-string is true")
    elif not kind and not int_or_string and not schema.get("x-kubernetes-preserve-unknown-fields"):
        yield required(f"{path}.type", empty)
    elif kind and kind not in _TYPES:
        yield not_supported(f"{path}.type", kind, _TYPES)
    yield from _keywords(schema, path)
    yield from _extensions(schema, path)
    yield from _default(schema, path)
    for name, below in (schema.get("properties") or {}).items():
        yield from _problems(below, f"{path}.properties[{name}]", "must not be empty for specified object fields")
    additional = schema.get("additionalProperties")
    if isinstance(additional, dict):
        yield from _problems(
            additional, f"{path}.additionalProperties", "must not be empty for specified object fields"
        )
    items = schema.get("items")
    if isinstance(items, dict):
        yield from _problems(items, f"{path}.items", "must not be empty for specified array items")
    for junctor in _JUNCTORS:
        for index, part in enumerate(_parts(schema.get(junctor))):
            here = f"{path}.{junctor}" if junctor == "not" else f"{path}.{junctor}[{index}]"
            yield from _value_rules(part, here, allow_types=int_or_string)


def _parts(found: object) -> list[Obj]:
    if isinstance(found, dict):
        return [found]
    return [part for part in found if isinstance(part, dict)] if isinstance(found, list) else []


def _keywords(schema: Obj, path: str) -> Iterator[FieldError]:
    kind = schema.get("type")
    if schema.get("properties") and schema.get("additionalProperties") not in (None, False):
        yield forbidden(f"{path}.additionalProperties", "additionalProperties and properties are mutual exclusive")
    if schema.get("additionalProperties") is False:
        yield forbidden(f"{path}.additionalProperties", "additionalProperties cannot be set to false")
    if schema.get("uniqueItems"):
        detail = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic"
        yield forbidden(f"{path}.uniqueItems", detail)
    if kind == "array" and schema.get("items") is None:
        yield required(f"{path}.items", "must be specified")
    for key in _UNSUPPORTED:
        if key in schema:
            yield forbidden(f"{path}.{key}", f"{key} is not supported")
    yield from _pattern(schema, path)


def _pattern(schema: Obj, path: str) -> Iterator[FieldError]:
    pattern = schema.get("pattern")
    if not pattern:
        return
    try:
        re.compile(str(pattern).replace(r"\z", r"\Z"))
    except re.error as error:
        yield invalid(f"{path}.pattern", pattern, f"must be a valid regular expression, but isn't: {error}")


def _extensions(schema: Obj, path: str) -> Iterator[FieldError]:
    kind = schema.get("type")
    if schema.get("x-kubernetes-preserve-unknown-fields") is False:
        yield invalid(f"{path}.x-kubernetes-preserve-unknown-fields", False, "must be true or undefined")
    if schema.get("x-kubernetes-preserve-unknown-fields") and kind not in (None, "", "object"):
        yield invalid(f"{path}.type", kind, "must be object if x-kubernetes-preserve-unknown-fields is true")
    if schema.get("x-kubernetes-embedded-resource"):
        if kind != "object":
            yield invalid(f"{path}.type", kind, "must be object if x-kubernetes-embedded-resource is true")
        if not schema.get("properties") and not schema.get("x-kubernetes-preserve-unknown-fields"):
            yield required(
                f"{path}.properties",
                "must not be empty if x-kubernetes-embedded-resource is true without "
                "x-kubernetes-preserve-unknown-fields",
            )
    map_type = schema.get("x-kubernetes-map-type")
    if map_type is not None and map_type not in ("atomic", "granular"):
        yield not_supported(f"{path}.x-kubernetes-map-type", map_type, ["atomic", "granular"])
    yield from _list_type(schema, path)


def _list_type(schema: Obj, path: str) -> Iterator[FieldError]:
    list_type = schema.get("x-kubernetes-list-type")
    keys = schema.get("x-kubernetes-list-map-keys") or []
    if list_type is None:
        if keys:
            detail = "must be map if x-kubernetes-list-map-keys is non-empty"
            yield required(f"{path}.x-kubernetes-list-type", detail)
        return
    if list_type not in ("atomic", "set", "map"):
        yield not_supported(f"{path}.x-kubernetes-list-type", list_type, ["atomic", "map", "set"])
    if schema.get("type") != "array":
        yield invalid(f"{path}.type", schema.get("type"), "must be array if x-kubernetes-list-type is specified")
    items = schema.get("items") or {}
    if list_type == "map":
        if not keys:
            yield required(
                f"{path}.x-kubernetes-list-map-keys", "must not be empty if x-kubernetes-list-type is map"
            )
        if items.get("type") != "object":
            yield invalid(
                f"{path}.items.type",
                items.get("type"),
                "must be object if parent array's x-kubernetes-list-type is map",
            )
        yield from _keys(items, keys, path)
    elif list_type == "set" and items.get("type") in ("object", "array"):
        atomic = items.get("x-kubernetes-map-type") == "atomic" or items.get("x-kubernetes-list-type") == "atomic"
        if not atomic:
            detail = "items must be scalar or atomic if x-kubernetes-list-type is set"
            yield invalid(f"{path}.items", items.get("type"), detail)


def _keys(items: Obj, keys: list[str], path: str) -> Iterator[FieldError]:
    properties = items.get("properties") or {}
    for index, key in enumerate(keys):
        found = properties.get(key)
        if found is None:
            yield invalid(
                f"{path}.x-kubernetes-list-map-keys[{index}]",
                key,
                f"didn't match any property in items; must be one of {', '.join(sorted(properties))}",
            )
        elif "default" not in found and key not in (items.get("required") or ()):
            yield required(
                f"{path}.items.properties[{key}].default",
                "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required "
                "property",
            )


def _default(schema: Obj, path: str) -> Iterator[FieldError]:
    default = schema.get("default", MISSING)
    if default is MISSING:
        return
    for problem in validate_value(default, Node(schema, builtin=False), "", in_status=False):
        below = f".{problem.path}" if problem.path else ""
        yield FieldError(f"{path}.default{below}", problem.type, problem.message)


def _value_rules(schema: Obj, path: str, *, allow_types: bool) -> Iterator[FieldError]:
    for key in _NOT_IN_JUNCTORS:
        if key in schema and not (allow_types and schema in _INT_OR_STRING):
            word = _STRUCTURAL_WORD.get(key, "undefined")
            yield forbidden(f"{path}.{key}", f"must be {word} to be structural")
    yield from _pattern(schema, path)
    for name, below in (schema.get("properties") or {}).items():
        yield from _value_rules(below, f"{path}.properties[{name}]", allow_types=False)
    if isinstance(schema.get("items"), dict):
        yield from _value_rules(schema["items"], f"{path}.items", allow_types=False)
    for junctor in _JUNCTORS:
        for index, part in enumerate(_parts(schema.get(junctor))):
            here = f"{path}.{junctor}" if junctor == "not" else f"{path}.{junctor}[{index}]"
            yield from _value_rules(part, here, allow_types=allow_types)
