"""What a process said last, made fit for a condition.

In: a termination message, which holds the end of the log where the container gave none of its own. Out: one line.
Pure. Lines that only decorate do not count. The last line of a traceback names the error; engines end theirs by
pointing at a cause further up, which is then the line to show.
"""

from __future__ import annotations

import re

LONGEST = 300  # characters of a foreign message in ours; a stack trace belongs in the log
_FRAME = " \t\r│┃║╭╮╰╯─━═"  # what terminals draw around an error
_POINTERS = (
    "see root cause above",
    "see the root cause above",
    "above for the root cause",
    "see stack trace for root cause",
)
# An error's own line, which a logger may have put its prefix before: a name that ends so, then what happened.
_ERROR = re.compile(r"(?<![\w.])[\w.]*(?:Error|Exception): .*\S.*")
_UNDERTAKER = "resource_tracker"  # a helper of Python's that speaks when the process it serves is gone


def last_line(text: object) -> str:
    """The last line that says something, shortened; empty where there is none."""
    stripped = (line.strip(_FRAME) for line in str(text or "").splitlines())
    lines = [line for line in stripped if any(map(str.isalnum, line)) and _UNDERTAKER not in line]
    if not lines:
        return ""
    last = lines[-1]
    if _points(last):
        found = (_ERROR.search(line) for line in reversed(lines[:-1]) if not _points(line))
        last = next((error[0] for error in found if error), last)
    return shortened(last)


def shortened(text: object) -> str:
    """A foreign message in one line of bounded length."""
    line = " ".join(str(text or "").split())
    return line if len(line) <= LONGEST else line[: LONGEST - 1] + "…"


def _points(line: str) -> bool:
    return any(pointer in line.lower() for pointer in _POINTERS)
