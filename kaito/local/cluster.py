"""The embedded cluster as a whole: its folder, its three processes, and how they find each other.

In: options. Out: a running API server, node agent and operator, started in that order, and a kubeconfig. The
folder holds everything that outlives a process (database, certificates, tokens, node state, logs) and a lock that
its one supervisor holds; the kernel releases it with the process, so a stale file can never block a start. Each
process is an ordinary ``kaito`` command and knows nothing of the supervisor: it can be killed and started alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import secrets
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from kaito.console import note, out, step
from kaito.errors import CliError
from kaito.local.supervisor import Child, ChildFailed, Supervisor
from manager.client import Client
from manager.config import RestConfig
from manager.errors import ManagerError

HOST = "127.0.0.1"
_SAMPLE = "config/samples/1-phi-3-inference.yaml"


@dataclass(frozen=True, slots=True)
class Options:
    """What a cluster is started with. ``home`` is its folder."""

    home: Path
    port: int | None = None
    node_delay: float = 2.0
    weights: list[str] = field(default_factory=list)

    @classmethod
    def of(
        cls,
        home: Path | None,
        *,
        port: int | None = None,
        node_delay: float = 2.0,
        weights: list[str] | None = None,
    ) -> Self:
        """Options with the default folder filled in and the values checked.

        Raises:
            CliError: a value cannot be used.
        """
        data = os.environ.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
        for entry in weights or []:
            preset, sep, folder = entry.partition("=")
            if not (preset and sep and Path(folder).is_dir()):
                raise CliError(f"--weights {entry}: not PRESET=FOLDER with a folder that exists", exit_code=2)
        if node_delay < 0:
            raise CliError("--node-delay must not be negative", exit_code=2)
        folder_path = (home or Path(data) / "kaito").expanduser().absolute()
        return cls(folder_path, port, node_delay, list(weights or []))


@dataclass(frozen=True, slots=True)
class Ports:
    """The loopback ports of one cluster; chosen once and kept, so that a kubeconfig stays valid."""

    apiserver: int
    instances: int
    kubelet: int
    operator_health: int
    operator_metrics: int


class Cluster:
    """A cluster that runs. Made by :func:`running`."""

    def __init__(self, options: Options, ports: Ports) -> None:
        self.options = options
        self.ports = ports
        self.home = options.home
        self.kubeconfig = self.home / "kubeconfig"
        self.logs = self.home / "logs"
        self.node_token = self.home / "node-token"
        self.supervisor = Supervisor(_environment())

    @property
    def server(self) -> str:
        """URL of the API server."""
        return f"https://{HOST}:{self.ports.apiserver}"

    def rest_config(self) -> RestConfig:
        """How to reach the API server as the administrator, from the kubeconfig that it wrote."""
        return read_kubeconfig(self.kubeconfig)

    def write_node_token(self) -> None:
        """The secret that the API server and the operator show to the node agent; kept if it is there."""
        _write_secret(self.node_token)

    # -------------------------------------------------------------- the three processes

    def apiserver(self) -> Child:
        """The API server with the built-in controllers."""
        argv = [
            *_kaito(),
            "apiserver",
            f"--data-dir={self.home / 'apiserver'}",
            f"--host={HOST}",
            f"--port={self.ports.apiserver}",
            f"--kubeconfig-out={self.kubeconfig}",
            f"--kubelet-token-file={self.node_token}",
        ]
        return Child("apiserver", argv, self.logs / "apiserver.log", self._apiserver_ready)

    def node(self) -> Child:
        """The node agent with the simulated cloud."""
        argv = [
            *_kaito(),
            "node",
            f"--kubeconfig={self.kubeconfig}",
            f"--state-dir={self.home / 'node'}",
            f"--instances-listen={HOST}:{self.ports.instances}",
            f"--kubelet-port={self.ports.kubelet}",
            f"--token-file={self.node_token}",
            f"--node-delay={self.options.node_delay}",
            *(f"--weights={entry}" for entry in self.options.weights),
        ]
        return Child("node", argv, self.logs / "node.log", self._node_ready, stop_seconds=40)

    def operator(self) -> Child:
        """The operator: both reconcilers, exactly as in a cluster."""
        argv = [
            *_kaito(),
            "manager",
            "--controllers=workspace,machine",
            f"--kubeconfig={self.kubeconfig}",
            "--provider=local",
            f"--local-cloud-url=http://{HOST}:{self.ports.instances}",
            f"--local-cloud-token-file={self.node_token}",
            f"--metrics-bind={HOST}:{self.ports.operator_metrics}",
            f"--health-bind={HOST}:{self.ports.operator_health}",
        ]
        return Child("operator", argv, self.logs / "operator.log", self._operator_ready)

    async def install_crds(self, config: RestConfig | None = None) -> None:
        """Apply the custom resource definitions and wait until they are served."""
        from api.crds import crds

        from manager.resources import CRDS

        async with Client(config or self.rest_config(), field_manager="kaito-up") as client:
            for crd in crds():
                await client.apply(CRDS, crd)
            for crd in crds():
                while not _established(await client.get(CRDS, crd["metadata"]["name"])):
                    await asyncio.sleep(0.02)  # the server answers in the same breath; the loop is for a slow disk

    # -------------------------------------------------------------- readiness, from outside

    async def _apiserver_ready(self) -> bool:
        if not self.kubeconfig.exists():
            return False
        try:
            async with Client(self.rest_config()) as client:
                return (await client.text("/readyz")).startswith("ok")
        except (ManagerError, OSError, CliError):
            return False

    async def _operator_ready(self) -> bool:
        return await _answers(self.ports.operator_health, "/readyz")

    async def _node_ready(self) -> bool:
        return await _answers(self.ports.instances, "/healthz")


# ------------------------------------------------------------------ starting and stopping


@asynccontextmanager
async def running(options: Options) -> AsyncIterator[Cluster]:
    """A cluster for the length of the block: started with a line of progress per process, and stopped after.

    Raises:
        CliError: the folder is in use by another cluster, a port is taken, or a process did not start.
    """
    with _locked(options.home):
        cluster = Cluster(options, choose_ports(options))
        cluster.write_node_token()
        try:
            with step("API server answers"):
                await cluster.supervisor.start(cluster.apiserver())
            await cluster.install_crds()
            with step("node agent and operator are ready"):
                await cluster.supervisor.start(cluster.node())
                await cluster.supervisor.start(cluster.operator())
            yield cluster
        except ChildFailed as error:
            raise CliError(
                f"the {error}; its last words:\n{error.tail}", f"the whole log: {error.child.log}"
            ) from error
        finally:
            await _finish(cluster)


async def run_up(options: Options) -> None:
    """Start a cluster, say how to use it, and keep it until SIGINT or SIGTERM.

    Raises:
        CliError: see :func:`running`.
    """
    began = time.monotonic()
    with _stop_on_signal() as stop:
        async with running(options) as cluster:
            out(_greeting(cluster, time.monotonic() - began))
            await cluster.supervisor.watch(stop)
            note("stopping: the state is kept, `kaito up` continues from it")


def stop_running(options: Options) -> None:
    """Stop the cluster that another process runs in this folder, and wait until it has ended.

    Raises:
        CliError: it did not end within a minute.
    """
    pid = _holder(options.home)
    if pid is None:
        out(f"no cluster runs in {options.home}")
        return
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + 60
    with step(f"cluster of process {pid} stops"):
        while _holder(options.home) == pid:
            if time.monotonic() > deadline:
                raise CliError(f"process {pid} did not stop within 60 s", f"its logs: {options.home / 'logs'}")
            time.sleep(0.1)


async def _finish(cluster: Cluster) -> None:
    """Stop the children even when this task is cancelled again meanwhile (a second Ctrl-C)."""
    stopping = asyncio.ensure_future(cluster.supervisor.stop())
    while not stopping.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.shield(stopping)
    stopping.result()


@asynccontextmanager
async def interruptible() -> AsyncIterator[None]:
    """Within the block, SIGINT, SIGTERM and SIGHUP cancel the current task, so that every clean-up runs.

    Raises:
        CliError: it was interrupted (exit code 130, as shells expect).
    """
    task = asyncio.current_task()
    with _stop_on_signal() as stop:

        async def relay() -> None:
            await stop.wait()
            if task is not None:
                task.cancel()

        watcher = asyncio.create_task(relay(), name="interrupt")
        try:
            yield
        except asyncio.CancelledError:
            if not stop.is_set():
                raise
            raise CliError("interrupted", exit_code=130) from None
        finally:
            watcher.cancel()


@contextmanager
def _stop_on_signal() -> Iterator[asyncio.Event]:
    """An event that SIGINT and SIGTERM set, instead of their default actions."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    for number in numbers:
        loop.add_signal_handler(number, stop.set)
    try:
        yield stop
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


