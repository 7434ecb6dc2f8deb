"""Merge patches from two versions of a JSON object: what to send so that the server's copy becomes ours."""

from __future__ import annotations

from typing import Any

from manager.types import Obj


def merge_patch(old: Obj, new: Obj) -> Obj:
    """The JSON merge patch (RFC 7386) that turns ``old`` into ``new``; empty when they say the same.

    None in ``new`` counts as absent. Lists are replaced whole.
    """
    patch: Obj = {}
    for key in old:
        if old[key] is not None and new.get(key) is None:
            patch[key] = None
    for key, value in new.items():
        if value is None:
            continue
        before = old.get(key)
        if isinstance(value, dict) and isinstance(before, dict):
            inner = merge_patch(before, value)
            if inner:
                patch[key] = inner
        elif value != before:
            patch[key] = value
    return patch


def canonical(value: Any) -> Any:
    """The value less every null, empty map and empty list: two ways of saying nothing compare equal.

    API servers differ in which of them they store; the built-in controllers compare the same way.
    """
    if isinstance(value, dict):
        cleaned = {k: canonical(v) for k, v in value.items()}
        return {k: v for k, v in cleaned.items() if v not in (None, {}, [])}
    if isinstance(value, list):
        return [canonical(v) for v in value]
    return value
