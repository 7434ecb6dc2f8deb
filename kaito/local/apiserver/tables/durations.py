"""Times as kubectl prints them: ``45s``, ``10m``, ``3h12m``, ``2d4h``, ``180d``, ``3y45d``.

In: RFC 3339 texts and the time now. Out: the short text; ``<unknown>`` for no time, ``<invalid>`` for one that
lies in the future by more than a second. Two units are shown only where the first is small, as Kubernetes'
duration package does.
"""

from __future__ import annotations

from datetime import UTC, datetime

UNKNOWN = "<unknown>"
INVALID = "<invalid>"


def parse(text: str | None) -> datetime | None:
    """An RFC 3339 time, or None for nothing or nonsense."""
    if not text:
        return None
    try:
        found = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def since(text: str | None, now: datetime) -> str:
    """The age of a time."""
    then = parse(text)
    return UNKNOWN if then is None else human((now - then).total_seconds())


def human(seconds: float) -> str:
    """A duration in at most two units."""
    whole = int(seconds)  # towards zero, as Go converts
    if whole < -1:
        return INVALID
    if whole < 0:
        return "0s"
    minutes, hours, days = whole // 60, whole // 3600, whole // 86400
    if whole < 120:
        return f"{whole}s"
    if minutes < 10:
        return _two(minutes, "m", whole % 60, "s")
    if minutes < 180:
        return f"{minutes}m"
    if hours < 8:
        return _two(hours, "h", minutes % 60, "m")
    if hours < 48:
        return f"{hours}h"
    if hours < 192:
        return _two(days, "d", hours % 24, "h")
    if hours < 24 * 365 * 2:
        return f"{days}d"
    if hours < 24 * 365 * 8:
        return _two(days // 365, "y", days % 365, "d")
    return f"{days // 365}y"


def _two(first: int, unit: str, second: int, smaller: str) -> str:
    return f"{first}{unit}{second}{smaller}" if second else f"{first}{unit}"