def _greeting(cluster: Cluster, seconds: float) -> str:
    return f"""
The cluster is ready ({seconds:.1f} s). In another shell:

  export KUBECONFIG={cluster.kubeconfig}
  kubectl apply -f {_SAMPLE}      # or: kaito apply -f ...
  kubectl get workspace -w{" " * (len(_SAMPLE) - 5)}# until WORKSPACEREADY is True
  kaito chat workspace-phi-3-mini "What is KAITO?"

GPU nodes are simulated and the model is a small stand-in; `kaito up --weights PRESET=FOLDER` serves real weights.
Logs: {cluster.logs}   Ctrl-C stops the cluster and keeps its state."""


# ------------------------------------------------------------------ the folder


@contextmanager
def _locked(home: Path) -> Iterator[None]:
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (home / "lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CliError(
                f"a cluster already runs in {home} (process {_read_pid(home)})",
                "use it, stop it with `kaito down`, or choose another folder with --home",
            ) from None
        lock.seek(0)
        lock.truncate()
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        yield


def _holder(home: Path) -> int | None:
    """The process that holds the lock of this folder, or None: then any pid in the file is stale."""
    try:
        with (home / "lock").open("r+") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return _read_pid(home)
    except FileNotFoundError:
        pass
    return None


def _read_pid(home: Path) -> int | None:
    try:
        return int((home / "lock").read_text().strip() or 0) or None
    except (OSError, ValueError):
        return None


