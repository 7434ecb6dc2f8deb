"""Splitting a byte stream into lines without a limit on their length.

aiohttp's ``readline`` refuses long lines; one object of a watch may well be longer than its buffer. Chunks flow
in, complete lines flow out; an incomplete tail is kept as pieces, so that a long line costs one join, not a copy
per chunk.
"""

from __future__ import annotations


class LineSplitter:
    """Feed chunks, get lines without their line ends; empty lines are dropped."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def feed(self, chunk: bytes) -> list[bytes]:
        """The lines that this chunk completes."""
        if b"\n" not in chunk:
            self._pieces.append(chunk)
            return []
        first, *rest = chunk.split(b"\n")
        self._pieces.append(first)
        lines = [b"".join(self._pieces), *rest[:-1]]
        self._pieces = [rest[-1]] if rest[-1] else []
        return [line for line in lines if line]

    def rest(self) -> bytes:
        """What came after the last line end."""
        return b"".join(self._pieces)
