"""The difference of two states of an object, as the smallest merge patch (RFC 7386) that makes one into the other.

Pure. Parts that both states share (``is``) are not looked into, so that a change of a large object costs what has
changed. As the RFC has it, lists are replaced whole and None cannot be told from absence.
"""

from __future__ import annotations

import orjson

from manager.types import Obj


def merge_patch(before: Obj, after: Obj) -> Obj:
    """The patch; empty when nothing differs."""
    patch: Obj = {}
    for field in before:
        if before[field] is not None and after.get(field) is None:
            patch[field] = None
    for field, value in after.items():
        old = before.get(field)
        if value is None or value is old:
            continue
        if isinstance(value, dict) and isinstance(old, dict):
            if inner := merge_patch(old, value):
                patch[field] = inner
        elif value != old or not _same(value, old):
            patch[field] = _present(value) if isinstance(value, dict) else value
    return patch


def private_copy(obj: Obj) -> Obj:
    """A deep copy that its owner may change; several times faster than ``copy.deepcopy`` for JSON."""
    copied: Obj = orjson.loads(orjson.dumps(obj))
    return copied


def _same(one: object, other: object) -> bool:
    """Whether values that Python calls equal are so in JSON, where true is not 1."""
    if isinstance(one, str):
        return True
    return orjson.dumps(one, option=orjson.OPT_SORT_KEYS) == orjson.dumps(other, option=orjson.OPT_SORT_KEYS)


def _present(value: Obj) -> Obj:
    """A part that is new as a whole, without fields that are None: in a patch they would mean removal."""
    return merge_patch({}, value)
