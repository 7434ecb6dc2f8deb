"""Keeps a few child processes running, and ends every one of them.

In: process descriptions, in start order. Out: processes that are started one after the other as each becomes
ready, restarted when they die, and stopped in reverse order. The supervisor owns the processes; each is a session
of its own, so that Ctrl-C at the terminal reaches only the supervisor, and each dies with the supervisor, however
that ends (PR_SET_PDEATHSIG). A process that dies before it was ever ready is a failure, not something to retry.
"""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import signal
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

log = logging.getLogger("kaito.local.supervisor")

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True)
_RESTART_FIRST, _RESTART_MOST = 0.5, 30.0  # seconds before a restart: doubles, resets after a quiet minute
_QUIET = 60.0


@dataclass(frozen=True, slots=True)
class Child:
    """One process to keep.

    Attributes:
        name: for messages and the log file.
        argv: the command; never a shell.
        log: its output, appended.
        ready: polled until true; may raise to say that it will never be.
        start_seconds: how long it may take to become ready.
        stop_seconds: how long it may take to end after SIGTERM before SIGKILL.
    """

    name: str
    argv: Sequence[str]
    log: Path
    ready: Callable[[], Awaitable[bool]]
    start_seconds: float = 60.0
    stop_seconds: float = 15.0


class ChildFailed(Exception):
    """A process ended, or was not ready in time. ``tail`` is the end of its log."""

    def __init__(self, child: Child, what: str) -> None:
        super().__init__(f"{child.name} {what}")
        self.child = child
        self.tail = tail(child.log)


def tail(path: Path, lines: int = 12) -> str:
    """The last lines of a log file; empty if there is none."""
    try:
        with path.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - 8192))
            return "\n".join(file.read().decode("utf-8", "replace").splitlines()[-lines:])
    except OSError:
        return ""


def _die_with_parent() -> None:
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


class Supervisor:
    """See the module. Use :meth:`start` for each child, then :meth:`watch`, and :meth:`stop` in any case."""

    def __init__(self, environment: dict[str, str] | None = None) -> None:
        self._environment = environment
        self._running: list[tuple[Child, asyncio.subprocess.Process]] = []
        self._restarts: dict[str, int] = {}

    def __repr__(self) -> str:
        states = ", ".join(f"{c.name}={p.pid if p.returncode is None else 'ended'}" for c, p in self._running)
        return f"<Supervisor {states or 'empty'}>"

    def pid(self, name: str) -> int | None:
        """The process id of a child that runs."""
        for child, process in self._running:
            if child.name == name and process.returncode is None:
                return process.pid
        return None

    async def start(self, child: Child) -> float:
        """Start one child and wait until it is ready; returns the seconds that took.

        Raises:
            ChildFailed: it ended first, or took longer than ``start_seconds``.
        """
        began = time.monotonic()
        process = await self._spawn(child)
        self._running.append((child, process))
        await self._until_ready(child, process)
        return time.monotonic() - began

    async def watch(self, stop: asyncio.Event) -> None:
        """Restart children that die, until ``stop`` is set."""
        async with asyncio.TaskGroup() as group:
            keepers = [
                group.create_task(self._keep(index), name=f"keep-{child.name}")
                for index, (child, _) in enumerate(self._running)
            ]
            await stop.wait()
            for keeper in keepers:
                keeper.cancel()

    async def stop(self) -> None:
        """End all children in reverse order: SIGTERM, then SIGKILL to the child's whole process group."""
        for child, process in reversed(self._running):
            if process.returncode is None:
                _signal(process, signal.SIGTERM)
                try:
                    async with asyncio.timeout(child.stop_seconds):
                        await process.wait()
                except TimeoutError:
                    log.warning("killing a process that did not stop process=%s", child.name)
            _kill_group(process.pid)
            await process.wait()
        self._running.clear()

    async def _keep(self, index: int) -> None:
        delay = _RESTART_FIRST
        while True:
            child, process = self._running[index]
            began = time.monotonic()
            code = await process.wait()
            log.warning("process ended, restarting process=%s code=%s delay=%.1f", child.name, code, delay)
            if time.monotonic() - began > _QUIET:
                delay = _RESTART_FIRST
            await asyncio.sleep(delay)
            delay = min(delay * 2, _RESTART_MOST)
            self._running[index] = (child, await self._spawn(child))

    async def _spawn(self, child: Child) -> asyncio.subprocess.Process:
        child.log.parent.mkdir(parents=True, exist_ok=True)
        with child.log.open("ab") as output:
            return await asyncio.create_subprocess_exec(
                *child.argv,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=self._environment,
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )

    async def _until_ready(self, child: Child, process: asyncio.subprocess.Process) -> None:
        deadline = time.monotonic() + child.start_seconds
        while not await child.ready():
            if process.returncode is not None:
                raise ChildFailed(child, f"ended with exit code {process.returncode}")
            if time.monotonic() > deadline:
                raise ChildFailed(child, f"was not ready after {child.start_seconds:.0f} s")
            await asyncio.sleep(0.05)  # readiness of a foreign process can only be polled


def _signal(process: asyncio.subprocess.Process, number: int) -> None:
    try:
        process.send_signal(number)
    except ProcessLookupError:
        pass  # it ended between the check and the signal


def _kill_group(pgid: int) -> None:
    try:
        os.killpg(pgid, signal.SIGKILL)
    except ProcessLookupError:
        pass  # the usual case: nobody of the group is left
