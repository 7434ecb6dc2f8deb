"""placeholder"""

from __future__ import annotations

from manager.types import Obj

from .registry import Registry


def v2(registry: Registry) -> Obj: return {}
def v3_index(registry: Registry) -> Obj: return {}
def v3_document(registry: Registry, group_version: str) -> Obj | None: return None
