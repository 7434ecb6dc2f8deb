"""placeholder"""

from __future__ import annotations

from manager.types import Obj

from .fielderrors import FieldError


def validate_crd(crd: Obj, old: Obj | None = None) -> list[FieldError]:
    return []
