"""A real operator process with its webhook, beside each API server, and kubectl to talk to both."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from api.crds import crds
from api.webhook import CONFIGURATION, url_client, workspace_webhook
from kaito.local.cluster import put
from manager.certs.injection import VALIDATING
from manager.client import Client
from manager.config import RestConfig
from manager.errors import ApiError
from manager.resources import CRDS
from manager.testing.controlplane import free_port

if TYPE_CHECKING:
    from conftest import Server

_SECONDS = 60.0


@dataclass(frozen=True)
class Guarded:
    """An API server whose Workspaces are judged by an operator's webhook."""

    server: Server
    namespace: str

    @property
    def config(self) -> RestConfig:
        return self.server.config

    def kubectl(self, *args: str, stdin: Any = None) -> subprocess.CompletedProcess[str]:
        """Run kubectl in the test's namespace; an object or a list of them goes to its standard input."""
        if self.server.kubectl is None:
            pytest.skip("no kubectl on PATH or in KUBEBUILDER_ASSETS")
        documents = stdin if isinstance(stdin, list) else [stdin]
        text = "\n---\n".join(map(json.dumps, documents)) if stdin is not None else None
        env = {**os.environ, "KUBECONFIG": str(self.server.kubeconfig)}
        argv = [self.server.kubectl, f"--namespace={self.namespace}", *args]
        return subprocess.run(argv, input=text, capture_output=True, text=True, env=env, check=False, timeout=60)

    def apply(self, *objects: Any, flags: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
        """`kubectl apply -f -`."""
        return self.kubectl("apply", "-f", "-", *flags, stdin=list(objects))


@pytest.fixture(scope="module")
def webhook(api_server: Server) -> Iterator[Server]:
    """The API server with the CRDs, the webhook's configuration, and `kaito manager` answering for it."""
    port, health = free_port(), free_port()
    asyncio.run(_install(api_server.config, port))
    argv = [
        *(sys.executable, "-P", "-m", "kaito", "manager", "--controllers=machine"),
        *(f"--kubeconfig={api_server.kubeconfig}", "--namespace=kube-system", f"--webhook-bind=127.0.0.1:{port}"),
        *("--metrics-bind=0", f"--health-bind=127.0.0.1:{health}"),
    ]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(argv, stdout=log, stderr=log)
        try:
            _until_ready(process, health, log)
            yield api_server
        finally:
            asyncio.run(_uninstall(api_server.config))
            process.terminate()
            process.wait(30)


@pytest.fixture
async def guarded(webhook: Server, namespace: str) -> AsyncIterator[Guarded]:
    """See the class; a namespace of one's own."""
    yield Guarded(webhook, namespace)


async def _install(config: RestConfig, port: int) -> None:
    async with Client(config) as client:
        for crd in crds():
            await put(client, CRDS, crd)
        await client.apply(VALIDATING, workspace_webhook(url_client("127.0.0.1", port)))
        async with asyncio.timeout(_SECONDS):
            while True:
                try:
                    await client.text("/apis/kaito.sh/v1beta1/workspaces")
                except ApiError:
                    await asyncio.sleep(0.02)
                else:
                    return


async def _uninstall(config: RestConfig) -> None:
    async with Client(config) as client:
        await client.delete(VALIDATING, CONFIGURATION)


def _until_ready(process: subprocess.Popen[bytes], port: int, log: Any) -> None:
    from urllib.error import URLError
    from urllib.request import urlopen

    deadline = time.monotonic() + _SECONDS
    while True:
        try:
            with urlopen(f"http://127.0.0.1:{port}/readyz", timeout=2):
                return
        except (URLError, OSError):
            if process.poll() is not None or time.monotonic() > deadline:
                log.seek(0)
                raise RuntimeError(f"the operator is not ready: {log.read().decode()[-2000:]}") from None
            time.sleep(0.05)


SAMPLES = sorted((Path(__file__).parents[2] / "config" / "samples").glob("*.yaml"))


@pytest.fixture(params=SAMPLES, ids=lambda path: path.stem)
def sample(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Each of the seed's manifests."""
    manifest: dict[str, Any] = yaml.safe_load(request.param.read_text())
    return manifest
