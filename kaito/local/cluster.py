"""The embedded cluster as a whole: its processes, how they find each other, and how they start and stop.

In: options. Out: a running API server, node agent, registry and operator (and a stand-in of Azure, if asked
for), started in that order, and a kubeconfig. The folder (``kaito.local.home``) holds everything that outlives
a process: database, certificates, tokens, node state, logs. Each process is an ordinary ``kaito`` command and
knows nothing of the supervisor: it can be killed and started alone.
"""

from __future__ import annotations

import asyncio
import math
import os
import shlex
import shutil
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from api.keys import INSECURE_REGISTRIES
from kaito.console import note, out, step
from kaito.errors import CliError, Interrupted
from kaito.kube import translated
from kaito.local.azure_env import environment as azure_environment
from kaito.local.home import HOST, Ports, holder, owned, ports_of, read_kubeconfig, write_secret
from kaito.local.signals import until_signal
from kaito.local.supervisor import Child, ChildFailed, Supervisor
from manager.client import Client, PatchType
from manager.config import RestConfig
from manager.errors import AlreadyExists, ManagerError
from manager.types import Obj, Resource

SAMPLE = Path(__file__).parent.parent.parent / "config" / "samples" / "1-phi-3-inference.yaml"
CLOUDS = ("local", "fake-azure")
_CRD_SECONDS = 30.0
_DOWN_SECONDS = 90.0  # the supervisor's own limits are shorter, taken together


@dataclass(frozen=True, slots=True)
class Options:
    """What a cluster is started with. ``home`` is its folder."""

    home: Path
    port: int | None = None
    node_delay: float = 2.0
    weights: list[str] = field(default_factory=list)
    cloud: str = "local"
    faults: Path | None = None

    @classmethod
    def of(
        cls,
        home: Path | None,
        *,
        port: int | None = None,
        node_delay: float = 2.0,
        weights: list[str] | None = None,
        cloud: str = "local",
        faults: Path | None = None,
    ) -> Self:
        """Options with the default folder filled in and the values checked.

        Raises:
            CliError: a value cannot be used.
        """
        data = os.environ.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
        absolute: list[str] = []
        for entry in weights or []:
            preset, _, folder = entry.partition("=")
            if not (preset and folder and Path(folder).expanduser().is_dir()):
                raise CliError(
                    f"--weights {entry}: not PRESET=FOLDER with a folder that exists",
                    "for instance --weights phi-3-mini-4k-instruct=/models/phi-3",
                    exit_code=2,
                )
            _check_weights(preset, Path(folder).expanduser())
            absolute.append(f"{preset}={Path(folder).expanduser().absolute()}")
        if not (node_delay >= 0 and math.isfinite(node_delay)):
            raise CliError(f"--node-delay {node_delay}: not a number of seconds", "for instance 2", exit_code=2)
        if cloud not in CLOUDS:
            raise CliError(f"--cloud {cloud}: unknown", f"choose of {', '.join(CLOUDS)}", exit_code=2)
        if faults is not None:
            if cloud != "fake-azure":
                raise CliError("--faults is for --cloud fake-azure", "add --cloud fake-azure", exit_code=2)
            from kaito.local.fakearm.command import load_rules

            load_rules(faults, node_delay)  # told now, and not by a process that does not start
            faults = faults.expanduser().absolute()
        folder_path = (home or Path(data) / "kaito").expanduser().absolute()
        return cls(folder_path, port, node_delay, absolute, cloud, faults)


def _check_weights(preset: str, folder: Path) -> None:
    """Refuse a preset that nobody knows, and a folder without a model, before anything is started."""
    from api.catalog import preset as known
    from api.errors import UnknownPreset

    try:
        known(preset)
    except UnknownPreset as error:
        raise CliError(f"--weights {preset}=...: {error}", exit_code=2) from error
    if not (folder / "config.json").is_file():
        raise CliError(
            f"--weights: {folder} holds no config.json",
            "give the folder of a model in Hugging Face's layout: config.json, tokenizer, *.safetensors",
            exit_code=2,
        )


