"""From a request's body to an object of its type: kind, unknown fields, defaults, ownership.

In: a decoded body and the type of the URL. Out: an object that the server owns alone, with what the schema
does not know reported (as fieldValidation says) and dropped, defaults filled in and the writer noted in
managedFields; or a 400 that says what cannot be. Pure.
"""

from __future__ import annotations

from kaito.local.apiserver.copying import copied
from kaito.local.apiserver.defaults import apply_defaults
from kaito.local.apiserver.errors import bad_request
from kaito.local.apiserver.managedfields import record_update
from kaito.local.apiserver.registry import ResourceType
from kaito.local.apiserver.requests import Body, Options
from manager.types import Obj

__all__ = ["check_fields", "check_kind", "decode", "default", "own"]

_STATUS_CREATED = {"Node", "PersistentVolume", "APIService"}  # their creators write the status too


def own(resource: ResourceType, old: Obj | None, obj: Obj, subresource: str, options: Options, now: str) -> Obj:
    """Note who wrote what: the client's fields and defaults, not what admission or the strategy adds."""
    if old is None and "status" in resource.subresources and resource.kind not in _STATUS_CREATED:
        obj = {key: value for key, value in obj.items() if key != "status"}
    return record_update(
        old,
        obj,
        manager=options.field_manager,
        resource_type=resource,
        subresource=subresource or None,
        now=now,
    )


def default(resource: ResourceType, obj: Obj) -> Obj:
    if resource.is_crd:
        return copied(resource.schema.default(obj)) if resource.schema else obj
    apply_defaults(resource, obj)
    return obj


def decode(resource: ResourceType, body: Body, options: Options) -> Obj:
    """The body as an object of the type, with unknown fields reported and dropped."""
    obj = body.obj()
    check_kind(resource, obj)
    if not isinstance(obj.setdefault("metadata", {}), dict):
        raise bad_request(f"{_cannot_handle(resource)}: metadata must be an object")
    schema = resource.schema
    if schema is None:
        return obj
    problem = schema.decode_error(obj)
    if problem:
        raise bad_request(f"{_cannot_handle(resource)}: {problem}")
    check_fields(resource, obj, body.duplicates, options)
    obj = copied(schema.prune(obj))
    obj["apiVersion"], obj["kind"] = resource.api_version, resource.kind
    obj.setdefault("metadata", {})
    return obj


def check_fields(resource: ResourceType, obj: Obj, duplicates: list[str], options: Options) -> None:
    if options.field_validation == "Ignore" or resource.schema is None:
        return
    problems = [*duplicates, *resource.schema.decode_problems(obj)]
    if not problems:
        return
    if options.field_validation == "Strict":
        raise bad_request(f"{_cannot_handle(resource)}: strict decoding error: {', '.join(problems)}")
    options.warnings += [problem for problem in problems if problem not in options.warnings]


def _cannot_handle(resource: ResourceType) -> str:
    return f'{resource.kind} in version "{resource.version}" cannot be handled as a {resource.kind}'


def check_kind(resource: ResourceType, obj: Obj) -> None:
    kind, version = obj.get("kind"), obj.get("apiVersion")
    if not kind:
        raise bad_request("Object 'Kind' is missing in the body of the request")
    if not version:
        raise bad_request("Object 'apiVersion' is missing in the body of the request")
    if version != resource.api_version:
        raise bad_request(
            f"the API version in the data ({version}) does not match the expected API version "
            f"({resource.api_version})"
        )
    if kind != resource.kind:
        raise bad_request(f"the kind in the data ({kind}) does not match the expected kind ({resource.kind})")
