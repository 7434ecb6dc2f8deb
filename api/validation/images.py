"""Container image references, read as container engines read them.

In: text. Out: the parts, or None where no engine would take it. No regular expression that can be made slow: the
text comes from anybody.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

_LONGEST: Final = 512  # a repository has 255 characters at most, a tag 128, a digest 135
_DOMAIN: Final = re.compile(r"[A-Za-z0-9.-]+(:[0-9]{1,5})?|\[[0-9A-Fa-f:]+\](:[0-9]{1,5})?")
_COMPONENT: Final = re.compile(r"[a-z0-9]+([._-]+[a-z0-9]+)*")
_TAG: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_DIGEST: Final = re.compile(r"[a-z0-9]+([+._-][a-z0-9]+)*:[0-9A-Fa-f]{32,128}")


@dataclass(frozen=True, slots=True)
class Image:
    """``[domain/]path[:tag][@digest]``; absent parts are empty."""

    repository: str
    tag: str = ""
    digest: str = ""


def parse_image(text: str) -> Image | None:
    """The parts of a reference (``nginx`` is one), or None when it is not one."""
    if not text or len(text) > _LONGEST:
        return None
    rest, at, digest = text.partition("@")
    if at and _DIGEST.fullmatch(digest) is None:
        return None
    head, slash, last = rest.rpartition("/")
    name, colon, tag = last.partition(":")
    if colon and _TAG.fullmatch(tag) is None:
        return None
    repository = f"{head}{slash}{name}"
    return Image(repository, tag, digest) if _is_repository(repository) else None


def _is_repository(text: str) -> bool:
    first, slash, path = text.partition("/")
    names_a_host = bool(slash) and (any(mark in first for mark in ".:[") or first == "localhost")
    if names_a_host and _DOMAIN.fullmatch(first) is None:
        return False
    parts = (path if names_a_host else text).split("/")
    return len(text) <= 255 and all(_COMPONENT.fullmatch(part) for part in parts)


def split_image(text: str) -> tuple[str, str] | None:
    """``(repository, tag)`` of ``host/path:tag`` as upstream's tuning rules want it, or None.

    Upper case passes here; whether it is a mistake is another question.
    """
    repository, _, tag = text.rpartition(":")
    head, _, name = repository.rpartition("/")
    if len(text) > _LONGEST or not (tag and head and name) or "/" in tag or ":" in name or "\n" in text:
        return None
    return repository, tag
