"""Admission rules of a Workspace, as pure functions from plain objects to values.

``validate_create`` and ``validate_update`` say what is wrong, ``warnings`` what is allowed and worth saying.
The webhook, the controller and the CLI ask the same functions. Rejections carry upstream's literal fragments,
since tools match on them; where upstream refuses the user's own examples (placeholders), we warn instead.
"""

from __future__ import annotations

from api.validation.create import validate_create
from api.validation.update import validate_update
from api.validation.violation import Violation
from api.validation.warn import warnings

__all__ = ["Violation", "validate_create", "validate_update", "warnings"]
