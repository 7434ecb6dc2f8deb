"""Patches: RFC 6902 operations, RFC 7386 merges, and Kubernetes' strategic merge.

In: an object and a patch as decoded JSON. Out: a new object; inputs are never changed. A patch that cannot be
applied raises :class:`PatchError` with the HTTP status that the real server answers: 400 for a malformed
patch, 422 for one that does not fit the object.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import jsonpatch
from jsonpointer import JsonPointerException

from manager.types import Obj

from .errors_patch import PatchError
from .schema import Schema
from .strategic import merge

__all__ = ["PatchError", "json_merge", "json_patch", "strategic_merge"]

_MAX_OPERATIONS = 10_000  # the real server's limit


def json_patch(obj: Obj, ops: list[Obj]) -> Obj:
    """Apply RFC 6902 operations, all or nothing."""
    if not isinstance(ops, list):
        raise PatchError(
            400, "error decoding patch: json: cannot unmarshal object into Go value of type jsonpatch.Patch"
        )
    if len(ops) > _MAX_OPERATIONS:
        raise PatchError(
            413, f"The allowed maximum operations in a JSON patch is {_MAX_OPERATIONS}, got {len(ops)}"
        )
    try:
        patched: Any = jsonpatch.JsonPatch(deepcopy(ops)).apply(obj, in_place=False)
    except jsonpatch.JsonPatchTestFailed as error:
        raise PatchError(
            422, f"the server rejected our request due to an error in our request: testing failed: {error}"
        ) from error
    except (jsonpatch.InvalidJsonPatch, TypeError) as error:
        raise PatchError(400, f"error decoding patch: {error}") from error
    except (jsonpatch.JsonPatchException, JsonPointerException) as error:
        raise PatchError(
            422, f"the server rejected our request due to an error in our request: {error}"
        ) from error
    if not isinstance(patched, dict):
        raise PatchError(422, "the patch replaces the object by something that is no object")
    return patched


def json_merge(obj: Obj, patch: Obj) -> Obj:
    """Apply an RFC 7386 merge patch: null removes, objects merge, everything else replaces."""
    if not isinstance(patch, dict):
        raise PatchError(400, "error decoding patch: a merge patch must be an object")
    merged: Obj = _merged(obj, patch)
    return merged


def _merged(target: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = _merged(result.get(key), value)
    return result


def strategic_merge(obj: Obj, patch: Obj, schema: Schema) -> Obj:
    """Apply a strategic merge patch by the merge keys of a built-in kind's schema.

    Honoured directives: ``$patch`` (replace, delete, merge), ``$deleteFromPrimitiveList/<field>``,
    ``$setElementOrder/<field>`` and ``$retainKeys``.
    """
    if not isinstance(patch, dict):
        raise PatchError(400, "error decoding patch: a strategic merge patch must be an object")
    return merge(obj, patch, schema.root)
