"""What a process said last, made fit for a condition.

In: a termination message, which holds the end of the log where the container gave none of its own. Out: one line.
Pure. Lines that only decorate do not count. The last line of a traceback names the error; engines end theirs by
pointing at a cause further up, which is then the line to show.
"""

from __future__ import annotations

LONGEST = 300  # characters of a foreign message in ours; a stack trace belongs in the log
_FRAME = " \t\r│┃║╭╮╰╯─━═"  # what terminals draw around an error
_POINTERS = ("see root cause above", "see the root cause above", "above for the root cause")


def last_line(text: object) -> str:
    """The last line that says something, shortened; empty where there is none."""
    stripped = (line.strip(_FRAME) for line in str(text or "").splitlines())
    lines = [line for line in stripped if any(character.isalnum() for character in line)]
    if not lines:
        return ""
    last = lines[-1]
    if any(pointer in last.lower() for pointer in _POINTERS):
        # An error's own line: a word with Error or Exception in it, then a colon. The nearest one explains it.
        named = (line for line in reversed(lines[:-1]) if _is_error(line))
        last = next(named, last)
    return shortened(last)


def shortened(text: object) -> str:
    """A foreign message in one line of bounded length."""
    line = " ".join(str(text or "").split())
    return line if len(line) <= LONGEST else line[: LONGEST - 1] + "…"


def _is_error(line: str) -> bool:
    head, colon, rest = line.partition(":")
    return bool(colon and rest.strip()) and head.split(" ")[-1].endswith(("Error", "Exception"))
