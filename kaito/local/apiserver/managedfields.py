"""placeholder"""

from __future__ import annotations

from manager.types import Obj

from .registry import ResourceType


class ApplyConflict(Exception):
    """Fields of an apply belong to other managers. ``causes`` are the entries of ``details.causes``."""

    def __init__(self, causes: list[Obj]) -> None:
        self.causes = causes
        super().__init__(f"Apply failed with {len(causes)} conflict{'s' if len(causes) != 1 else ''}")


def apply_patch(
    live: Obj | None,
    applied: Obj,
    *,
    manager: str,
    force: bool,
    resource_type: ResourceType,
    subresource: str | None,
    now: str,
) -> Obj:
    from .patching import json_merge

    return json_merge(live or {}, applied)


def record_update(
    old: Obj | None, new: Obj, *, manager: str, resource_type: ResourceType, subresource: str | None, now: str
) -> Obj:
    return new