class Cluster:
    """The processes of one cluster. ``inherited`` is the descriptor of the lock that they share, if any."""

    def __init__(self, options: Options, ports: Ports, inherited: int | None = None) -> None:
        self.options = options
        self.ports = ports
        self.home = options.home
        self.kubeconfig = self.home / "kubeconfig"
        self.logs = self.home / "logs"
        self.node_token = self.home / "node-token"
        descriptors = [] if inherited is None else [inherited]
        self.supervisor = Supervisor(_environment(), inherited=descriptors, report=note)

    @property
    def is_azure(self) -> bool:
        """Whether the operator works with the Azure provider, on a stand-in."""
        return self.options.cloud == "fake-azure"

    @property
    def azure_home(self) -> Path:
        """Folder of the stand-in for Azure."""
        return self.home / "fake-azure"

    @property
    def server(self) -> str:
        """URL of the API server."""
        return f"https://{HOST}:{self.ports.apiserver}"

    def rest_config(self) -> RestConfig:
        """How to reach the API server as the administrator, from the kubeconfig that it wrote."""
        return read_kubeconfig(self.kubeconfig)

    def write_node_token(self) -> None:
        """The secret that the API server and the operator show to the node agent; kept if it is there."""
        write_secret(self.node_token)

    # -------------------------------------------------------------- the processes

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
            f"--node-delay={0.0 if self.is_azure else self.options.node_delay}",
            *(f"--weights={entry}" for entry in self.options.weights),
        ]
        return Child(
            "node",
            argv,
            self.logs / "node.log",
            self._node_ready,
            stop_seconds=40,
            environment={INSECURE_REGISTRIES: ",".join(self._plain_registries())},
        )

    def registry(self) -> Child:
        """The registry for adapters and models of this machine."""
        argv = [
            *_kaito(),
            "registry",
            f"--data-dir={self.home / 'registry'}",
            f"--host={HOST}",
            f"--port={self.ports.registry}",
        ]
        return Child("registry", argv, self.logs / "registry.log", self._registry_ready)

    def _plain_registries(self) -> list[str]:
        """Registries without TLS that pods may use: ours, and those that the user's environment names."""
        named = os.environ.get(INSECURE_REGISTRIES, "").split(",")
        return [f"{HOST}:{self.ports.registry}", *(host for host in named if host)]

    def arm(self) -> Child:
        """The stand-in for Azure, whose machines the node agent plays."""
        argv = [
            *_kaito(),
            "fake-azure",
            f"--state-dir={self.azure_home}",
            f"--port={self.ports.arm}",
            f"--plain-port={self.ports.arm_plain}",
            f"--instances-url=http://{HOST}:{self.ports.instances}",
            f"--token-file={self.node_token}",
            f"--node-delay={self.options.node_delay}",
            *([f"--faults={self.options.faults}"] if self.options.faults else []),
        ]
        return Child("fake-azure", argv, self.logs / "fake-azure.log", self._arm_ready)

    def operator(self) -> Child:
        """The operator: both reconcilers, exactly as in a cluster."""
        provider = ["--provider=azure"] if self.is_azure else self._local_provider()
        argv = [
            *_kaito(),
            "manager",
            "--controllers=workspace,machine",
            f"--kubeconfig={self.kubeconfig}",
            *provider,
            f"--metrics-bind={HOST}:{self.ports.operator_metrics}",
            f"--health-bind={HOST}:{self.ports.operator_health}",
            f"--webhook-bind={HOST}:{self.ports.operator_webhook}",
            "--namespace=kube-system",  # where its certificates are
            "--allow-private-dataset-urls",  # everything here is on this machine
        ]
        env = azure_environment(self.azure_home, self.ports.arm) if self.is_azure else {}
        return Child("operator", argv, self.logs / "operator.log", self._operator_ready, environment=env)

    def _local_provider(self) -> list[str]:
        return [
            "--provider=local",
            f"--local-cloud-url=http://{HOST}:{self.ports.instances}",
            f"--local-cloud-token-file={self.node_token}",
        ]

    async def install(self, config: RestConfig | None = None) -> None:
        """Install the custom resource definitions and the webhook's configuration; wait until they are served.

        A Workspace is admitted while the operator is away: each process here can be killed and started alone, and
        the operator judges by the same rules when it is back.

        Raises:
            CliError: the API server refused them, or does not serve them in time.
        """
        from api.crds import crds
        from api.webhook import url_client, workspace_webhook
        from manager.certs.injection import VALIDATING
        from manager.resources import CRDS

        webhook = workspace_webhook(url_client(HOST, self.ports.operator_webhook), failure_policy="Ignore")
        with translated():
            async with Client(config or self.rest_config(), field_manager="kaito-up") as client:
                for crd in crds():
                    await put(client, CRDS, crd)
                await client.apply(VALIDATING, webhook)
                try:
                    async with asyncio.timeout(_CRD_SECONDS):
                        for crd in crds():
                            while not _established(await client.get(CRDS, crd["metadata"]["name"])):
                                await asyncio.sleep(0.02)  # served in the same breath, unless the disk is slow
                except TimeoutError as error:
                    raise CliError(
                        f"the API server does not serve the CRDs after {_CRD_SECONDS:.0f} s",
                        f"its log: {self.logs / 'apiserver.log'}",
                    ) from error

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

    async def _arm_ready(self) -> bool:
        return await _answers(self.ports.arm_plain, "/healthz")

    async def _registry_ready(self) -> bool:
        return await _answers(self.ports.registry, "/v2/")

    async def _node_ready(self) -> bool:
        return await _answers(self.ports.instances, "/healthz")


