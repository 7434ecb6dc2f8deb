"""A running `kaito serve` for tests: its process, its log, and what it says of its health.

In: the folder of a model and flags. Out: a process tree on a free port. Whoever makes one ends it.
"""

from __future__ import annotations

import asyncio
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import aiohttp


class Served:
    """A running `kaito serve` and what it says."""

    def __init__(self, log: Path, model: Path, *flags: str) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = log
        with log.open("w") as output:
            self.process = subprocess.Popen(
                [
                    sys.executable,
                    "-P",
                    "-m",
                    "kaito",
                    "serve",
                    f"--model={model}",
                    "--preset=phi-3-mini-4k-instruct",
                    "--host=127.0.0.1",
                    f"--port={self.port}",
                    *flags,
                ],
                stdout=output,
                stderr=subprocess.STDOUT,
                # With one thread there is no barrier to wait at: on a machine that others load, two threads of a
                # small model spend their time waiting for each other.
                env={"OMP_NUM_THREADS": "1"} | os.environ,
            )

    def descendants(self) -> set[int]:
        """Process ids of everything that this server started."""
        parents = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    parents[int(entry.name)] = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
                except (FileNotFoundError, ProcessLookupError):
                    continue
        found = {self.process.pid}
        while new := {pid for pid, parent in parents.items() if parent in found} - found:
            found |= new
        return found - {self.process.pid}

    def engine_pid(self) -> int:
        """The engine's process, as the start-up report names it."""
        found = re.search(r"EngineCore (\d+)", self.log.read_text())
        if not found:
            raise AssertionError(self.log.read_text())
        return int(found[1])

    async def health(self, session: aiohttp.ClientSession) -> int:
        try:
            async with session.get(f"{self.url}/healthz") as reply:
                return reply.status
        except aiohttp.ClientConnectionError:
            return 0

    async def until(self, *statuses: int, seconds: float = 600) -> None:
        deadline = time.monotonic() + seconds
        async with aiohttp.ClientSession() as session:
            while (status := await self.health(session)) not in statuses:
                if self.process.poll() is not None:
                    raise AssertionError(self.log.read_text())
                if time.monotonic() >= deadline:
                    raise AssertionError(f"health stayed {status}\n{self.log.read_text()}")
                await asyncio.sleep(0.1)

    def wait_ready(self, seconds: float = 600) -> None:
        """Until the server answers, for fixtures that have no event loop."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                with urllib.request.urlopen(f"{self.url}/readyz", timeout=10):
                    return
            except OSError:  # not listening, or 503 while it loads
                pass
            if self.process.poll() is not None or time.monotonic() >= deadline:
                raise AssertionError(self.log.read_text())
            time.sleep(0.1)

    def gone(self, pids: set[int], seconds: float = 60) -> bool:
        """True once none of the processes is left, zombies aside."""
        deadline = time.monotonic() + seconds
        while any(alive(pid) for pid in pids):
            if time.monotonic() > deadline:
                return False
            time.sleep(0.1)
        return True


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
