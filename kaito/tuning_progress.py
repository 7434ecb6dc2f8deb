"""A tuning run on a terminal: one line that says where it is, how far, and how long still.

In: each ``TuneProgress`` of a run. Out: a line on standard error that is drawn anew; nothing where that is no
terminal, because a log has the run's own lines. Called from the loop and from the training thread; rich draws in
its own.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from api.progress import TuneProgress, TuneStage


def line(now: TuneProgress) -> str:
    """What is known, in a line: the stage, steps or bytes, the loss, the time left."""
    parts = [now.stage.value]
    if now.step is not None and now.steps and now.stage is TuneStage.TRAINING:
        parts.append(f"step {now.step} of {now.steps}")
    if now.bytes_done is not None:
        total = f" of {_bytes(now.bytes_total)}" if now.bytes_total else ""
        parts.append(f"{_bytes(now.bytes_done)}{total}")
    if now.loss is not None and now.stage is TuneStage.TRAINING:
        parts.append(f"loss {now.loss:.3f}")
    if now.seconds_left:
        parts.append(f"{_clock(now.seconds_left)} left")
    if now.message and now.stage not in (TuneStage.SUCCEEDED, TuneStage.FAILED):
        parts.append(now.message)
    return ", ".join(parts)


@contextmanager
def showing() -> Iterator[Callable[[TuneProgress], None]]:
    """Gives what is to be called with each progress."""
    if not sys.stderr.isatty() or os.environ.get("TERM", "dumb") == "dumb":
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

    console = Console(file=sys.stderr, highlight=False)
    columns = (SpinnerColumn(), BarColumn(bar_width=24), TextColumn("{task.description}", markup=False))
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=None)

        def told(now: TuneProgress) -> None:
            done, total = share(now)
            progress.update(task, description=line(now), completed=done, total=total)

        yield told


def share(now: TuneProgress) -> tuple[float, float | None]:
    """How much of the stage is done, and of how much; None where that is not known."""
    if now.stage is TuneStage.TRAINING and now.steps:
        return now.step or 0, now.steps
    if now.bytes_total:
        return now.bytes_done or 0, now.bytes_total
    return 0, None


def _bytes(size: int) -> str:
    value = float(size)
    for unit in ("B", "KiB", "MiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} GiB"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
