"""Numbers that may be written as a percentage: ``maxSurge``, ``maxUnavailable``, ``minAvailable``."""

from __future__ import annotations


def resolve(value: object, total: int, *, round_up: bool, default: int = 0) -> int:
    """The number that ``value`` (an int, ``"3"`` or ``"25%"``) stands for out of ``total``.

    None and unreadable text give ``default``.
    """
    if isinstance(value, bool) or value is None:
        return default
    if isinstance(value, int):
        return value
    text = str(value)
    try:
        if not text.endswith("%"):
            return int(text)
        scaled = int(text[:-1]) * total
    except ValueError:
        return default
    return -(-scaled // 100) if round_up else scaled // 100


def surge_and_unavailable(surge: object, unavailable: object, desired: int) -> tuple[int, int]:
    """(maxSurge, maxUnavailable) of a rolling update; surge rounds up, unavailable down.

    Both zero would never move, so unavailable becomes 1 then, as in the built-in controller.
    """
    extra = resolve(surge, desired, round_up=True)
    missing = resolve(unavailable, desired, round_up=False)
    return (extra, missing) if extra or missing else (0, 1)
