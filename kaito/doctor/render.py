"""Results as lines for a person and as JSON for a program. The JSON's field names are a contract.

In: results. Out: text. Pure but for the colours, which are the terminal's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from kaito.console import paint
from kaito.doctor.model import Result, Verdict, exit_code

_COLOURS = {Verdict.PASS: "green", Verdict.WARN: "yellow", Verdict.FAIL: "red", Verdict.SKIP: "dim"}


def render(results: Sequence[Result]) -> str:
    """One line for each, its fix below it, and the sum."""
    width = max((len(result.name) for result in results), default=0)
    lines = []
    for result in results:
        finding = result.finding
        mark = paint(f"{finding.verdict:4}", _COLOURS[finding.verdict])
        lines.append(f"{mark}  {result.name:{width}}  {finding.message}")
        if finding.fix:
            lines.append(f"      {'':{width}}  fix: {finding.fix}")
    counted = Counter(result.finding.verdict for result in results)
    told = ", ".join(f"{counted[verdict]} {verdict}" for verdict in Verdict if counted[verdict])
    return "\n".join([*lines, "", told])


def to_obj(results: Sequence[Result]) -> dict[str, Any]:
    """What a program reads."""
    return {
        "healthy": exit_code(results) == 0,
        "checks": [
            {
                "name": result.name,
                "verdict": str(result.finding.verdict),
                "message": result.finding.message,
                "fix": result.finding.fix or None,
            }
            for result in results
        ],
    }
