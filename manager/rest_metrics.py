"""What the client tells about its requests: a seam that metrics plug into, so that the client needs none."""

from __future__ import annotations

from typing import Protocol


class RestObserver(Protocol):
    """Told once per request that ended."""

    def finished(self, method: str, code: str, host: str) -> None:
        """``code`` is the HTTP status, or ``<error>`` when there was no answer."""
