"""Splitting a byte stream into lines without a limit on their length.

aiohttp's ``readline`` refuses long lines; one object of a watch may well be longer than its buffer. Chunks flow
in, complete lines flow out; an incomplete tail is kept as pieces, so that a long line costs one join, not a copy
per chunk. Almost every chunk of a watch is a number of whole lines: that path does nothing but split.
"""

from __future__ import annotations


class LineSplitter:
    """Feed chunks, get lines without their line ends; empty lines are dropped."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def feed(self, chunk: bytes) -> list[bytes]:
        """The lines that this chunk completes."""
        lines = chunk.split(b"\n")
        tail = lines.pop()
        pieces = self._pieces
        if not lines:
            pieces.append(tail)
            return lines
        if pieces:
            pieces.append(lines[0])
            lines[0] = b"".join(pieces)
            pieces.clear()
        if tail:
            pieces.append(tail)
        if b"" in lines:
            return [line for line in lines if line]
        return lines

    def rest(self) -> bytes:
        """What came after the last line end."""
        return b"".join(self._pieces)