def choose_ports(options: Options) -> Ports:
    """The ports of this folder's cluster: those of last time where they are still free, else new ones.

    Raises:
        CliError: a port that was asked for is taken.
    """
    file = options.home / "ports.json"
    try:
        kept = json.loads(file.read_text())
    except (OSError, ValueError):
        kept = {}  # first start, or a damaged file: the ports are only a convenience
    if options.port is not None:
        if not _is_free(options.port):
            raise CliError(
                f"port {options.port} on {HOST} is in use", "choose another with --port, or leave it out"
            )
        kept["apiserver"] = options.port
    chosen: dict[str, int] = {}
    for name in Ports.__dataclass_fields__:
        port = kept.get(name)
        usable = isinstance(port, int) and port not in chosen.values() and _is_free(port)
        chosen[name] = port if usable else _free_port()
    file.write_text(json.dumps(chosen))
    return Ports(**chosen)


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except (OSError, OverflowError):
            return False
        return True


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _write_secret(path: Path) -> None:
    """A random token readable by its owner only; kept if it is there, since running nodes know it."""
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
    import base64

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


def _established(crd: dict[str, object]) -> bool:
    status = crd.get("status")
    conditions = status.get("conditions") if isinstance(status, dict) else None
    return any(c.get("type") == "Established" and c.get("status") == "True" for c in conditions or [])


def _kaito() -> list[str]:
    """This installation's own command, whatever PATH says."""
    return [sys.executable, "-P", "-m", "kaito"]


def _environment() -> dict[str, str]:
    """The children's environment: ours, less what would point them at another cluster or through a proxy."""
    hidden = {
        "KUBECONFIG",
        "http_proxy",
        "https_proxy",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "all_proxy",
        "ALL_PROXY",
    }
    return {key: value for key, value in os.environ.items() if key not in hidden}


async def _answers(port: int, path: str) -> bool:
    """Whether plain HTTP on this port answers 200."""
    try:
        async with asyncio.timeout(2):
            reader, writer = await asyncio.open_connection(HOST, port)
            try:
                writer.write(f"GET {path} HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n".encode())
                return b" 200 " in await reader.readline()
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return False
