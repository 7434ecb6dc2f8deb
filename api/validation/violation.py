"""One thing that is wrong with an object."""

from __future__ import annotations

from dataclasses import dataclass


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

    def __str__(self) -> str:
        text = f"{self.path}: {self.message}" if self.path else self.message
        return f"{text} ({self.hint})" if self.hint else text
