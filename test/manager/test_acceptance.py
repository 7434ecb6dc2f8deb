"""The framework's acceptance list is shown, number by number.

The list is section 8 of the framework's specification: behaviours of client-go and controller-runtime, in groups A
(reflector) to H (webhooks). A test carries the numbers that it shows in a marker, which makes them part of its id:
``pytest -k FW-A01``. What does not apply to this framework stands here with its reason, and nowhere else.
"""

from __future__ import annotations

import re
from pathlib import Path

GROUPS = {"A": 27, "B": 27, "C": 12, "D": 18, "E": 26, "F": 20, "G": 16, "H": 10}

DOES_NOT_APPLY: dict[str, str] = {}
"""Number to reason. Empty: every behaviour has its test."""


def test_every_number_of_the_list_is_shown_or_has_its_reason() -> None:
    """All 156 numbers are in markers of tests, or in the table above, and no number is in both or made up."""
    wanted = {f"FW-{group}{number:02d}" for group, count in GROUPS.items() for number in range(1, count + 1)}
    marked: set[str] = set()
    for file in Path(__file__).parent.glob("test_*.py"):
        for arguments in re.findall(r"acceptance\(([^)]*)\)", file.read_text()):
            marked |= set(re.findall(r"FW-[A-Z]\d+", arguments))

    assert len(wanted) == 156
    assert marked | set(DOES_NOT_APPLY) == wanted
    assert not marked & set(DOES_NOT_APPLY)