# ------------------------------------------------------------------ starting and stopping


@asynccontextmanager
async def running(options: Options) -> AsyncIterator[Cluster]:
    """A cluster for the length of the block: started with a line of progress per process, kept, and stopped after.

    Raises:
        CliError: the folder is in use by another cluster, a port is taken, or a process did not start.
    """
    async with owned(options.home) as lock:
        cluster = Cluster(options, choose_ports(options), lock)
        cluster.write_node_token()
        try:
            await _start(cluster)
            async with cluster.supervisor.kept():
                yield cluster
        finally:
            await _finish(cluster)


def choose_ports(options: Options) -> Ports:
    """The ports of the cluster of these options; see :func:`kaito.local.home.ports_of`."""
    return ports_of(options.home, options.port)


async def run_up(options: Options) -> None:
    """Start a cluster, say how to use it, and keep it until SIGINT, SIGTERM or SIGHUP.

    Raises:
        CliError: see :func:`running`.
        Interrupted: a signal came before the cluster was ready.
    """
    ready = asyncio.Event()
    try:
        await until_signal(_keep_up(options, ready), "\nstopping: the state is kept, `kaito up` continues from it")
    except Interrupted:
        if not ready.is_set():
            raise


async def _keep_up(options: Options, ready: asyncio.Event) -> None:
    began = time.monotonic()
    async with running(options) as cluster:
        out(_greeting(cluster, time.monotonic() - began))
        ready.set()
        await asyncio.Event().wait()


def stop_running(options: Options) -> None:
    """Stop the cluster that another process runs in this folder, and wait until it has ended.

    Raises:
        CliError: it did not end in time, or belongs to another user.
    """
    pid = holder(options.home)
    if pid is None:
        out(f"no cluster runs in {options.home}")
        return
    try:
        os.kill(pid, signal.SIGTERM)
    except ProcessLookupError:
        pass  # it ended by itself just now
    except PermissionError as error:
        raise CliError(f"process {pid} belongs to another user", "stop it as that user") from error
    deadline = time.monotonic() + _DOWN_SECONDS
    with step(f"cluster of process {pid} stopped"):
        while holder(options.home) == pid:
            if time.monotonic() > deadline:
                raise CliError(
                    f"process {pid} did not stop within {_DOWN_SECONDS:.0f} s",
                    f"its logs: {options.home / 'logs'}",
                )
            time.sleep(0.1)


async def _start(cluster: Cluster) -> None:
    try:
        with step("API server answers"):
            await cluster.supervisor.start(cluster.apiserver())
            await cluster.install()
        with step("node agent and operator are ready"):
            await _together(cluster.supervisor.start(cluster.node()), cluster.supervisor.start(cluster.registry()))
            if cluster.is_azure:
                await cluster.supervisor.start(cluster.arm())
            await cluster.supervisor.start(cluster.operator())
    except ChildFailed as error:
        raise explained(error) from error
    except OSError as error:
        raise CliError(f"a process could not be started: {error}", f"is {cluster.home} writable?") from error


