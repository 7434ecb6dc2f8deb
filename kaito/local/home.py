"""The folder of one cluster: who owns it, its ports, its secrets, the kubeconfig in it.

In: a path. Out: the folder, owned, or a clear word on why not. Ownership is two locks that the kernel releases
with the processes that hold them, so that no stale file can ever block a start: ``lock`` is held by the
supervisor, and its pid in the file is believed only while the lock is held; ``processes.lock`` is held by its
children as well, so that a start after a SIGKILL waits until the last of them has let go of database and ports.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import errno
import fcntl
import json
import os
import secrets
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from kaito.console import step
from kaito.errors import CliError
from manager.config import RestConfig

HOST = "127.0.0.1"
_LEFTOVER_SECONDS = (
    60.0  # what a killed cluster's processes may take to end; pods get 15 s, the agent's end some more
)


@dataclass(frozen=True, slots=True)
class Ports:
    """The loopback ports of one cluster; chosen once and kept, so that a kubeconfig stays valid."""

    apiserver: int
    instances: int
    kubelet: int
    operator_health: int
    operator_metrics: int
    operator_webhook: int
    arm: int
    arm_plain: int
    registry: int


# ------------------------------------------------------------------ ownership


@asynccontextmanager
async def owned(home: Path) -> AsyncIterator[int]:
    """Own the folder, made if need be. Yields the file descriptor that every child process must inherit.

    Raises:
        CliError: another cluster runs in it, processes of a killed one do not end, or it cannot be written.
    """
    with contextlib.ExitStack() as stack:
        with usable(home):
            home.mkdir(parents=True, exist_ok=True, mode=0o700)
            lock = stack.enter_context((home / "lock").open("a+"))
            processes = stack.enter_context((home / "processes.lock").open("a+"))
            if not _try_lock(lock):
                raise CliError(
                    f"a cluster already runs in {home} (process {_read_pid(home)})",
                    f"use it: export KUBECONFIG={home / 'kubeconfig'}; or stop it with `kaito down`; "
                    "or start another with --home",
                )
            lock.seek(0)
            lock.truncate()
            lock.write(f"{os.getpid()}\n")
            lock.flush()
        if not _try_lock(processes):
            with step("processes of the last cluster here, which was killed, end"):
                deadline = time.monotonic() + _LEFTOVER_SECONDS
                while not _try_lock(processes):
                    if time.monotonic() > deadline:
                        raise CliError(
                            f"processes of an earlier cluster still use {home}",
                            f"find and stop them (fuser {home / 'processes.lock'}), or use another --home",
                        )
                    await asyncio.sleep(0.1)  # a lock that other processes hold can only be polled
        yield processes.fileno()


def holder(home: Path) -> int | None:
    """The process that runs a cluster in this folder, or None: then any pid in the file is stale."""
    with usable(home):
        try:
            with (home / "lock").open("r+") as lock:
                return None if _try_lock(lock) else _read_pid(home)
        except FileNotFoundError:
            return None


@contextmanager
def usable(home: Path) -> Iterator[None]:
    """Errors of the file system leave the block as a CliError that names the folder."""
    try:
        yield
    except OSError as error:
        raise CliError(
            f"the folder {home} cannot be used: {error.strerror or error}",
            "choose one that you can write to, with --home or KAITO_HOME",
        ) from error


def _try_lock(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _read_pid(home: Path) -> int | None:
    try:
        return int((home / "lock").read_text().strip() or 0) or None
    except (OSError, ValueError):
        return None


# ------------------------------------------------------------------ ports


def ports_of(home: Path, port: int | None = None) -> Ports:
    """The ports of this folder's cluster: those of last time where they are still free, else new ones.

    Raises:
        CliError: ``port``, which was asked for, cannot be used for the API server.
    """
    file = home / "ports.json"
    kept = _kept_ports(file)
    if port is not None:
        if why := _unusable(port):
            raise CliError(f"port {port} on {HOST} {why}", "choose another with --port, or leave it out")
        kept["apiserver"] = port
    chosen: dict[str, int] = {}
    for name in Ports.__dataclass_fields__:
        wanted = kept.get(name)
        while wanted is None or wanted in chosen.values() or _unusable(wanted):
            wanted = _free_port()
        chosen[name] = wanted
    with usable(home):
        file.write_text(json.dumps(chosen))
    return Ports(**chosen)


def _kept_ports(file: Path) -> dict[str, int]:
    """The ports of last time; none if the file is not there or damaged: they are only a convenience."""
    try:
        kept = json.loads(file.read_text())
    except (OSError, ValueError):
        return {}
    if not isinstance(kept, dict):
        return {}
    return {name: port for name, port in kept.items() if type(port) is int and 0 < port < 65536}


def _unusable(port: int) -> str:
    """Why a port cannot be listened on, or an empty string."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except PermissionError:
            return "needs a privilege that you do not have"
        except OSError as error:
            return "is in use" if error.errno == errno.EADDRINUSE else f"cannot be used: {error.strerror}"
        return ""


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


# ------------------------------------------------------------------ secrets and the kubeconfig


def write_secret(path: Path) -> None:
    """A random token readable by its owner only; kept if it is there, since running nodes know it."""
    with usable(path.parent):
        if path.exists() and path.stat().st_size >= 32:
            return
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "w") as file:
            file.write(secrets.token_urlsafe(32))


def read_kubeconfig(path: Path) -> RestConfig:
    """The connection in a kubeconfig that our own API server wrote: one cluster, a token, CA data.

    Reading other people's kubeconfigs is the work of ``manager.kubeconfig``, which costs a heavy import.

    Raises:
        CliError: the file is not of that shape.
    """
    import yaml

    try:
        config = yaml.safe_load(path.read_text())
        cluster = config["clusters"][0]["cluster"]
        return RestConfig(
            server=cluster["server"],
            ca_data=base64.b64decode(cluster["certificate-authority-data"]),
            token=config["users"][0]["user"]["token"],
        )
    except (OSError, yaml.YAMLError, KeyError, IndexError, TypeError, ValueError) as error:
        raise CliError(
            f"{path} is not a kubeconfig of `kaito up`: {error}", "delete the file and start again"
        ) from error
