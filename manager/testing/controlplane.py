"""A real Kubernetes control plane on loopback, for tests: etcd, kube-apiserver and, when asked, controllers.

In: a folder with the binaries (``KUBEBUILDER_ASSETS``, the variable that envtest reads). Out: a running
control plane with an admin token, a kubeconfig file and a ``RestConfig``. The folder of one instance holds
everything it writes; ``stop()`` ends the processes in reverse order and removes the folder. Nothing plays
the node.

When asked, an apiextensions-apiserver runs beside it: a server for custom resources alone, which may be of a
newer Kubernetes than the kube-apiserver that it asks who may do what. It has no discovery root and no built-in
kinds: namespaces are those of the kube-apiserver.

Every process is told to die with its parent (PR_SET_PDEATHSIG), so that an aborted test run leaves
nothing behind. Run ``python -m manager.testing.controlplane`` for an interactive instance (Ctrl-C ends it).
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

import yaml
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from manager.config import RestConfig

_PR_SET_PDEATHSIG = 1
_START_TIMEOUT = 60.0  # seconds; 3 s is usual, a loaded two-core machine needs more
_STOP_TIMEOUT = 3.0  # an API server with open watches takes long to stop; nothing of it is kept
_LIBC = ctypes.CDLL(None, use_errno=True)

ADMIN_TOKEN = "admin-token"  # noqa: S105 - a throw-away instance on loopback


class AssetsMissing(RuntimeError):
    """The binaries of a control plane are not there; the message says how to supply them."""


def assets() -> Path | None:
    """The folder that ``KUBEBUILDER_ASSETS`` names, or None when it is unset.

    Raises:
        AssetsMissing: the variable is set and the folder lacks a binary that is needed.
    """
    value = os.environ.get("KUBEBUILDER_ASSETS")
    if not value:
        return None
    folder = Path(value)
    missing = [name for name in ("etcd", "kube-apiserver") if not os.access(folder / name, os.X_OK)]
    if missing:
        raise AssetsMissing(f"KUBEBUILDER_ASSETS={value} has no executable {', '.join(missing)}")
    return folder


def has_extensions(folder: Path) -> bool:
    """Whether the folder holds an apiextensions-apiserver."""
    return os.access(folder / "apiextensions-apiserver", os.X_OK)


def free_port() -> int:
    """A TCP port on loopback that is free now; the usual small race with other processes remains."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _die_with_parent() -> None:
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class ControlPlane:
    """One running control plane. Use :meth:`start`, as a context manager or with :meth:`stop`."""

    def __init__(
        self,
        binaries: Path,
        *,
        controllers: bool,
        kubelet_client_cert: tuple[Path, Path] | None,
        extensions: bool = False,
    ) -> None:
        self.bin = binaries
        self.folder = Path(tempfile.mkdtemp(prefix="control-plane-"))
        self.kubeconfig = self.folder / "kubeconfig"
        self.server = ""
        self.extensions_kubeconfig = self.folder / "kubeconfig-extensions"
        self.extensions_server = ""
        self._controllers = controllers
        self._extensions = extensions
        self._kubelet_client_cert = kubelet_client_cert
        self._processes: list[tuple[str, subprocess.Popen[bytes]]] = []

    @classmethod
    def start(
        cls,
        *,
        controllers: bool = True,
        kubelet_client_cert: tuple[Path, Path] | None = None,
        binaries: Path | None = None,
        extensions: bool = False,
    ) -> Self:
        """Start and wait until it serves.

        Args:
            controllers: run kube-controller-manager and kube-scheduler too.
            kubelet_client_cert: certificate and key files that the API server shows to kubelets.
            binaries: the folder of binaries; default is what ``KUBEBUILDER_ASSETS`` names.
            extensions: run an apiextensions-apiserver too; see :func:`has_extensions`.

        Raises:
            AssetsMissing: no binaries.
            RuntimeError: a process ended or did not become ready; the message ends with its log.
        """
        folder = binaries or assets()
        if folder is None:
            raise AssetsMissing("set KUBEBUILDER_ASSETS to a folder with etcd and kube-apiserver")
        plane = cls(
            folder, controllers=controllers, kubelet_client_cert=kubelet_client_cert, extensions=extensions
        )
        try:
            plane._start()
        except BaseException:
            plane.stop()
            raise
        return plane

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.stop()

    def rest_config(self) -> RestConfig:
        """How to reach it as the administrator."""
        return RestConfig(server=self.server, token=ADMIN_TOKEN, verify=False)

    def extensions_config(self) -> RestConfig:
        """How to reach the apiextensions-apiserver as the administrator."""
        return RestConfig(server=self.extensions_server, token=ADMIN_TOKEN, verify=False)

    def stop(self) -> None:
        """End every process (SIGTERM, then SIGKILL) and remove the folder. Safe to call twice."""
        for _, process in reversed(self._processes):
            if process.poll() is None:
                process.terminate()
        deadline = time.monotonic() + _STOP_TIMEOUT
        for _, process in reversed(self._processes):
            try:
                process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._processes.clear()
        shutil.rmtree(self.folder, ignore_errors=True)

    # ------------------------------------------------------------------ start, in order

    def _start(self) -> None:
        port = free_port()
        self.server = f"https://127.0.0.1:{port}"
        self._write_files()
        etcd = self._spawn_etcd("etcd")
        kubelet = self._kubelet_client_cert
        self._spawn(
            "kube-apiserver",
            f"--etcd-servers={etcd}",
            f"--secure-port={port}",
            "--bind-address=127.0.0.1",
            "--advertise-address=127.0.0.1",
            f"--cert-dir={self.folder / 'certs'}",
            f"--token-auth-file={self.folder / 'tokens'}",
            "--authorization-mode=RBAC",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={self.folder / 'sa.pub'}",
            f"--service-account-signing-key-file={self.folder / 'sa.key'}",
            "--service-cluster-ip-range=127.96.0.0/16",
            "--disable-admission-plugins=ServiceAccount",
            "--allow-privileged=true",
            *(
                [f"--kubelet-client-certificate={kubelet[0]}", f"--kubelet-client-key={kubelet[1]}"]
                if kubelet
                else []
            ),
        )
        self._wait("readyz", lambda: self._get(self.server + "/readyz") == b"ok")
        self._wait("namespace default", lambda: self._get(self.server + "/api/v1/namespaces/default") is not None)
        if self._controllers:
            self._spawn(
                "kube-controller-manager",
                f"--kubeconfig={self.kubeconfig}",
                f"--service-account-private-key-file={self.folder / 'sa.key'}",
                "--use-service-account-credentials=false",
                "--leader-elect=false",
                "--controllers=*,-ttl",
                f"--secure-port={free_port()}",
                "--port=0",
            )
            self._spawn(
                "kube-scheduler",
                f"--kubeconfig={self.kubeconfig}",
                "--leader-elect=false",
                f"--secure-port={free_port()}",
                "--port=0",
            )
        if self._extensions:
            self._start_extensions()

    def _start_extensions(self) -> None:
        port = free_port()
        self.extensions_server = f"https://127.0.0.1:{port}"
        self._write_kubeconfig(self.extensions_kubeconfig, self.extensions_server)
        etcd = self._spawn_etcd("etcd-extensions")
        self._spawn(
            "apiextensions-apiserver",
            f"--etcd-servers={etcd}",
            f"--secure-port={port}",
            "--bind-address=127.0.0.1",
            f"--cert-dir={self.folder / 'certs-extensions'}",
            f"--kubeconfig={self.kubeconfig}",
            f"--authentication-kubeconfig={self.kubeconfig}",
            f"--authorization-kubeconfig={self.kubeconfig}",
            "--authentication-tolerate-lookup-failure",
            "--authentication-skip-lookup",
            "--enable-priority-and-fairness=false",
            # They would watch kinds that an older kube-apiserver does not have.
            "--disable-admission-plugins=MutatingAdmissionPolicy,ValidatingAdmissionPolicy",
        )
        crds = f"{self.extensions_server}/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
        self._wait("custom resources", lambda: b"DefinitionList" in (self._get(crds) or b""))

    def _spawn_etcd(self, name: str) -> str:
        """Start an etcd with a folder of its own; its address."""
        client, peer = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
        self._spawn(
            "etcd",
            f"--data-dir={self.folder / name}",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
            "--unsafe-no-fsync",
            log_name=name,
        )
        return client

    def _write_files(self) -> None:
        (self.folder / "tokens").write_text(f'{ADMIN_TOKEN},admin,admin,"system:masters"\n')
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        (self.folder / "sa.key").write_bytes(
            key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
        )
        (self.folder / "sa.pub").write_bytes(
            key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        )
        self._write_kubeconfig(self.kubeconfig, self.server)

    def _write_kubeconfig(self, path: Path, server: str) -> None:
        path.write_text(
            yaml.safe_dump(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "current-context": "test",
                    "clusters": [
                        {"name": "test", "cluster": {"server": server, "insecure-skip-tls-verify": True}}
                    ],
                    "users": [{"name": "admin", "user": {"token": ADMIN_TOKEN}}],
                    "contexts": [{"name": "test", "context": {"cluster": "test", "user": "admin"}}],
                }
            )
        )
        path.chmod(0o600)

    def _spawn(self, name: str, *args: str, log_name: str = "") -> None:
        log_name = log_name or name
        with (self.folder / f"{log_name}.log").open("wb") as log:
            process = subprocess.Popen(
                [str(self.bin / name), *args],
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                preexec_fn=_die_with_parent,
            )
        self._processes.append((log_name, process))

    def _wait(self, what: str, ready: Callable[[], bool]) -> None:
        deadline = time.monotonic() + _START_TIMEOUT
        while not ready():
            for name, process in self._processes:
                if process.poll() is not None:
                    raise RuntimeError(f"{name} ended with {process.returncode}: {self._log(name)}")
            if time.monotonic() > deadline:
                raise RuntimeError(
                    f"{what} not there after {_START_TIMEOUT:.0f} s: {self._log(self._processes[-1][0])}"
                )
            time.sleep(0.05)

    def _log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(errors="replace")[-2000:]

    def _get(self, url: str) -> bytes | None:
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE  # a self-signed certificate made by this very process, on loopback
        request = urllib.request.Request(url, headers={"Authorization": f"Bearer {ADMIN_TOKEN}"})
        try:
            with urllib.request.urlopen(request, context=context, timeout=2) as reply:
                return bytes(reply.read())
        except (urllib.error.URLError, OSError):
            return None


def main() -> None:
    """Start one, print how to use it, and wait for Ctrl-C."""
    with ControlPlane.start(controllers="--no-controllers" not in sys.argv) as plane:
        sys.stdout.write(f"export KUBECONFIG={plane.kubeconfig}\nexport PATH={plane.bin}:$PATH\n")
        sys.stdout.flush()
        try:
            signal.pause()
        except KeyboardInterrupt:
            return


if __name__ == "__main__":
    main()
