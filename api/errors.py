"""What can be wrong with an object of ours, as exceptions that carry facts and the next step.

Two levels: ``SpecError`` and its kinds. Each renders to one line for a person; the facts stay attributes, so
that a caller never parses a message. pydantic's own errors do not leave this room.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

PRESET_EXAMPLES: Final = "phi-3-mini-4k-instruct, mistral-7b and microsoft/phi-4"


class SpecError(Exception):
    """Something that the user wrote cannot be used. ``message`` says what, ``next_step`` what to do."""

    def __init__(self, message: str, *, next_step: str = "") -> None:
        self.message = message
        self.next_step = next_step
        super().__init__(message)

    def __str__(self) -> str:
        return f"{self.message}. {self.next_step}".rstrip() if self.next_step else self.message


class InvalidSpec(SpecError):
    """An object does not have the shape of its kind. ``problems`` are ``(field path, what is wrong)``."""

    def __init__(self, kind: str, name: str, problems: Sequence[tuple[str, str]], *, next_step: str = "") -> None:
        self.kind = kind
        self.name = name
        self.problems = tuple(problems)
        listing = "; ".join(f"{path}: {what}" if path else what for path, what in self.problems)
        super().__init__(f"{kind} {name or '(unnamed)'} is invalid: {listing}", next_step=next_step)


class InvalidQuantity(SpecError, ValueError):
    """A Kubernetes quantity that is not one ("50Gi", "500m", "1e3" are)."""


class UnknownPreset(SpecError, LookupError):
    """No preset has this name. ``suggestions`` are the nearest ones, best first, possibly none."""

    def __init__(self, name: str, suggestions: Sequence[str] = ()) -> None:
        self.name = name
        self.suggestions = tuple(suggestions)
        if self.suggestions:
            hint = f"Did you mean {' or '.join(self.suggestions)}?"
        else:
            hint = f"Some that exist are {PRESET_EXAMPLES}"
        super().__init__(f"There is no preset named {name!r}", next_step=hint)
