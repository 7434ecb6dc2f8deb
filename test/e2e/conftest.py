"""The whole product as processes, on either API server, driven by real kubectl.

A ``Stack`` runs the very commands that `kaito up` supervises, without the supervisor, so that a test decides what
dies and what comes back. On the real control plane the API server, its controllers and its scheduler are
Kubernetes' own; the node agent and the operator are the same processes.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kaito.local.cluster import Cluster, Options, choose_ports
from kaito.local.pki import Authority
from kaito.local.supervisor import Child, tail
from manager.config import RestConfig
from manager.testing.controlplane import ControlPlane

SAMPLES = Path(__file__).parent.parent.parent / "config" / "samples"
Obj = dict[str, Any]


class Stack:
    """See the module. ``kind`` is ``embedded`` or ``real``."""

    def __init__(self, kind: str, home: Path, kubectl: str, **options_: Any) -> None:
        self.kind = kind
        self.kubectl = kubectl
        options = Options.of(home, node_delay=1.0, **options_)
        home.mkdir(parents=True, exist_ok=True)
        self.cluster = Cluster(options, choose_ports(options))
        self.cluster.write_node_token()
        self._plane: ControlPlane | None = None
        self.more_node_flags: list[str] = []
        self._node_flags: list[str] = []
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def config(self) -> RestConfig:
        """The administrator's connection."""
        return self._plane.rest_config() if self._plane else self.cluster.rest_config()

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig."""
        return self.cluster.kubeconfig

    # -------------------------------------------------------------- processes

    def start_all(self) -> None:
        """The API server, the CRDs, the node agent and the operator."""
        if self.kind == "real":
            authority = Authority(self.cluster.home / "kubelet-pki")
            pair = authority.client("kube-apiserver", "kube-apiserver")
            ca = self.cluster.home / "kubelet-ca.pem"
            ca.write_bytes(authority.ca_pem)
            self._node_flags = [f"--client-ca={ca}"]
            self._plane = ControlPlane.start(kubelet_client_cert=(pair.certificate, pair.key))
            self.kubeconfig.write_text(self._plane.kubeconfig.read_text())
        else:
            self.start("apiserver")
        asyncio.run(self.cluster.install(self.config))
        self.start("node")
        if self.cluster.is_azure:
            self.start("arm")
        self.start("operator")

    def start(self, name: str) -> None:
        """Start one process and wait until it is ready."""
        child: Child = getattr(self.cluster, name)()
        child.log.parent.mkdir(exist_ok=True)
        flags = [*self._node_flags, *self.more_node_flags] if name == "node" else []
        with child.log.open("ab") as log:
            self._running[name] = subprocess.Popen(
                [*child.argv, *flags],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                # Training on a thread for each core takes minutes where the machine is busy.
                env={**os.environ, "OMP_NUM_THREADS": "1", **child.environment},
            )
        deadline = time.monotonic() + 60
        while not asyncio.run(_ready(child)):
            assert self._running[name].poll() is None, f"{name} ended: {tail(child.log, 30)}"
            assert time.monotonic() < deadline, f"{name} not ready: {tail(child.log, 30)}"
            time.sleep(0.1)

    def kill(self, name: str) -> None:
        """SIGKILL, and wait until it is gone."""
        process = self._running.pop(name)
        process.send_signal(signal.SIGKILL)
        process.wait(10)

    def stop_all(self) -> None:
        """In reverse order; what does not stop is killed."""
        for process in reversed(self._running.values()):
            process.terminate()
            try:
                process.wait(40)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._running.clear()
        if self._plane is not None:
            self._plane.stop()

    # -------------------------------------------------------------- as a user

    def run(self, *args: str, check: bool = True, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        """kubectl with these arguments."""
        done = subprocess.run(
            [self.kubectl, *args],
            env={**os.environ, "KUBECONFIG": str(self.kubeconfig)},
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=timeout,
        )
        assert not check or done.returncode == 0, f"kubectl {' '.join(args)}: {done.stderr}{done.stdout}"
        return done

    def get(self, *args: str) -> Obj:
        """kubectl get ... -o json; with --ignore-not-found, empty for what is not there."""
        return dict(json.loads(self.run("get", *args, "-o", "json").stdout or "{}"))

    def wait(self, what: str, condition: Callable[[], bool], timeout: float = 240) -> None:
        """Until the condition holds, or fail with the state of the world."""
        deadline = time.monotonic() + timeout
        while not condition():
            if time.monotonic() > deadline:
                state = self.run("get", "workspaces,machines,nodes,pods,events", "-A", check=False).stdout
                logs = {name: tail(self.cluster.logs / f"{name}.log", 8) for name in ("operator", "node")}
                pytest.fail(f"not within {timeout:.0f} s: {what}\n{state}\n{logs}")
            time.sleep(0.25)

    def workspace_is_ready(self, name: str, namespace: str = "default") -> bool:
        """Whether the WORKSPACEREADY column would say True."""
        found = self.run("get", "workspace", name, "-n", namespace, "-o", "json", check=False)
        if found.returncode != 0:
            return False
        conditions = json.loads(found.stdout).get("status", {}).get("conditions", [])
        return any(c["type"] == "WorkspaceReady" and c["status"] == "True" for c in conditions)


async def _ready(child: Child) -> bool:
    return await child.ready()


def _kubectl() -> str:
    from shutil import which

    kubectl = os.environ.get("KUBEBUILDER_ASSETS", "") + "/kubectl"
    kubectl = kubectl if os.access(kubectl, os.X_OK) else which("kubectl") or ""
    if not kubectl:
        pytest.skip("kubectl is not installed")
    return kubectl


@pytest.fixture(scope="session")
def make_stack(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Stack]:
    """Makes a product of its own that has not been started; whoever asks for it stops it."""

    def make(kind: str, **options: Any) -> Stack:
        return Stack(kind, tmp_path_factory.mktemp(f"own-{kind}"), _kubectl(), **options)

    return make


@pytest.fixture(scope="session")
def stack(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The product, running."""
    running = Stack(request.param, tmp_path_factory.mktemp(f"stack-{request.param}"), _kubectl())
    try:
        running.start_all()
        yield running
    finally:
        running.stop_all()
