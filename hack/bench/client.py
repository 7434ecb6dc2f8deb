"""What one request of the client costs in CPU, beside aiohttp's own session doing the same.

A status patch of a Workspace-like object (0.8 KB up, 1.4 KB down), as controllers make one per reconciled object:
encode, send, read, decode. The server is another process that answers from a constant, so that the figure is the
client's alone. Rounds of the contenders alternate; printed are the medians in microseconds of CPU per request, one
after the other and with ten at a time, and their ratio to aiohttp's. With TLS too. At the end the time from a
process's start to the first answer.

Usage: python -m hack.bench.client [ROUNDS [REQUESTS]]
"""

from __future__ import annotations

import asyncio
import json
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import orjson
from prometheus_client import CollectorRegistry

from kaito.local.pki import Authority
from manager.client import Client
from manager.config import RestConfig
from manager.rest_metrics import RestMetrics
from manager.types import Resource

WORKSPACES = Resource("kaito.sh", "v1alpha1", "workspaces", "Workspace")
_TYPES = ("ResourceReady", "InferenceReady", "WorkspaceReady", "WorkspaceSucceeded")
_CONDITIONS = [
    {
        "type": type,
        "status": "True",
        "reason": "Ready",
        "message": "m" * 80,
        "lastTransitionTime": "2026-01-01T00:00:00Z",
        "observedGeneration": 3,
    }
    for type in _TYPES
]
PATCH = {"status": {"conditions": _CONDITIONS}}
ANSWER = {
    "apiVersion": WORKSPACES.api_version,
    "kind": "Workspace",
    "metadata": {
        "name": "w",
        "namespace": "default",
        "uid": "u" * 36,
        "resourceVersion": "12345",
        "generation": 3,
    },
    "resource": {"instanceType": "Standard_NC6s_v3", "labelSelector": {"matchLabels": {"apps": "falcon"}}},
    "inference": {"preset": {"name": "falcon-7b"}},
    "status": {"conditions": _CONDITIONS, "workerNodes": ["n1", "n2"]},
}
_PARALLEL = 10

One = Callable[[int], Awaitable[Any]]


class _Constant(asyncio.Protocol):
    """Answers each complete request with the same bytes."""

    def __init__(self, answer: bytes) -> None:
        self._answer = answer
        self._pending = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport

    def data_received(self, data: bytes) -> None:
        self._pending += data
        while (end := self._pending.find(b"\r\n\r\n")) >= 0:
            head = self._pending[:end].lower()
            start = head.find(b"content-length:")
            length = int(head[start + 15 :].split(b"\r\n", 1)[0]) if start >= 0 else 0
            if len(self._pending) < end + 4 + length:
                return
            self._pending = self._pending[end + 4 + length :]
            self._transport.write(self._answer)


async def serve(folder: Path) -> None:
    """The server's process: prints a plain and a TLS port."""
    body = json.dumps(ANSWER).encode()
    head = (
        "HTTP/1.1 200 OK\r\nAudit-Id: 2f1d7f6e-0000-0000-0000-000000000000\r\nCache-Control: no-cache, private\r\n"
        "Content-Type: application/json\r\nX-Kubernetes-Pf-Flowschema-Uid: a\r\n"
        f"Date: Thu, 01 Jan 2026 00:00:00 GMT\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    pair = Authority(folder).server("server", ["127.0.0.1"])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate, pair.key)
    loop = asyncio.get_running_loop()
    ports = []
    for tls in (None, context):
        server = await loop.create_server(lambda: _Constant(head.encode() + body), "127.0.0.1", 0, ssl=tls)
        ports.append(server.sockets[0].getsockname()[1])
    print(*ports, flush=True)
    await asyncio.Event().wait()


async def measured(one: One, requests: int) -> tuple[float, float]:
    """Microseconds of CPU per request: one after the other, and ten at a time."""
    for number in range(200):
        await one(number)
    began = time.process_time()
    for number in range(requests):
        await one(number)
    alone = time.process_time() - began

    async def worker(first: int) -> None:
        for number in range(first, requests, _PARALLEL):
            await one(number)

    began = time.process_time()
    await asyncio.gather(*(worker(first) for first in range(_PARALLEL)))
    together = time.process_time() - began
    return alone / requests * 1e6, together / requests * 1e6


async def bare(config: RestConfig, requests: int) -> tuple[float, float]:
    """asyncio, aiohttp and orjson, and nothing else."""
    context = ssl.create_default_context(cadata=config.ca_data.decode()) if config.ca_data else None
    headers = {"Content-Type": "application/merge-patch+json", "Authorization": f"Bearer {config.token}"}
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context or True)) as session:

        async def one(number: int) -> Any:
            path = f"{WORKSPACES.path('default', f'w{number}', 'status')}?fieldManager=kaito"
            data = orjson.dumps(PATCH)
            async with session.patch(config.server + path, data=data, headers=headers) as response:
                return orjson.loads(await response.read())

        return await measured(one, requests)


