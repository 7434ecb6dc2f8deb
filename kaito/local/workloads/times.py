"""Points in time as Kubernetes writes them: RFC 3339 in UTC, whole seconds, or micro-seconds for leases.

Every decision of this package takes the time as an argument; :func:`utc_now` is the clock that the
composition injects.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

Clock = Callable[[], datetime]


def utc_now() -> datetime:
    """The wall clock, aware, in UTC."""
    return datetime.now(UTC)


def rfc3339(moment: datetime) -> str:
    """``2024-05-01T10:00:00Z``."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def parse(text: str | None) -> datetime | None:
    """The moment that the text names, or None when it is absent or unreadable."""
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def seconds_since(text: str | None, now: datetime) -> float | None:
    """Seconds from the moment that the text names until ``now``; None when there is no such moment."""
    moment = parse(text)
    return None if moment is None else (now - moment).total_seconds()
