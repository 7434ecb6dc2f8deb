"""Everything that the commands print to a person: steps with their time, errors, tables.

Answers go to standard output, progress and errors to standard error, so that output can be piped. A terminal gets
a spinner with a running clock; anything else gets a line for each new detail and one when the step ends, never the
same line twice. Nothing here knows what the steps mean. A terminal that is gone must not break a clean-up that
reports to it, so what cannot be written to standard error is dropped.
"""

from __future__ import annotations

import io
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, TextIO, cast

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult

_STYLES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33"}
_AT_ONCE = 0.05  # seconds; a step this short had been done before it was looked at, and its time says nothing


def out(text: str = "") -> None:
    """Print an answer. Raises BrokenPipeError when nobody reads it any more."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def note(text: str) -> None:
    """Print something beside the answer."""
    _Tolerant(sys.stderr).write(text + "\n")


def paint(text: str, style: str) -> str:
    """The text in a colour (red, green, yellow, dim, bold) where a person looks at it; else as it is.

    A pipe, TERM=dumb and NO_COLOR (no-color.org) get plain text.
    """
    if not sys.stdout.isatty() or os.environ.get("NO_COLOR") or os.environ.get("TERM", "dumb") == "dumb":
        return text
    return f"\033[{_STYLES[style]}m{text}\033[0m"


def error(message: str, next_step: str = "", title: str = "error") -> None:
    """Print a failure and what to do next."""
    note(f"{title}: {message}")
    if next_step:
        note(f"  next: {next_step}")


class Step:
    """One line of progress. ``detail`` says what is being waited for right now and may be set at any time."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.started = time.monotonic()
        self._detail = ""
        self._printed: set[str] = set()
        self._lines = not _interactive()

    @property
    def elapsed(self) -> float:
        """Seconds since the step began."""
        return time.monotonic() - self.started

    @property
    def detail(self) -> str:
        """What the step waits for now."""
        return self._detail

    @detail.setter
    def detail(self, text: str) -> None:
        self._detail = text
        if self._lines and text and text not in self._printed:
            self._printed.add(text)
            note(f"    {self.elapsed:5.1f} s  {text}")

    def render(self) -> str:
        """The line as it stands."""
        tail = f": {self._detail}" if self._detail else ""
        return f"{self.title}  {self.elapsed:.0f} s{tail}"

    def result(self) -> str:
        """How long it took, as it stands behind the title at the end; empty if it had been done before."""
        return f"  {self.elapsed:.1f} s" if self.elapsed >= _AT_ONCE else ""


class _Live:
    """Lets rich redraw the step's line, clock included, without a task of ours; what is too long is cut."""

    def __init__(self, step: Step) -> None:
        from rich.spinner import Spinner

        self._step = step
        self._spinner = Spinner("dots")

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from rich.text import Text

        frame = self._spinner.render(console.get_time())
        line = Text.assemble(frame if isinstance(frame, Text) else "", " ", self._step.render())
        line.truncate(options.max_width, overflow="ellipsis")
        yield line


@contextmanager
def step(title: str) -> Iterator[Step]:
    """Show one step while its body runs, and its time when it ends; a failing body leaves a cross."""
    current = Step(title)
    if not _interactive():
        mark = "failed"
        try:
            yield current
            mark = "ok    "
        finally:
            note(f"{mark} {title}{current.result()}")
        return
    from rich.console import Console
    from rich.live import Live

    # The stream as it is now: during the display, sys.stderr is rich's, which prints above the line.
    console = Console(file=cast("IO[str]", _Tolerant(sys.stderr)), highlight=False, force_terminal=True)
    symbol = "[red]✘[/red]"
    try:
        with Live(_Live(current), console=console, transient=True, refresh_per_second=8, redirect_stdout=False):
            yield current
        symbol = "[green]✔[/green]"
    finally:
        console.print(f"{symbol} {title}[dim]{current.result()}[/dim]")


def table(rows: list[list[str]], least: list[int] | None = None) -> str:
    """Columns padded as kubectl does: three spaces between, no rule, no trailing blanks.

    ``least`` gives widths that columns have at least, for rows that continue a table.
    """
    if not rows:
        return ""
    widths = column_widths(rows, least)
    return "\n".join(
        "   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def column_widths(rows: list[list[str]], least: list[int] | None = None) -> list[int]:
    """The width of each column."""
    floor = least or [0] * len(rows[0])
    return [max(floor[i], *(len(row[i]) for row in rows)) for i in range(len(rows[0]))]


def _interactive() -> bool:
    return sys.stderr.isatty() and os.environ.get("TERM", "dumb") != "dumb"


class _Tolerant(io.TextIOBase):
    """A stream without the errors of a terminal or a pipe that has gone."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            self._stream.write(text)
            self._stream.flush()
        except (OSError, ValueError):
            pass  # nobody is there to be told
        return len(text)

    def isatty(self) -> bool:
        return self._stream.isatty()

    def fileno(self) -> int:
        return self._stream.fileno()
