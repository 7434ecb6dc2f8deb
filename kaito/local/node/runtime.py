"""Running containers: the agent's side of the supervisors (see `shim.py`).

In: a `ContainerConfig`. Out: an `Attempt`, one run of one container, in a folder of its own below the pod's
folder; its state is only what the supervisor said or left behind in `exit.json`, so an attempt found on
disk after an agent restart is the same thing as one just started. `Attempt.changed` is called in the event
loop when the state moved.

The folder belongs to this module and the shim, its mode is 0700: it holds the environment, which may hold
secrets. Never to happen: an attempt that says "exited" while anything of its process tree still runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from kaito.local.node import shim

log = logging.getLogger("kaito.local.node.runtime")

_SHIM = str(Path(shim.__file__).resolve())
_CONNECT_BACKLOG = 64


class ContainerGone(Exception):
    """The container is not running, so it cannot be attached to, signalled or used for exec."""


class ExecFailed(Exception):
    """The command could not be started in the container; the message says why."""


@dataclass(frozen=True, slots=True)
class ContainerConfig:
    """What the supervisor needs to run one container; written to `config.json`."""

    argv: Sequence[str]
    env: Mapping[str, str]
    cwd: str
    tty: bool = False
    stdin: bool = False
    stdinOnce: bool = False
    graceSeconds: float = 30.0
    orphanSeconds: float = 30.0
    logMaxBytes: int = 10 * 1024 * 1024
    paths: Mapping[str, str] = field(default_factory=dict)  # for commands that run beside it


@dataclass(frozen=True, slots=True)
class Exit:
    """How a run ended. Times are RFC 3339 texts as the supervisor wrote them."""

    exit_code: int
    signal: int
    reason: str
    message: str
    started_at: str
    finished_at: str

    @classmethod
    def from_json(cls, value: Mapping[str, object]) -> Exit:
        """Read the record that the supervisor writes."""
        return cls(
            exit_code=int(str(value["exitCode"])),
            signal=int(str(value.get("signal", 0))),
            reason=str(value["reason"]),
            message=str(value.get("message", "")),
            started_at=str(value["startedAt"]),
            finished_at=str(value["finishedAt"]),
        )


class Attempt:
    """One run of one container."""

    def __init__(self, folder: Path, number: int, changed: Callable[[], None]) -> None:
        self.folder = folder
        self.number = number
        self.started_at = ""
        self.pid = 0
        self.exit: Exit | None = None
        self._changed = changed
        self._over = asyncio.Event()
        self._link: asyncio.StreamWriter | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def __repr__(self) -> str:
        state = f"exited {self.exit.exit_code}" if self.exit else f"pid {self.pid}"
        return f"<Attempt {self.folder.parent.name}#{self.number} {state}>"

    @property
    def running(self) -> bool:
        return self.exit is None

    @property
    def log_path(self) -> Path:
        return self.folder / "log"

    @property
    def interactive(self) -> bool:
        """Whether the container has a terminal or an open standard input."""
        config = self._config()
        return bool(config.get("tty") or config.get("stdin"))

    @property
    def tty(self) -> bool:
        return bool(self._config().get("tty"))

    @property
    def paths(self) -> Mapping[str, str]:
        """Paths in the container → folders of this machine."""
        return dict(self._config().get("paths") or {})

    def _config(self) -> dict[str, Any]:
        try:
            value: dict[str, Any] = json.loads((self.folder / "config.json").read_bytes())
        except (OSError, ValueError):
            return {}
        return value

    # start, find again, end

    async def start(self, config: ContainerConfig) -> None:
        """Start the supervisor and wait until it has started (or failed to start) the container."""
        self.folder.mkdir(parents=True, mode=0o700)
        path = self.folder / "config.json"
        path.touch(mode=0o600)
        path.write_text(json.dumps(asdict(config)))
        (self.folder / "termination-log").touch()  # as with a kubelet: programs write to it where it exists
        with socket.socket(socket.AF_UNIX) as listener, _at(self.folder) as base:
            listener.bind(f"{base}/sock")
            listener.listen(_CONNECT_BACKLOG)
            with (self.folder / "shim.err").open("wb") as err:
                self._process = subprocess.Popen(  # noqa: ASYNC220 - fork and exec, no waiting
                    [sys.executable, "-I", "-S", _SHIM, str(listener.fileno())],
                    cwd=self.folder,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=err,
                    pass_fds=(listener.fileno(),),
                    start_new_session=True,
                    env={"PATH": os.defpath},
                )
            await self.adopt()

    async def adopt(self) -> None:
        """Take over a run that is on disk: connect to its supervisor, or learn how it ended."""
        try:
            reader, writer = await self._connect({"op": "watch"})
        except OSError:
            await self._ended()
            return
        line = await _first_line(reader)
        if not line:
            writer.close()
            await self._ended()
            return
        event = json.loads(line)
        self.pid, self.started_at = event["pid"], event["startedAt"]
        self._link = writer
        self._watcher = asyncio.create_task(
            self._watch(reader, writer), name=f"watch {self.folder.parent.name}#{self.number}"
        )

    async def _watch(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await reader.readline():
                pass
        except OSError:
            pass
        finally:
            writer.close()
        await self._ended()

    async def _ended(self) -> None:
        if self._process is not None:
            await asyncio.to_thread(self._process.wait)
            self._process = None
        try:
            self.exit = Exit.from_json(json.loads((self.folder / "exit.json").read_bytes()))
        except (OSError, ValueError, KeyError):
            # The supervisor was killed; the kernel has taken the main process with it.
            now = shim.now_rfc3339()
            text = "the supervisor of this container ended without a record"
            self.exit = Exit(137, 9, "ContainerStatusUnknown", text, self.started_at or now, now)
        self.started_at = self.exit.started_at or self.started_at
        self._over.set()
        self._changed()

    async def signal(self, number: int) -> None:
        """Send a signal to the main process; nothing happens when it has ended."""
        op = {"op": "kill"} if number == signal.SIGKILL else {"op": "signal", "signal": number}
        with contextlib.suppress(OSError):
            reader, writer = await self._connect(op)
            try:
                await reader.read(64)
            finally:
                writer.close()

    async def wait(self) -> None:
        """Return when the run has ended."""
        await self._over.wait()

    async def stop(self, grace: float) -> None:
        """TERM the main process, KILL the whole tree when `grace` seconds have passed; returns when it is gone."""
        if self.running and self._watcher is None:
            await self.adopt()
        if not self.running:
            return
        if grace > 0:
            await self.signal(signal.SIGTERM)
            try:
                async with asyncio.timeout(grace):
                    await self.wait()
            except TimeoutError:
                pass
        while self.running:
            await self.signal(signal.SIGKILL)
            try:
                async with asyncio.timeout(5):
                    await self.wait()
            except TimeoutError:
                log.warning("container does not die container=%s pid=%s", self.folder, self.pid)

    async def detach(self) -> None:
        """Let the run go on without this agent (the supervisor stops it when no agent comes back)."""
        if self._watcher is not None and not self._watcher.done():
            self._watcher.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watcher
        if self._link is not None:
            self._link.close()  # the task may have been cancelled before it began
        self._watcher = self._link = None
        if self._process is not None:
            self._process.returncode = 0  # it outlives us on purpose; nobody will wait for it
            self._process = None

    # exec and attach

    async def exec(self, argv: Sequence[str], fds: tuple[int, int, int], *, tty: bool = False) -> Exec:
        """Start a command beside the main process, with its environment and folder.

        `fds` become its 0, 1 and 2; the caller closes its copies. Closing the result kills the command.

        Raises:
            ContainerGone: the container does not run.
            ExecFailed: no such command.
        """
        request = {"op": "exec", "argv": list(argv), "tty": tty}
        try:
            reader, writer = await self._connect(request, fds)
        except OSError as err:
            raise ContainerGone(f"container is not running: {err.strerror}") from err
        try:
            line = await _first_line(reader)
        except BaseException:  # a probe that is given up must not leave its connection to the garbage collector
            writer.close()
            raise
        answer = json.loads(line) if line else {"error": "container is not running"}
        if "error" in answer:
            writer.close()
            text = answer["error"]
            if not answer.get("file"):
                raise ContainerGone(text)
            raise ExecFailed(f'exec: "{answer["file"]}": {text}')
        return Exec(reader, writer)

    async def attach(self, seen: Mapping[str, int] | None = None) -> Attachment:
        """Connect to the streams of the running container; the first client also gets what it printed before.

        `seen` says how many bytes of `stdout` and `stderr` the client has read in the log already.

        Raises:
            ContainerGone: it does not run.
        """
        try:
            reader, writer = await self._connect({"op": "attach", "seen": dict(seen or {})})
        except OSError as err:
            raise ContainerGone("container is not running") from err
        try:
            await reader.readexactly(shim.FRAME.size)
        except (asyncio.IncompleteReadError, OSError) as err:
            writer.close()
            raise ContainerGone("container is not running") from err
        except BaseException:
            writer.close()
            raise
        return Attachment(reader, writer)

    async def _connect(
        self, request: Mapping[str, object], fds: Sequence[int] = ()
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        sock = socket.socket(socket.AF_UNIX)
        try:
            with _at(self.folder) as base:
                sock.connect(f"{base}/sock")
            socket.send_fds(sock, [json.dumps(request).encode() + b"\n"], list(fds))
            sock.setblocking(False)
            return await asyncio.open_connection(sock=sock)
        except BaseException:
            sock.close()
            raise


class Exec:
    """A command that runs beside a container's main process; a context manager."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def wait(self) -> int:
        """The exit code; 128 + n after signal n; 137 when the container ended first."""
        try:
            line = await self._reader.readline()
        except OSError:
            line = b""
        return int(json.loads(line)["exitCode"]) if line else 137

    def close(self) -> None:
        """Hang up; the supervisor kills the command if it still runs."""
        self._writer.close()

    def __enter__(self) -> Exec:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Attachment:
    """The streams of a running container."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def output(self) -> AsyncIterator[tuple[int, bytes]]:
        """(1 or 2, data) until the container ends."""
        try:
            while True:
                kind, length = shim.FRAME.unpack(await self._reader.readexactly(shim.FRAME.size))
                data = await self._reader.readexactly(length)
                if kind == shim.EXITED:
                    return
                yield kind, data
        except (asyncio.IncompleteReadError, OSError):
            return

    async def stdin(self, data: bytes) -> None:
        """Type into the container; waits while it does not read."""
        await self._send(shim.STDIN, data)

    async def close_stdin(self) -> None:
        """End of input."""
        await self._send(shim.CLOSE_STDIN, b"")

    async def resize(self, rows: int, columns: int) -> None:
        """Tell the terminal its size."""
        await self._send(shim.RESIZE, struct.pack("!HH", rows, columns))

    async def _send(self, kind: int, data: bytes) -> None:
        try:
            self._writer.write(shim.FRAME.pack(kind, len(data)) + data)
            await self._writer.drain()
        except OSError:
            pass  # the container has ended; output() says so

    def close(self) -> None:
        """Hang up; the container goes on."""
        self._writer.close()


async def _first_line(reader: asyncio.StreamReader) -> bytes:
    """The supervisor's answer; empty when it ended instead."""
    try:
        return await reader.readline()
    except OSError:
        return b""


@contextlib.contextmanager
def _at(folder: Path) -> Iterator[str]:
    """A short path to `folder`: a socket address holds 107 bytes, a state folder's path may be longer."""
    fd = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{fd}"
    finally:
        os.close(fd)