async def _together(*starts: Awaitable[float]) -> None:
    """Wait for all of them, and only then raise the first error: none is left starting unobserved."""
    for result in await asyncio.gather(*starts, return_exceptions=True):
        if isinstance(result, BaseException):
            raise result


def explained(failure: ChildFailed) -> CliError:
    """What a process said last, where it ended as a command of ours does: with an error and a next step."""
    message, next_step, where = "", "", f"the whole log: {failure.child.log}"
    for line in failure.tail.splitlines():
        if line.startswith("error: "):
            message, next_step = line.removeprefix("error: "), ""
        elif line.startswith("  next: ") and message:
            next_step = line.removeprefix("  next: ")
    if message:
        return CliError(f"{failure.child.name}: {message}", f"{next_step}; {where}" if next_step else where)
    said = f"; its last words:\n{failure.tail}" if failure.tail else " and said nothing"
    return CliError(f"{failure}{said}", where)


async def _finish(cluster: Cluster) -> None:
    """Stop the children to the end, even when this task is cancelled meanwhile; the cancellation comes after."""
    stopping = asyncio.create_task(cluster.supervisor.stop(), name="stop-cluster")
    cancelled: asyncio.CancelledError | None = None
    while not stopping.done():
        try:
            await asyncio.shield(stopping)
        except asyncio.CancelledError as error:
            cancelled = error
    stopping.result()
    if cancelled is not None:
        raise cancelled


def shown(path: Path) -> str:
    """A path as short as it can be typed here."""
    try:
        return str(path.relative_to(Path.cwd()))
    except (OSError, ValueError):
        return str(path)


def client_command() -> str:
    """The command that a person here would use: kubectl, or kaito where that is not installed."""
    return "kubectl" if shutil.which("kubectl") else kaito_command()


def kaito_command() -> str:
    """How a person here would type this installation's command: by name where PATH finds it, else by its path."""
    here = Path(sys.executable).parent / "kaito"
    return "kaito" if shutil.which("kaito") == str(here) else shown(here)


def _greeting(cluster: Cluster, seconds: float) -> str:
    tool = client_command()
    commands = [
        (f"export KUBECONFIG={shlex.quote(str(cluster.kubeconfig))}", ""),
        (f"{tool} apply -f {shown(SAMPLE)}", f"or: {kaito_command()} apply -f ..." if tool == "kubectl" else ""),
        (f"{tool} get workspace -w", "until WORKSPACEREADY is True; then Ctrl-C"),
        (f'{kaito_command()} chat workspace-phi-3-mini "What is KAITO?"', ""),
    ]
    width = max(len(command) for command, remark in commands if remark)
    lines = "\n".join(
        f"  {command:{width}}   # {remark}" if remark else f"  {command}" for command, remark in commands
    )
    return f"""
The cluster is ready ({seconds:.1f} s). In another shell:

{lines}

GPU nodes are simulated and the model is a small stand-in; `kaito up --weights PRESET=FOLDER` serves real weights.
Registry for adapters: {HOST}:{cluster.ports.registry} (plain http; docker, skopeo and oras can push to it)
{_azure_note(cluster)}Logs: {cluster.logs}   Ctrl-C stops the cluster and keeps its state."""


def _azure_note(cluster: Cluster) -> str:
    if not cluster.is_azure:
        return ""
    env = shlex.quote(str(cluster.azure_home / "azure.env"))
    return f"The operator talks to a stand-in of Azure; to ask it yourself:  . {env}; {kaito_command()} audit\n"


async def put(client: Client, resource: Resource, obj: Obj) -> None:
    """Create an object, or merge it into the one that is there.

    Not by server-side apply: an API server before 1.25 refuses rules in CEL there, and drops them here.
    """
    try:
        await client.create(resource, obj)
    except AlreadyExists:
        await client.patch(resource, obj["metadata"]["name"], obj, type=PatchType.MERGE)


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
