"""Paths inside a container → paths on this machine.

A local process shares the machine's file system, so a mount path such as `/etc/kaito/adapters` does not
exist for it. In: the words of argv and the values of env, and a map of mount paths and image paths to
folders. Out: the same text with each such path replaced where it stands for a path: at the start, or after
a separator as in `--model=/path`, `A=/x:/y` and the script of `sh -c`. Pure. A longer path wins over a
shorter one that contains it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

_BEFORE = r"(?:(?<=^)|(?<=[\s='\":;,(<>|&@]))"
_AFTER = r"(?=/|$|[\s'\":;,)<>|&])"


class PathMap:
    """Rewrites container paths in texts."""

    def __init__(self, paths: Mapping[str, str]) -> None:
        clean = {inside.rstrip("/"): outside for inside, outside in paths.items() if inside.rstrip("/")}
        self._paths = clean
        longest_first = sorted(clean, key=len, reverse=True)
        self._pattern = (
            re.compile(_BEFORE + "(" + "|".join(map(re.escape, longest_first)) + ")" + _AFTER) if clean else None
        )

    def rewrite(self, text: str) -> str:
        """`text` with every container path replaced."""
        if self._pattern is None:
            return text
        return self._pattern.sub(lambda found: self._paths[found[1]], text)
