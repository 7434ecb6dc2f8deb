"""Admission rules of a Workspace, as pure functions from plain objects to values.

``judge`` is the one question of the webhook, the controller and the command line; ``validate_create`` and
``validate_update`` are the parts of it that say what is wrong, ``warnings`` what is allowed and worth saying.
Rejections carry upstream's literal fragments, since tools match on them. Where upstream's releases contradict
each other, ``Switches`` decides, and its defaults admit the user's own examples (old GPUs, placeholders) with a
warning.
"""

from __future__ import annotations

from api.validation.create import validate_create
from api.validation.switches import DEFAULT, LENIENT, V012, V03, Switches, UnknownSwitch
from api.validation.update import validate_update
from api.validation.verdict import judge, judge_for_any
from api.validation.violation import Verdict, Violation, shortened
from api.validation.warn import warnings
from api.validation.world import UNSEEN, Wanted, World, wanted

__all__ = [
    "DEFAULT",
    "LENIENT",
    "UNSEEN",
    "V012",
    "V03",
    "Switches",
    "UnknownSwitch",
    "Verdict",
    "Violation",
    "Wanted",
    "World",
    "judge",
    "judge_for_any",
    "shortened",
    "validate_create",
    "validate_update",
    "wanted",
    "warnings",
]
