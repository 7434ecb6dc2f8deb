"""What a refusal means to a reflector: is the version useless, is the server old, is another try worth it?

In: an error of the server. Out: a verdict. The shapes that errors take differ between versions of Kubernetes, and
are recognised here and nowhere else. Semantics: client-go's ``isTooLargeResourceVersionError`` and
``RetryWithDeadline``.
"""

from __future__ import annotations

from manager.errors import ApiError, Gone

NOT_STREAMED = frozenset({400, 405, 422, 501})
"""HTTP statuses with which servers that do not know streamed lists answer a request for one."""

_WINDOW_RESET = 60.0  # seconds between two internal errors after which their window starts anew


class InternalErrors:
    """Whether a watch that was answered with an internal error is worth another try; client-go's
    ``RetryWithDeadline``."""

    def __init__(self, window: float) -> None:
        self._window = window
        self._first: float | None = None
        self._last = float("-inf")

    def allows(self, error: ApiError, now: float) -> bool:
        """Count this error; True while the window that the first of them opened is open."""
        if error.status != 500 or error.reason != "InternalError" or self._window <= 0:
            return False
        if self._first is None or now - self._last >= _WINDOW_RESET:
            self._first = now
        self._last = now
        if now - self._first <= self._window:
            return True
        self._first = None
        return False


def version_is_unusable(error: ApiError) -> bool:
    """410, or "too large resource version" in the shapes that old and new servers give it."""
    if isinstance(error, Gone):
        return True
    causes = (error.details or {}).get("causes") or []
    if any(cause.get("reason") == "ResourceVersionTooLarge" for cause in causes):
        return True
    if error.reason != "Timeout":
        return False
    words = [error.message, *(str(cause.get("message")) for cause in causes)]
    return any("Too large resource version" in text for text in words)
