"""Resource versions, compared: as the integers that they are on every server we know, else for equality only.

Semantics: Kubernetes API concepts, "resource versions"; that they may be compared is official since 1.35.
"""

from __future__ import annotations

from collections.abc import Iterable


def number(version: str) -> int | None:
    """The version as an integer, or None when it is none."""
    return int(version) if version.isdecimal() else None


def at_least(reached: str, wanted: str) -> bool:
    """Whether who has come to ``reached`` has seen ``wanted``; for versions that are no numbers: whether equal."""
    have, want = number(reached), number(wanted)
    if have is None or want is None:
        return reached == wanted
    return have >= want


def oldest(versions: Iterable[str]) -> str:
    """The lowest of several; empty when one is unknown, or cannot be compared with the others."""
    found: list[tuple[int, str]] = []
    distinct = set(versions)
    if len(distinct) == 1:
        return distinct.pop()
    for version in distinct:
        value = number(version)
        if value is None:
            return ""
        found.append((value, version))
    return min(found)[1] if found else ""
