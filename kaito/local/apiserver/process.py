"""The API server as a process: server, built-in controllers, signals.

In: the command's options. Out: nothing; it returns after SIGTERM or SIGINT, within two seconds, or raises a
CliError before anything was served. The controllers speak to the server over its own HTTPS port, as any other
client, so that nothing they do depends on sharing a process. If they fail the process ends: a supervisor
starts it again, and a cluster whose controllers are silently gone would be worse.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from kaito.errors import CliError
from kaito.local.apiserver.errors import ApiServerError
from kaito.local.apiserver.server import ApiServer

__all__ = ["ProcessOptions", "run"]

_log = logging.getLogger("kaito.local.apiserver.process")
_CONTROLLER_SECONDS = 1.0  # for the controllers to stop by themselves


@dataclass(frozen=True, slots=True)
class ProcessOptions:
    """What the command line says."""

    data_dir: Path
    host: str
    port: int
    kubeconfig_out: Path | None
    token_file: Path | None
    kubelet_token_file: Path | None
    service_network: str
    controllers: bool


async def run(options: ProcessOptions) -> None:
    """Serve until told to stop.

    Raises:
        CliError: it cannot start, or the controllers failed.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    server = ApiServer(
        options.data_dir,
        host=options.host,
        port=options.port,
        token_file=options.token_file,
        kubelet_token_file=options.kubelet_token_file,
        service_network=options.service_network,
    )
    try:
        async with server:
            kubeconfig = server.kubeconfig(options.kubeconfig_out)
            sys.stdout.write(f"serving {server.url}\nexport KUBECONFIG={kubeconfig}\n")
            sys.stdout.flush()
            if options.controllers:
                async with _controllers(server, stop):
                    await stop.wait()
            else:
                await stop.wait()
    except ApiServerError as error:
        message, _, next_step = str(error).partition("; ")
        raise CliError(message, next_step) from error


@contextlib.asynccontextmanager
async def _controllers(server: ApiServer, stop: asyncio.Event) -> AsyncIterator[None]:
    task = asyncio.create_task(_run_controllers(server, stop), name="workload-controllers")
    task.add_done_callback(lambda _: stop.set())
    try:
        yield
    finally:
        await asyncio.wait((task,), timeout=_CONTROLLER_SECONDS)
        if not task.done():
            task.cancel()
            await asyncio.wait((task,), timeout=_CONTROLLER_SECONDS)
    if task.done() and not task.cancelled():
        error = task.exception()
        if error is not None:
            _log.error("the built-in controllers failed error=%r", error, exc_info=error)
            raise CliError(f"the built-in controllers failed: {error}", f"see the log of process {os.getpid()}")


async def _run_controllers(server: ApiServer, stop: asyncio.Event) -> None:
    # The framework takes a moment to import; the server answers meanwhile.
    await asyncio.to_thread(importlib.import_module, "kaito.local.workloads.composition")
    from kaito.local.workloads import run as run_workloads

    await run_workloads(server.rest_config(), stop)
