"""On a terminal: a line that is redrawn, and a clean-up that outlives the terminal."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import time
from pathlib import Path

_STEPS = """
import sys, time
from kaito.console import note, step
with step("a first step") as line:
    line.detail = "a detail that is far too long for this terminal, " * 5
    time.sleep(0.4)
    note("said meanwhile")
try:
    with step("a second step"):
        raise ValueError
except ValueError:
    pass
"""
_HANG_UP = """
import asyncio, pathlib, sys
from kaito.console import step
from kaito.errors import Interrupted
from kaito.local.signals import until_signal
async def work():
    try:
        with step("working") as line:
            print("up", flush=True)
            for n in range(600):
                line.detail = str(n)
                await asyncio.sleep(0.1)
    finally:
        with step("cleaning up"):
            await asyncio.sleep(0.3)
        pathlib.Path(sys.argv[1]).touch()
asyncio.run(until_signal(work(), "stopping"))
"""


def _start(code: str, *args: str) -> tuple[int, int]:
    """A program on a terminal of its own: its pid and our end of the terminal."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ.update(TERM="xterm", COLUMNS="60")
        os.execv(sys.executable, [sys.executable, "-c", code, *args])
    return pid, terminal


def _read(terminal: int, until: str = "") -> str:
    """What the program has printed up to some words, or to its end."""
    said = b""
    while True:
        try:
            chunk = os.read(terminal, 4096)
        except OSError:  # the other end is closed
            chunk = b""
        said += chunk
        text = said.decode(errors="replace")
        if not chunk or (until and until in text):
            return text


def test_a_step_is_redrawn_on_one_line() -> None:
    """A terminal gets a spinner line cut to its width, what is said meanwhile above it, and a mark at the end."""
    pid, terminal = _start(_STEPS)
    said = _read(terminal)
    os.close(terminal)
    os.waitpid(pid, 0)

    assert "a detail" in said
    assert "…" in said
    assert "said meanwhile" in said
    assert "✔" in said
    assert "✘" in said
    assert said.index("✔") < said.index("✘")
    assert "Traceback" not in said


def test_a_terminal_that_closes_does_not_stop_the_clean_up(tmp_path: Path) -> None:
    """When the window is closed in the middle of a step, the clean-up still runs to its end."""
    pid, terminal = _start(_HANG_UP, str(tmp_path / "cleaned"))
    _read(terminal, until="up\r")
    os.close(terminal)
    deadline = time.monotonic() + 20
    while os.waitpid(pid, os.WNOHANG) == (0, 0):
        assert time.monotonic() < deadline
        time.sleep(0.02)

    assert (tmp_path / "cleaned").exists()


def test_a_dumb_terminal_gets_plain_lines() -> None:
    """Where the terminal cannot redraw, there is one line per step, as in a file."""
    done = subprocess.run(
        [sys.executable, "-c", _STEPS],
        capture_output=True,
        text=True,
        env={**os.environ, "TERM": "dumb"},
        timeout=60,
    )

    lines = [line for line in done.stderr.splitlines() if line.startswith(("ok", "failed"))]
    assert lines[0].startswith("ok     a first step  0.")
    assert lines[1:] == ["failed a second step"]
