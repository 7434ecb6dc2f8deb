"""OpenAPI documents: what ``kubectl explain``, client-side validation and feature checks read.

In: the registry and the definitions of built-in kinds. Out: a Swagger 2.0 document, and per group version an
OpenAPI 3.0 document with an index of them. kubectl looks in these for three things, and all are there: the
schema of a kind (by ``x-kubernetes-group-version-kind``), the ``fieldValidation``, ``dryRun`` and
``fieldManager`` parameters of its PATCH and POST operations, and references between schemas. Responses and
query parameters of reads are left out: no client that we know reads them. Documents are large; the server
keeps what it has rendered until the registry changes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import orjson

from manager.types import Obj

from .builtin import subresource
from .definitions import DELETE_OPTIONS, KUBERNETES_VERSION, OBJECT_META, REF_PREFIX, definition_name, definitions
from .openapi_paths import gvk_of, paths_of, schema_name
from .registry import Registry, ResourceType

_INFO = {"title": "Kubernetes", "version": f"v{KUBERNETES_VERSION}"}
_GVK = "x-kubernetes-group-version-kind"
_INT_OR_STRING = "io.k8s.apimachinery.pkg.util.intstr.IntOrString"
_QUANTITY = "io.k8s.apimachinery.pkg.api.resource.Quantity"


# ---------------------------------------------------------------------- schemas


def _references(raw: Any) -> Iterator[str]:
    if isinstance(raw, dict):
        ref = raw.get("$ref")
        if isinstance(ref, str):
            yield ref.removeprefix(REF_PREFIX)
        for value in raw.values():
            yield from _references(value)
    elif isinstance(raw, list):
        for value in raw:
            yield from _references(value)


def _closure(names: set[str]) -> set[str]:
    """The definitions that are needed to understand some."""
    known = definitions()
    found: set[str] = set()
    pending = [name for name in names if name in known]
    while pending:
        name = pending.pop()
        if name not in found:
            found.add(name)
            pending.extend(_references(known[name]))
    return found


def _rendered(raw: Any, prefix: str) -> Any:
    """A fragment of the definitions as an OpenAPI document holds it: no null types, references re-rooted."""
    if isinstance(raw, list):
        return [_rendered(item, prefix) for item in raw]
    if not isinstance(raw, dict):
        return raw
    if "$ref" in raw:
        ref = {"$ref": prefix + raw["$ref"].removeprefix(REF_PREFIX)}
        beside = {key: value for key, value in raw.items() if key != "$ref"}
        if not beside or not prefix.startswith("#/components"):
            return {**beside, **ref}
        return {**beside, "allOf": [ref]}  # in OpenAPI 3.0 a bare $ref hides its siblings
    result = {}
    for key, value in raw.items():
        if key == "properties" and isinstance(value, dict):
            result[key] = {name: _rendered(below, prefix) for name, below in value.items()}
        elif key == "type" and isinstance(value, list):
            result[key] = next(one for one in value if one != "null")
        elif key not in ("$schema", "$id", "enum") or (key == "enum" and not _is_identity(value, raw)):
            result[key] = _rendered(value, prefix)
    return result


def _is_identity(values: Any, raw: Obj) -> bool:
    """Whether an enumeration only pins apiVersion or kind to its one value, which real documents do not."""
    return isinstance(values, list) and len(values) == 1 and "string" in raw.get("type", ())


def _definition(name: str, prefix: str) -> Obj:
    if name == _INT_OR_STRING:
        shape: Obj = {"type": "string", "format": "int-or-string"}
        if prefix.startswith("#/components"):
            shape = {"oneOf": [{"type": "integer"}, {"type": "string"}], "format": "int-or-string"}
        return {"description": definitions()[name].get("description", ""), **shape}
    if name == _QUANTITY:
        shape = {"type": "string"}
        if prefix.startswith("#/components"):
            shape = {"oneOf": [{"type": "string"}, {"type": "number"}]}
        return {"description": definitions()[name].get("description", ""), **shape}
    rendered: Obj = _rendered(definitions()[name], prefix)
    return rendered


def _custom(resource_type: ResourceType, prefix: str) -> Obj:
    """The schema of a custom resource, with what every object has."""
    raw: Obj = {}
    if resource_type.schema is not None:
        raw = {
            key: value
            for key, value in resource_type.schema.raw.items()
            if key != "x-kubernetes-embedded-resource"
        }
    properties = {
        "apiVersion": {"type": "string", "description": "The group and version of this object."},
        "kind": {"type": "string", "description": "The kind of this object."},
        **(raw.get("properties") or {}),
    }
    meta = {"$ref": prefix + OBJECT_META}
    properties["metadata"] = {"allOf": [meta]} if prefix.startswith("#/components") else meta
    schema: Obj = {**raw, "type": "object", "properties": properties, _GVK: [gvk_of(resource_type)]}
    if not prefix.startswith("#/components"):
        schema = _as_swagger(schema)
    return schema


def _as_swagger(raw: Any) -> Any:
    """Without what Swagger 2.0 cannot say (``nullable``, ``oneOf``, ...): clients would reject the document."""
    if isinstance(raw, list):
        return [_as_swagger(item) for item in raw]
    if not isinstance(raw, dict):
        return raw
    if raw.get("x-kubernetes-preserve-unknown-fields"):
        kept = ("description", "type", "x-kubernetes-preserve-unknown-fields", _GVK)
        if not raw.get("properties"):
            return {key: raw[key] for key in kept if key in raw}
    result = {}
    for key, value in raw.items():
        if key == "properties":
            result[key] = {name: _as_swagger(below) for name, below in value.items()}
        elif key not in ("oneOf", "anyOf", "allOf", "not", "nullable", "x-kubernetes-validations"):
            result[key] = _as_swagger(value)
    return result


def _list_schema(resource_type: ResourceType, prefix: str) -> Obj:
    return {
        "type": "object",
        "required": ["items"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"$ref": prefix + "io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta"},
            "items": {"type": "array", "items": {"$ref": prefix + schema_name(resource_type)}},
        },
        _GVK: [gvk_of(resource_type, resource_type.list_kind)],
    }


def _schemas(types: list[ResourceType], prefix: str) -> Obj:
    """Every schema that the types need, by name."""
    wanted = {OBJECT_META, DELETE_OPTIONS, "io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta"}
    found: Obj = {}
    for one in types:
        wanted.add(schema_name(one))
        if one.is_crd:
            found[schema_name(one)] = _custom(one, prefix)
            found[schema_name(one) + "List"] = _list_schema(one, prefix)
        else:
            wanted.add(definition_name(one.group, one.version, one.list_kind) or OBJECT_META)
    for one in types:
        for name in one.subresources:
            answer = subresource(one.plural, name)
            wanted.add(definition_name(answer.group, answer.version, answer.kind) or OBJECT_META)
    found.update({name: _definition(name, prefix) for name in _closure(wanted)})
    return dict(sorted(found.items()))


# ---------------------------------------------------------------------- documents


def v2(registry: Registry) -> Obj:
    """The document at ``/openapi/v2``. JSON only; protobuf is not offered."""
    types = registry.all()
    found = _schemas(types, "#/definitions/")
    found.setdefault("io.k8s.apimachinery.pkg.apis.meta.v1.Patch", {"type": "object", "description": "A patch."})
    return {"swagger": "2.0", "info": _INFO, "paths": paths_of(types, v3=False), "definitions": found}


def v3_index(registry: Registry) -> Obj:
    """The document at ``/openapi/v3``: where each group version's document is.

    The hash in a URL changes when anything that the group version serves changes, so that clients may cache.
    """
    paths = {}
    for group in registry.groups():
        for version in registry.versions(group):
            name = f"apis/{group}/{version}" if group else f"api/{version}"
            digest = hashlib.sha256(KUBERNETES_VERSION.encode())
            for one in registry.all():
                if (one.group, one.version) == (group, version):
                    digest.update(_fingerprint(one))
            paths[name] = {"serverRelativeURL": f"/openapi/v3/{name}?hash={digest.hexdigest()[:32].upper()}"}
    return {"paths": paths}


def _fingerprint(resource_type: ResourceType) -> bytes:
    parts: list[Any] = [resource_type.plural, resource_type.kind, sorted(resource_type.subresources)]
    if resource_type.is_crd and resource_type.schema is not None:
        parts.append(resource_type.schema.raw)
    return orjson.dumps(parts)


def v3_document(registry: Registry, group_version: str) -> Obj | None:
    """The document of ``api/v1`` or ``apis/<group>/<version>``; None for one that is not served."""
    root, _, rest = group_version.strip("/").partition("/")
    group, _, version = rest.rpartition("/")
    if (root, bool(group)) not in (("api", False), ("apis", True)):
        return None
    types = [one for one in registry.all() if (one.group, one.version) == (group, version)]
    if not types:
        return None
    found = _schemas(types, "#/components/schemas/")
    found.setdefault("io.k8s.apimachinery.pkg.apis.meta.v1.Patch", {"type": "object", "description": "A patch."})
    return {
        "openapi": "3.0.0",
        "info": _INFO,
        "paths": paths_of(types, v3=True),
        "components": {"schemas": found},
    }
