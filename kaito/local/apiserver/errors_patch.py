"""The error of patches that cannot be applied. Kept apart so that every patch module can raise it."""

from __future__ import annotations


class PatchError(Exception):
    """A patch does not fit. ``status`` is the HTTP status to answer, ``message`` what to say."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