async def ours(config: RestConfig, requests: int, **options: Any) -> tuple[float, float]:
    """The client, with whatever the options add."""
    async with Client(config, **options) as client:

        async def one(number: int) -> Any:
            return await client.patch(WORKSPACES, f"w{number}", PATCH, namespace="default", subresource="status")

        return await measured(one, requests)


async def observed(config: RestConfig, requests: int) -> tuple[float, float]:
    """As a manager has it: requests are counted."""
    return await ours(config, requests, observer=RestMetrics(CollectorRegistry()))


CONTENDERS = {"aiohttp's session": bare, "ours": ours, "ours, counted": observed}


def ready_seconds(config: RestConfig) -> float:
    """From the start of a process to its first answer, through a kubeconfig."""
    assert config.ca_data is not None
    content = {
        "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": config.server, "insecure-skip-tls-verify": True}}],
        "users": [{"name": "c", "user": {"token": config.token}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "c"}}],
    }
    code = (
        "import asyncio, sys\nfrom manager.client import Client\nfrom manager.kubeconfig import load_config\n"
        "async def main():\n    async with Client(await load_config(sys.argv[1])) as client:\n"
        "        await client.request('GET', '/')\nasyncio.run(main())\n"
    )
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        file.write(json.dumps(content))  # JSON is YAML
        file.flush()
        began = time.perf_counter()
        subprocess.run([sys.executable, "-P", "-c", code, file.name], check=True)
        return time.perf_counter() - began


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    requests = int(sys.argv[2]) if len(sys.argv) > 2 else 2000
    with tempfile.TemporaryDirectory() as folder:
        authority = Authority(Path(folder))
        argv = [sys.executable, "-m", "hack.bench.client", "--serve", folder]
        with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as server:
            try:
                assert server.stdout is not None
                plain, tls = server.stdout.readline().split()
                configs = {
                    "http": RestConfig(server=f"http://127.0.0.1:{plain}", token="t"),
                    "https": RestConfig(server=f"https://127.0.0.1:{tls}", token="t", ca_data=authority.ca_pem),
                }
                for scheme, config in configs.items():
                    print(f"{scheme}: microseconds of CPU per request, alone | {_PARALLEL} at a time")
                    found: dict[str, list[tuple[float, float]]] = {name: [] for name in CONTENDERS}
                    for _ in range(rounds):
                        for name, contender in CONTENDERS.items():
                            found[name].append(asyncio.run(contender(config, requests)))
                    base = [statistics.median(column) for column in zip(*found["aiohttp's session"], strict=True)]
                    for name, results in found.items():
                        medians = [statistics.median(column) for column in zip(*results, strict=True)]
                        shown = (f"{m:7.1f} ({m / b:4.2f}x)" for m, b in zip(medians, base, strict=True))
                        print(f"  {name:18} {' | '.join(shown)}")
                times = [ready_seconds(configs["https"]) for _ in range(rounds)]
                print(f"from a process's start to its first answer: {statistics.median(times):.2f} s")
            finally:
                server.terminate()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        asyncio.run(serve(Path(sys.argv[2])))
    else:
        main()
