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
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

log = logging.getLogger("kaito.local.supervisor")

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True)
_RESTART_FIRST, _RESTART_MOST = 0.5, 30.0  # seconds before a restart: doubles, resets after a quiet minute
_QUIET = 60.0
_TAIL_BYTES = 8192


@dataclass(frozen=True, slots=True)
class Child:
    """One process to keep.

    Attributes:
        name: for messages and the log file.
        argv: the command; never a shell.
        log: its output, appended.
        ready: polled until true; may raise to say that it will never be.
        environment: variables of its own, over those of all children.
        start_seconds: how long it may take to become ready.
        stop_seconds: how long it may take to end after SIGTERM before SIGKILL.
    """

    name: str
    argv: Sequence[str]
    log: Path
    ready: Callable[[], Awaitable[bool]]
    start_seconds: float = 60.0
    stop_seconds: float = 15.0
    environment: Mapping[str, str] = field(default_factory=dict)


class ChildFailed(Exception):
    """A process ended, or was not ready in time. ``tail`` is the end of what it has printed since its start."""

    def __init__(self, child: Child, what: str, since: int = 0) -> None:
        super().__init__(f"{child.name} {what}")
        self.child = child
        self.tail = tail(child.log, since=since)


def tail(path: Path, lines: int = 12, *, since: int = 0) -> str:
    """The last lines of a log file, none from before byte ``since``; empty if there is none."""
    try:
        with path.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(since, file.tell() - _TAIL_BYTES, 0))
            return "\n".join(file.read().decode("utf-8", "replace").splitlines()[-lines:])
    except OSError:
        return ""


def ended(code: int | None) -> str:
    """An exit code in words."""
    if code is not None and code < 0:
        try:
            return f"was ended by {signal.Signals(-code).name}"
        except ValueError:
            return f"was ended by signal {-code}"
    return f"ended with exit code {code}"


class Supervisor:
    """See the module. Use :meth:`start` for each child, then :meth:`kept`, and :meth:`stop` in any case.

    Args:
        environment: of the children; None for this process's own.
        inherited: file descriptors that every child keeps open.
        report: told, in a sentence, of every child that ended by itself.
    """

    def __init__(
        self,
        environment: dict[str, str] | None = None,
        *,
        inherited: Sequence[int] = (),
        report: Callable[[str], None] = log.warning,
    ) -> None:
        self._environment = environment
        self._inherited = tuple(inherited)
        self._report = report
        self._running: list[tuple[Child, asyncio.subprocess.Process]] = []

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
            OSError: it could not be started.
        """
        began = time.monotonic()
        since = child.log.stat().st_size if child.log.exists() else 0
        process = await self._spawn(child)
        self._running.append((child, process))
        await self._until_ready(child, process, since)
        return time.monotonic() - began

    @asynccontextmanager
    async def kept(self) -> AsyncIterator[None]:
        """Within the block, children that die are started again."""
        keepers = [
            asyncio.create_task(self._keep(index), name=f"keep-{child.name}")
            for index, (child, _) in enumerate(self._running)
        ]
        try:
            yield
        finally:
            for keeper in keepers:
                keeper.cancel()
            await asyncio.gather(*keepers, return_exceptions=True)

    async def stop(self) -> None:
        """End all children in reverse order: SIGTERM, then SIGKILL to the child's whole process group.

        May be called again after it was cancelled.
        """
        while self._running:
            child, process = self._running[-1]
            if process.returncode is None:
                _signal(process, signal.SIGTERM)
                try:
                    async with asyncio.timeout(child.stop_seconds):
                        await process.wait()
                except TimeoutError:
                    log.warning("killing a process that did not stop process=%s", child.name)
            _kill_group(process.pid)
            await process.wait()
            self._running.pop()

    async def _keep(self, index: int) -> None:
        delay = _RESTART_FIRST
        while True:
            child, process = self._running[index]
            began = time.monotonic()
            code = await process.wait()
            _kill_group(process.pid)
            if time.monotonic() - began > _QUIET:
                delay = _RESTART_FIRST
            self._report(f"{child.name} {ended(code)} and is started again in {delay:.1f} s; its log: {child.log}")
            await asyncio.sleep(delay)
            delay = min(delay * 2, _RESTART_MOST)
            try:
                self._running[index] = (child, await self._spawn(child))
            except OSError as error:
                self._report(f"{child.name} could not be started: {error}")

    async def _spawn(self, child: Child) -> asyncio.subprocess.Process:
        child.log.parent.mkdir(parents=True, exist_ok=True)
        with child.log.open("ab") as output:
            return await asyncio.create_subprocess_exec(
                *child.argv,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**(os.environ if self._environment is None else self._environment), **child.environment},
                pass_fds=self._inherited,
                start_new_session=True,
                preexec_fn=_die_with(os.getpid()),
            )

    async def _until_ready(self, child: Child, process: asyncio.subprocess.Process, since: int) -> None:
        try:
            async with asyncio.timeout(child.start_seconds):
                while process.returncode is None and not await child.ready():
                    await asyncio.sleep(0.05)  # readiness of a foreign process can only be polled
        except TimeoutError:
            raise ChildFailed(child, f"was not ready after {child.start_seconds:.0f} s", since) from None
        if process.returncode is not None:
            raise ChildFailed(child, ended(process.returncode), since)


def _die_with(parent: int) -> Callable[[], None]:
    """What a child does between fork and exec: end when its parent ends, also if that was just now."""

    def prepare() -> None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            os._exit(1)

    return prepare


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
