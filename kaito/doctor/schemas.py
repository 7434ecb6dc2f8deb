"""Whether a CRD in the cluster has everything that this release's has: older ones lack fields, and prune them.

In: two CustomResourceDefinitions. Out: what is missing, as paths. Pure. A server adds defaults and an old one
drops rules, so equality would be too much to ask; versions, columns and fields are what matters.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

Obj = dict[str, Any]


def lacking(wanted: Obj, there: Obj) -> list[str]:
    """What ``there`` lacks of ``wanted``: versions, columns, subresources, and fields of the schema."""
    versions = {item["name"]: item for item in there["spec"].get("versions") or []}
    found: list[str] = []
    for version in wanted["spec"]["versions"]:
        name = version["name"]
        other = versions.get(name)
        if other is None or not other.get("served"):
            found.append(f"version {name}")
            continue
        columns = {item["name"] for item in other.get("additionalPrinterColumns") or []}
        found += [
            f"{name}: column {item['name']}"
            for item in version.get("additionalPrinterColumns") or []
            if item["name"] not in columns
        ]
        found += [
            f"{name}: subresource {part}"
            for part in version.get("subresources") or {}
            if part not in (other.get("subresources") or {})
        ]
        found += [f"{name}: {path}" for path in _missing(_schema(version), _schema(other), "")]
    return found


def _schema(version: Obj) -> Obj:
    return (version.get("schema") or {}).get("openAPIV3Schema") or {}


def _missing(wanted: Obj, there: Obj, path: str) -> Iterator[str]:
    fields = there.get("properties") or {}
    for name, schema in (wanted.get("properties") or {}).items():
        if name in fields:
            yield from _missing(schema, fields[name], f"{path}.{name}")
        elif not there.get("x-kubernetes-preserve-unknown-fields"):
            yield f"field {path}.{name}".replace(" .", " ")
    for key in ("items", "additionalProperties"):
        if isinstance(wanted.get(key), dict) and isinstance(there.get(key), dict):
            yield from _missing(wanted[key], there[key], f"{path}[]")
