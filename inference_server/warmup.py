"""Halves the wait for the engine on a CPU: its child process imports vLLM while this one does.

In: nothing. Out: a multiprocessing context whose processes are forked from a helper that has already imported the
engine, single-threaded, with no connection of ours open. vLLM spawns instead, which begins the same import (5 s on
two cores) only when the first has ended. The helper ends with this process; the forked child gets the environment
as it is when it starts, as a spawned one would. Memory that both share is counted once.
"""

from __future__ import annotations

import importlib.util
import os
import signal
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from typing import Any

from inference_server.vllm_plugin import die_with_parent

_PRELOAD = ["vllm.v1.engine.core", "vllm.v1.worker.cpu_worker", "vllm.model_executor.models.registry"]


class WarmProcess(ForkServerProcess):
    """A process with the environment of its starter at the time of its start."""

    def start(self) -> None:
        """Start it."""
        self._environment = dict(os.environ)
        super().start()

    def run(self) -> None:
        """In the child."""
        os.environ.update(self._environment)
        die_with_parent()
        super().run()


class WarmContext(ForkServerContext):
    """What vLLM asks for processes, queues and pipes."""

    Process = WarmProcess


def start() -> WarmContext:
    """Start the helper and return at once; it imports in the background. For CPU builds only."""
    warm = WarmContext()
    warm.set_forkserver_preload(_PRELOAD)
    before = os.environ.get("LD_PRELOAD")
    os.environ["LD_PRELOAD"] = preloaded_libraries(before or "")
    try:
        forkserver.ensure_running()
    finally:
        if before is None:
            del os.environ["LD_PRELOAD"]
        else:
            os.environ["LD_PRELOAD"] = before
    return warm


def stop() -> None:
    """End the helper and so, through its own guard, what it started."""
    pid: Any = getattr(forkserver, "_forkserver")._forkserver_pid  # noqa: B009  it has no public handle
    if pid:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass


def preloaded_libraries(before: str) -> str:
    """The value of LD_PRELOAD with which vLLM starts its CPU processes: torch's OpenMP and the bundled allocator.

    They count only at exec, so the helper needs them before vLLM is there to ask for them.
    """
    libraries = [part for part in before.split(":") if part]
    for package, folder, name in (("torch", "lib", "libgomp"), ("vllm", "libs", "libtcmalloc")):
        spec = importlib.util.find_spec(package)
        if spec is None or spec.origin is None or any(name in library for library in libraries):
            continue
        found = sorted((Path(spec.origin).parent / folder).glob(f"{name}*.so*"))
        libraries = [str(library) for library in found[:1]] + libraries
    return ":".join(libraries)
