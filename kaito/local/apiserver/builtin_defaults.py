"""placeholder"""

from __future__ import annotations

from manager.types import Obj


def apply(obj: Obj, group: str, version: str, kind: str) -> Obj:
    return obj
