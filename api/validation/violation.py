"""One thing that is wrong with an object, and the verdict on a whole one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

_SHOWN: Final = 20


@dataclass(frozen=True, slots=True)
class Violation:
    """Where, what, and how to put it right.

    Attributes:
        path: the field as in the manifest, for example ``inference.adapters[0].source.name``.
        message: what is wrong.
        hint: what to do, possibly empty.
    """

    path: str
    message: str
    hint: str = ""

    @property
    def text(self) -> str:
        """Message and hint, without the path."""
        return f"{self.message} ({self.hint})" if self.hint else self.message

    def __str__(self) -> str:
        return f"{self.path}: {self.text}" if self.path else self.text


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is to be said about a change: it is admitted if nothing is wrong.

    Attributes:
        violations: what is wrong.
        warnings: what is allowed and worth saying; empty where something is wrong.
    """

    violations: tuple[Violation, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def admitted(self) -> bool:
        """Whether nothing is wrong."""
        return not self.violations


def shortened(found: Sequence[Violation]) -> list[Violation]:
    """The first of them, for people: nobody reads 5,000 lines, and no status can hold them."""
    if len(found) <= _SHOWN:
        return list(found)
    more = Violation("", f"and {len(found) - _SHOWN} more", "correct these first")
    return [*found[:_SHOWN], more]
