"""Reading a container's log: the query of `kubectl logs` against the files that the supervisor writes.

In: the log file's path (its predecessor lies beside it as `log.1`), the query, and for `follow` the moment
at which the container ends. Out: the text as byte chunks, lines without their stamp unless asked for.
Reading never locks; a rotation during `follow` is noticed by the inode.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

_CHUNK = 64 * 1024
_POLL_SECONDS = 0.2

Tally = dict[str, int]  # stream → bytes


@dataclass(frozen=True, slots=True)
class LogQuery:
    """The options of the log endpoint. `since` is RFC 3339 (lines before it are left out)."""

    follow: bool = False
    tail_lines: int | None = None
    timestamps: bool = False
    since: str | None = None
    limit_bytes: int | None = None
    stream: str | None = None


def parse_time(text: str) -> float:
    """Seconds since the epoch of an RFC 3339 time (UTC or with an offset, any precision)."""
    head, dot, rest = text.partition(".")
    if dot:
        digits = rest[: len(rest) - len(rest.lstrip("0123456789"))]
        zone = rest[len(digits) :]
        return datetime.fromisoformat(head + zone).timestamp() + float(f"0.{digits}")
    return datetime.fromisoformat(text).timestamp()


def since_seconds(now: float, seconds: int) -> str:
    """The `since` of a query that asks for the last `seconds` seconds."""
    return datetime.fromtimestamp(now - seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


@dataclass(frozen=True, slots=True)
class _Line:
    time: bytes
    stream: bytes
    text: bytes  # with its newline, unless the line goes on


def _parse(raw: bytes) -> _Line | None:
    try:
        time, stream, tag, text = raw.rstrip(b"\n").split(b" ", 3)
    except ValueError:
        return None
    return _Line(time, stream, text + b"\n" if tag == b"F" else text)


class _Filter:
    def __init__(self, query: LogQuery, tally: Tally | None) -> None:
        self.since = parse_time(query.since) if query.since else None
        self.stream = query.stream.lower().encode() if query.stream else None
        self.left = query.limit_bytes
        self.timestamps = query.timestamps
        self.tally = tally
        self.middle = {b"stdout": False, b"stderr": False}

    def wants(self, line: _Line) -> bool:
        if self.stream is not None and line.stream != self.stream:
            return False
        if self.since is None:
            return True
        if parse_time(line.time.decode()) < self.since:
            return False
        self.since = None  # lines are in order: compare no more
        return True

    def render(self, line: _Line) -> bytes:
        if self.tally is not None:
            name = line.stream.decode()
            self.tally[name] = self.tally.get(name, 0) + len(line.text)
        stamp = self.timestamps and not self.middle.get(line.stream)
        self.middle[line.stream] = not line.text.endswith(b"\n")
        return line.time + b" " + line.text if stamp else line.text

    def cut(self, data: bytes) -> bytes:
        if self.left is None:
            return data
        data = data[: self.left]
        self.left -= len(data)
        return data


async def read_log(
    path: Path, query: LogQuery, ended: Callable[[], bool], tally: Tally | None = None
) -> AsyncIterator[bytes]:
    """The log as the query wants it; with `follow` until `ended()` is true and everything was read.

    `ended` is asked before the last read, so that nothing written before the end is lost. `tally` counts the bytes
    of each stream that were read.
    """
    chosen = _Filter(query, tally)
    # The file is opened before old lines are read: what is appended meanwhile is found in it afterwards.
    file = _open(path)
    try:
        lines: Iterator[_Line] = (line for line in _history(path, file) if chosen.wants(line))
        if query.tail_lines is not None:
            lines = iter(deque(lines, maxlen=query.tail_lines))
        batch = bytearray()
        for line in lines:
            batch += chosen.render(line)
            if len(batch) >= _CHUNK:
                yield chosen.cut(bytes(batch))
                batch.clear()
                await asyncio.sleep(0)
            if chosen.left == 0:
                return
        if batch:
            yield chosen.cut(bytes(batch))
        while query.follow and chosen.left != 0:
            last = ended()
            if file is None or _rotated(path, file):
                fresh = _open(path)
                if file is not None:
                    batch = _render(file, chosen)
                    file.close()
                    if batch:
                        yield chosen.cut(bytes(batch))
                file = fresh
            batch = _render(file, chosen) if file is not None else bytearray()
            if batch:
                yield chosen.cut(bytes(batch))
            elif last:
                return
            else:
                await asyncio.sleep(_POLL_SECONDS)
    finally:
        if file is not None:
            file.close()


def tail_text(path: Path, lines: int, max_bytes: int) -> str:
    """The end of a log as one text, for a termination message."""
    file = _open(path)
    if file is None:
        return ""
    with file:
        last = deque(_history(path, file), maxlen=lines)
    return b"".join(line.text for line in last)[-max_bytes:].decode(errors="replace")


def _open(path: Path) -> BinaryIO | None:
    try:
        return path.open("rb")
    except FileNotFoundError:
        return None


def _history(path: Path, file: BinaryIO | None) -> Iterator[_Line]:
    old = _open(path.with_name(path.name + ".1"))
    if old is not None:
        with old:
            yield from _lines(old)
    if file is not None:
        yield from _lines(file)


def _lines(file: BinaryIO) -> Iterator[_Line]:
    """Whole lines from the current position; an unfinished last one is left for the next call."""
    while True:
        start = file.tell()
        raw = file.readline()
        if not raw.endswith(b"\n"):
            file.seek(start)
            return
        line = _parse(raw)
        if line is not None:
            yield line


def _render(file: BinaryIO, chosen: _Filter) -> bytearray:
    return bytearray().join(chosen.render(line) for line in _lines(file) if chosen.wants(line))


def _rotated(path: Path, file: BinaryIO) -> bool:
    try:
        return path.stat().st_ino != os.fstat(file.fileno()).st_ino
    except FileNotFoundError:
        return False
