"""The difference of two objects as a patch. Pure functions over plain dicts; neither argument is changed.

Equality is JSON's: ``1`` and ``true`` differ, which Python does not think, and whole numbers of any size stay what
they are. Semantics: RFC 7386 (merge patch: lists are replaced whole, null removes), RFC 6902 (JSON patch),
controller-runtime's ``MergeFrom`` and ``MergeFromWithOptimisticLock``.
"""

from __future__ import annotations

from typing import Any

from manager.errors import InvalidRequest
from manager.types import Obj


def merge_patch(original: Obj, modified: Obj, *, optimistic_lock: bool = False) -> Obj:
    """The JSON merge patch that makes ``original`` into ``modified``; empty when they are equal.

    A null inside ``modified`` means absent: a merge patch cannot say anything else.

    Args:
        optimistic_lock: the patch carries the original's resourceVersion, so that the server refuses it
            (``Conflict``) if the object has changed meanwhile. Such a patch is never empty.

    Raises:
        InvalidRequest: there is no resourceVersion to lock with.
    """
    patch = _merge(original, modified)
    if optimistic_lock:
        version = (original.get("metadata") or {}).get("resourceVersion")
        if not version:
            raise InvalidRequest("an optimistic lock needs the resourceVersion that the object was read at")
        patch["metadata"] = {**(patch.get("metadata") or {}), "resourceVersion": version}
    return patch


def json_patch(original: Any, modified: Any) -> list[Obj]:
    """The JSON patch that makes ``original`` into ``modified``; empty when they are equal."""
    import jsonpatch

    operations: list[Obj] = jsonpatch.make_patch(original, modified).patch
    return operations


def same(left: Any, right: Any) -> bool:
    """Whether two JSON values are equal, as JSON sees it."""
    if isinstance(left, dict):
        if not isinstance(right, dict) or left.keys() != right.keys():
            return False
        return all(same(value, right[key]) for key, value in left.items())
    if isinstance(left, list):
        if not isinstance(right, list) or len(left) != len(right):
            return False
        return all(map(same, left, right))
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    return bool(left == right)


def _merge(original: Obj, modified: Obj) -> Obj:
    patch: Obj = {key: None for key in original if modified.get(key) is None and original[key] is not None}
    for key, value in modified.items():
        if value is None:
            continue
        known = original.get(key)
        if isinstance(value, dict):
            if isinstance(known, dict):
                if inner := _merge(known, value):
                    patch[key] = inner
            else:
                # RFC 7386 would drop nulls inside a value that is new; leaving them out says the same.
                patch[key] = _without_nulls(value)
        elif known is None or not same(known, value):
            patch[key] = value
    return patch


def _without_nulls(value: Obj) -> Obj:
    return {
        key: _without_nulls(inner) if isinstance(inner, dict) else inner
        for key, inner in value.items()
        if inner is not None
    }
