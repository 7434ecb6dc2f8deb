"""What the verbs of the API look like on the wire: paths, queries, content types and options. Pure functions.

Everything that can be known to be wrong before a request is sent is refused here: names that would address
something else than meant, and field managers that a server would not take.
"""

from __future__ import annotations

import re
from enum import StrEnum
from functools import lru_cache
from urllib.parse import quote, urlencode

import orjson

from manager.errors import InvalidRequest
from manager.transport import header_lines
from manager.types import Obj, Resource
from manager.watch import ACCEPT_METADATA, ACCEPT_OBJECTS


class PatchType(StrEnum):
    """The kinds of patch; the values are the content types."""

    JSON = "application/json-patch+json"
    MERGE = "application/merge-patch+json"
    STRATEGIC = "application/strategic-merge-patch+json"
    APPLY = "application/apply-patch+yaml"


class FieldValidation(StrEnum):
    """What a server does about unknown and duplicate fields (since 1.25; older ones ignore the wish)."""

    IGNORE = "Ignore"
    WARN = "Warn"
    STRICT = "Strict"


JSON = "application/json"
_MAX_MANAGER = 128  # bytes; the API's own limit

HEADERS: dict[tuple[str | None, bool], bytes] = {
    (content, metadata_only): header_lines(
        {
            "Accept": ACCEPT_METADATA if metadata_only else ACCEPT_OBJECTS,
            **({"Content-Type": str(content)} if content else {}),
        }
    )
    for content in (None, JSON, *PatchType)
    for metadata_only in (False, True)
}
"""Header lines by content type of the body, and whether only metadata is wanted."""

_SUBRESOURCE_KINDS = {
    "scale": ("autoscaling/v1", "Scale"),
    "eviction": ("policy/v1", "Eviction"),
    "binding": ("v1", "Binding"),
    "token": ("authentication.k8s.io/v1", "TokenRequest"),
}

_PLAIN = re.compile(r"[A-Za-z0-9_~-][A-Za-z0-9._:~-]*").fullmatch


def segment(text: str, what: str) -> str:
    """A name as a part of a path.

    Raises:
        InvalidRequest: it is empty or would lead elsewhere.
    """
    if _PLAIN(text):
        return text
    if not text or text in (".", "..") or "/" in text or "%" in text:
        raise InvalidRequest(f"{text!r} cannot be the {what} of an object")
    return quote(text, safe="")


def object_path(resource: Resource, namespace: str | None, name: str, subresource: str | None) -> str:
    """The path of one object.

    Raises:
        InvalidRequest: a part is missing or cannot be one.
    """
    if not resource.namespaced:
        namespace = None
    elif namespace:
        namespace = segment(namespace, "namespace")
    else:
        raise InvalidRequest(f"{resource.plural} live in namespaces, and none was given for {name!r}")
    return resource.path(namespace, segment(name, "name"), subresource)


def collection_path(resource: Resource, namespace: str | None) -> str:
    """The path of a collection; without a namespace that of all namespaces."""
    return resource.path(segment(namespace, "namespace") if namespace else None)


@lru_cache(maxsize=256)
def write_query(manager: str, dry_run: bool, validation: str | None, force: bool | None = None) -> str:
    """The query of a write.

    Raises:
        InvalidRequest: no server would take this field manager.
    """
    if len(manager.encode()) > _MAX_MANAGER or not manager.isprintable():
        raise InvalidRequest(f"the field manager {manager[:40]!r}... is over 128 bytes or not printable")
    parts = {
        "fieldManager": manager or None,
        "dryRun": "All" if dry_run else None,
        "fieldValidation": validation,
        "force": None if force is None else str(force).lower(),
    }
    query = urlencode({key: value for key, value in parts.items() if value is not None})
    return f"?{query}" if query else ""


def delete_options(
    *,
    propagation: str | None,
    grace_seconds: int | None,
    dry_run: bool,
    uid: str | None = None,
    resource_version: str | None = None,
) -> Obj:
    """The body of a delete. All options are in it, because a server that sees a body ignores the query."""
    preconditions = {key: value for key, value in (("uid", uid), ("resourceVersion", resource_version)) if value}
    options: Obj = {"apiVersion": "v1", "kind": "DeleteOptions"}
    if propagation is not None:
        options["propagationPolicy"] = propagation
    if grace_seconds is not None:
        options["gracePeriodSeconds"] = grace_seconds
    if preconditions:
        options["preconditions"] = preconditions
    if dry_run:
        options["dryRun"] = ["All"]
    return options


def typed(resource: Resource, obj: Obj, subresource: str | None = None) -> Obj:
    """The object with apiVersion and kind, which may be left out where they are clear."""
    api_version, kind = _SUBRESOURCE_KINDS.get(subresource or "", (resource.api_version, resource.kind))
    return {"apiVersion": api_version, "kind": kind, **obj}


def applied(obj: Obj) -> Obj:
    """The object as an apply may send it: without managedFields, which servers refuse there."""
    metadata = obj.get("metadata")
    if not isinstance(metadata, dict) or "managedFields" not in metadata:
        return obj
    return {**obj, "metadata": {key: value for key, value in metadata.items() if key != "managedFields"}}


def metadata_of(resource: Resource, obj: Obj) -> Obj:
    """A ``PartialObjectMetadata`` as an object of its own kind, and nothing else than metadata in any case."""
    return {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": obj.get("metadata") or {}}


def encoded(body: Obj | list[Obj]) -> bytes:
    """The body as JSON.

    Raises:
        InvalidRequest: it is not JSON: other types, keys that are no text, numbers over 64 bits.
    """
    try:
        return orjson.dumps(body)
    except TypeError as error:
        raise InvalidRequest(f"the body cannot be sent as JSON: {error}") from error
