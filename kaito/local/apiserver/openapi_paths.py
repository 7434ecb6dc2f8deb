"""The paths of an OpenAPI document: which operations there are, on what, with which query parameters.

In: resource types. Out: the ``paths`` object of a Swagger 2.0 or an OpenAPI 3.0 document. kubectl reads the
parameters of PATCH and POST operations to learn whether the server validates fields and dry-runs.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from manager.types import Obj

from .builtin import subresource
from .definitions import definition_name
from .registry import ResourceType

GVK = "x-kubernetes-group-version-kind"
_PATCH = "io.k8s.apimachinery.pkg.apis.meta.v1.Patch"
_CUSTOM_PATCHES = (
    "application/apply-patch+yaml",
    "application/json-patch+json",
    "application/merge-patch+json",
)
# kubectl sends a strategic merge wherever a document lists it; custom resources do not take one
_BUILTIN_PATCHES = (*_CUSTOM_PATCHES, "application/strategic-merge-patch+json")
_DESCRIPTIONS = {
    "dryRun": "With 'All', the request runs through every stage and nothing is stored.",
    "fieldManager": "The name of whoever makes this change, for metadata.managedFields.",
    "fieldValidation": "What to do about unknown or duplicate fields: Ignore, Warn or Strict.",
    "force": "Take over fields that other managers own (apply patches only).",
}
_QUERY = {
    "create": ("dryRun", "fieldManager", "fieldValidation"),
    "update": ("dryRun", "fieldManager", "fieldValidation"),
    "patch": ("dryRun", "fieldManager", "fieldValidation", "force"),
    "delete": ("dryRun",),
    "deletecollection": ("dryRun",),
}
_METHODS = {
    "get": "get",
    "list": "get",
    "create": "post",
    "update": "put",
    "patch": "patch",
    "delete": "delete",
    "deletecollection": "delete",
}
_ACTIONS = {"create": "post", "update": "put"}


def schema_name(resource_type: ResourceType) -> str:
    """The name of a type's schema: its definition, or ``sh.kaito.v1alpha1.Workspace`` for custom resources."""
    if resource_type.is_crd:
        domain = reversed(resource_type.group.split("."))
        return ".".join([*domain, resource_type.version, resource_type.kind])
    return definition_name(resource_type.group, resource_type.version, resource_type.kind) or ""


def gvk_of(resource_type: ResourceType, kind: str = "") -> Obj:
    """Group, version and kind as documents spell them."""
    return {"group": resource_type.group, "version": resource_type.version, "kind": kind or resource_type.kind}


@dataclass(frozen=True, slots=True)
class _Target:
    """What the operations at one path work on."""

    schema: str
    gvk: Obj
    name: str  # of the operation, after its verb
    patches: tuple[str, ...]  # media types of PATCH


def paths_of(types: Iterable[ResourceType], *, v3: bool) -> Obj:
    """Every path of some types."""
    paths: Obj = {}
    for one in types:
        root = f"/apis/{one.group}/{one.version}" if one.group else f"/api/{one.version}"
        base = f"{root}/namespaces/{{namespace}}/{one.plural}" if one.namespaced else f"{root}/{one.plural}"
        space = [_variable("namespace", v3=v3)] if one.namespaced else []
        named = [_variable("name", v3=v3), *space]
        prefix = _operation_prefix(one)
        scope = "Namespaced" if one.namespaced else ""
        patches = _CUSTOM_PATCHES if one.is_crd else _BUILTIN_PATCHES
        main = _Target(schema_name(one), gvk_of(one), f"{prefix}{scope}{one.kind}", patches)
        _add(paths, base, _only(one.verbs, "list", "create", "deletecollection"), main, space, v3=v3)
        if one.namespaced:
            everywhere = _Target(main.schema, main.gvk, f"{prefix}{one.kind}ForAllNamespaces", patches)
            _add(paths, f"{root}/{one.plural}", _only(one.verbs, "list"), everywhere, [], v3=v3)
        _add(paths, f"{base}/{{name}}", _only(one.verbs, "get", "update", "patch", "delete"), main, named, v3=v3)
        for sub in sorted(one.subresources):
            answer = subresource(one.plural, sub)
            gvk = (
                {"group": answer.group, "version": answer.version, "kind": answer.kind}
                if answer.kind
                else main.gvk
            )
            schema = definition_name(gvk["group"], gvk["version"], gvk["kind"]) or main.schema
            below = _Target(schema, gvk, f"{main.name}{sub.capitalize()}", patches)
            _add(paths, f"{base}/{{name}}/{sub}", answer.verbs, below, named, v3=v3)
    return paths


def _only(verbs: tuple[str, ...], *wanted: str) -> tuple[str, ...]:
    return tuple(verb for verb in wanted if verb in verbs)


def _operation_prefix(resource_type: ResourceType) -> str:
    parts = (resource_type.group.removesuffix(".k8s.io") or "core").split(".")
    return "".join(part.capitalize() for part in [*parts, resource_type.version])


def _add(
    paths: Obj, path: str, verbs: tuple[str, ...], target: _Target, parameters: list[Obj], *, v3: bool
) -> None:
    if verbs:
        operations = {_METHODS[verb]: _operation(verb, target, v3=v3) for verb in verbs}
        paths[path] = {**operations, "parameters": parameters}


def _variable(name: str, *, v3: bool) -> Obj:
    base: Obj = {"name": name, "in": "path", "required": True, "description": f"The {name} of the object."}
    return {**base, "schema": {"type": "string"}} if v3 else {**base, "type": "string"}


def _query(name: str, *, v3: bool) -> Obj:
    base: Obj = {"name": name, "in": "query", "description": _DESCRIPTIONS[name]}
    kind: Obj = {"type": "boolean" if name == "force" else "string", "uniqueItems": True}
    return {**base, "schema": kind} if v3 else {**base, **kind}


def _operation(verb: str, target: _Target, *, v3: bool) -> Obj:
    prefix = "#/components/schemas/" if v3 else "#/definitions/"
    ref = {"$ref": prefix + target.schema}
    operation: Obj = {
        "operationId": f"{verb}{target.name}",
        "parameters": [_query(name, v3=v3) for name in _QUERY.get(verb, ())],
        "responses": {"200": {"description": "OK"}},
        "x-kubernetes-action": _ACTIONS.get(verb, verb),
        GVK: target.gvk,
    }
    if v3:
        operation["responses"]["200"]["content"] = {"application/json": {"schema": ref}}
    else:
        operation["responses"]["200"]["schema"] = ref
        operation["consumes"] = list(target.patches) if verb == "patch" else ["application/json"]
        operation["produces"] = ["application/json"]
    if verb in ("create", "update", "patch"):
        body = {"$ref": prefix + _PATCH} if verb == "patch" else ref
        if v3:
            media = target.patches if verb == "patch" else ("application/json",)
            operation["requestBody"] = {"content": {one: {"schema": body} for one in media}, "required": True}
        else:
            operation["parameters"].insert(0, {"name": "body", "in": "body", "required": True, "schema": body})
    return operation
