"""The registry as a process: it listens, prints its address, and ends with SIGTERM or SIGINT.

In: a folder, an address, perhaps a file of credentials. Out: nothing; CliError before anything was served.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

from aiohttp import web

from kaito.errors import CliError
from kaito.local.registry.server import make_registry
from kaito.local.registry.storage import Storage

_CLOSE_SECONDS = 2.0


def read_credentials(file: Path) -> Mapping[str, str]:
    """Passwords by user from lines ``user:password``.

    Raises:
        CliError: the file cannot be read, or a line is of another form.
    """
    try:
        lines = [line for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    except OSError as error:
        raise CliError(f"--credentials {file}: {error.strerror}", "give a readable file") from error
    pairs = [line.partition(":") for line in lines]
    if not pairs or not all(user and colon and password for user, colon, password in pairs):
        raise CliError(f"--credentials {file}: expected a line user:password for each user", exit_code=2)
    return {user: password for user, _, password in pairs}


async def run(folder: Path, host: str, port: int, credentials: Mapping[str, str] | None) -> None:
    """Serve until told to stop.

    Raises:
        CliError: the folder cannot be used, or the address cannot be listened on.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    try:
        storage = Storage(folder)
    except OSError as error:
        raise CliError(f"{folder} cannot be used: {error.strerror}", "choose another --data-dir") from error
    runner = web.AppRunner(make_registry(storage, credentials), access_log=None, shutdown_timeout=_CLOSE_SECONDS)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as error:
            raise CliError(f"cannot listen on {host}:{port}: {error.strerror}", "choose another --port") from error
        address = runner.addresses[0]
        sys.stdout.write(f"registry at {address[0]}:{address[1]}, plain http; its folder is {folder}\n")
        sys.stdout.flush()
        await stop.wait()
    finally:
        await runner.cleanup()
