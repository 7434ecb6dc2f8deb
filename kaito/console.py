"""Everything that the commands print to a person: steps with their time, errors, tables.

Answers go to standard output, progress and errors to standard error, so that output can be piped. A terminal gets
a spinner with a running clock; anything else gets one plain line when a step starts to take long and one when it
ends. Nothing here knows what the steps mean.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


def out(text: str = "") -> None:
    """Print an answer."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def note(text: str) -> None:
    """Print something beside the answer."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def error(message: str, next_step: str = "") -> None:
    """Print a failure and what to do next."""
    note(f"error: {message}")
    if next_step:
        note(f"  next: {next_step}")


class Step:
    """One line of progress. ``detail`` says what is being waited for right now and may be set at any time."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.started = time.monotonic()
        self._detail = ""
        self._status: object | None = None

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
        if text == self._detail:
            return
        self._detail = text
        if text and not sys.stderr.isatty():
            note(f"    {self.elapsed:5.1f} s  {text}")

    def render(self) -> str:
        """The line as it stands."""
        tail = f": {self._detail}" if self._detail else ""
        return f"{self.title}{tail}  ({self.elapsed:.0f} s)"


class _Live:
    """Lets rich redraw the step's line, clock included, without a task of ours."""

    def __init__(self, step: Step) -> None:
        self._step = step

    def __rich__(self) -> str:
        from rich.markup import escape

        return escape(self._step.render())


def _console() -> Console:
    from rich.console import Console

    return Console(stderr=True, highlight=False)


@contextmanager
def step(title: str) -> Iterator[Step]:
    """Show one step while its body runs, and its time when it ends; a failing body leaves a cross."""
    current = Step(title)
    mark = "failed"
    if sys.stderr.isatty():
        from rich.live import Live
        from rich.spinner import Spinner

        console = _console()
        spinner = Spinner("dots", text=_Live(current))  # type: ignore[arg-type]  # any renderable works
        with Live(spinner, console=console, transient=True, refresh_per_second=8):
            try:
                yield current
                mark = "ok"
            finally:
                pass
        symbol = "[green]✔[/green]" if mark == "ok" else "[red]✘[/red]"
        console.print(f"{symbol} {title}  [dim]{current.elapsed:.1f} s[/dim]")
        return
    try:
        yield current
        mark = "ok"
    finally:
        symbol = "ok    " if mark == "ok" else "failed"
        note(f"{symbol} {title}  {current.elapsed:.1f} s")


def table(rows: list[list[str]]) -> str:
    """Columns padded as kubectl does: three spaces between, no rule, no trailing blanks."""
    if not rows:
        return ""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
