"""The workload that every contender gets: objects of about 2 KB whose status must follow their spec.

In: an API server. Out: ``Bench`` objects in one namespace. An object is reconciled when ``status.observed`` equals
``spec.value``; an operator brings that about with one status patch. The server, not this program, is what the
operators share, so everything here is written to use little of the machine while they work.
"""

from __future__ import annotations

import asyncio
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

from manager.client import Client
from manager.config import RestConfig
from manager.errors import ManagerError, NotFound
from manager.kubeconfig import load_config
from manager.resources import CRDS, NAMESPACES
from manager.testing.controlplane import ControlPlane
from manager.types import Obj, Resource

GROUP = "bench.kaito.sh"
BENCHES = Resource(GROUP, "v1", "benches", "Bench")
SPACE = "bench"

_SCHEMA = {
    "type": "object",
    "properties": {
        "spec": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
        "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
    },
}
CRD: Obj = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": f"benches.{GROUP}"},
    "spec": {
        "group": GROUP,
        "scope": "Namespaced",
        "names": {"plural": "benches", "singular": "bench", "kind": "Bench", "listKind": "BenchList"},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "subresources": {"status": {}},
                "schema": {"openAPIV3Schema": _SCHEMA},
            }
        ],
    },
}


def bench(number: int, value: int = 1) -> Obj:
    """One object of about 2 KB, shaped like a Workspace: labels, annotations, nested lists, some prose."""
    containers = [
        {
            "name": f"container-{index}",
            "image": f"registry.example.com/team/image-{index}:v1.2.3",
            "args": [f"--flag-{flag}=value-{number}-{flag}" for flag in range(6)],
            "resources": {"limits": {"cpu": "2", "memory": "4Gi"}, "requests": {"cpu": "1", "memory": "2Gi"}},
        }
        for index in range(3)
    ]
    return {
        "apiVersion": BENCHES.api_version,
        "kind": "Bench",
        "metadata": {
            "name": f"bench-{number:06d}",
            "namespace": SPACE,
            "labels": {"app": "bench", "shard": str(number % 10), "number": str(number)},
            "annotations": {"example.com/owner": f"team-{number % 50}", "example.com/note": "x" * 200},
        },
        "spec": {"value": value, "template": {"containers": containers}, "description": f"object {number} " * 20},
    }


@asynccontextmanager
async def serving(kind: str) -> AsyncIterator[tuple[str, Path]]:
    """A server and its kubeconfig: ``embedded``, ``real`` (the binaries that KUBEBUILDER_ASSETS names), or the
    path of a kubeconfig. The first two start empty and end with the block."""
    if kind == "real":
        with ControlPlane.start(controllers=False) as plane:
            yield "kube-apiserver", plane.kubeconfig
    elif kind == "embedded":
        folder = Path(tempfile.mkdtemp(prefix="bench-"))
        kubeconfig = folder / "kubeconfig"
        argv = [sys.executable, "-m", "kaito", "apiserver", f"--data-dir={folder / 'data'}", "--port=0"]
        argv += ["--no-controllers", f"--kubeconfig-out={kubeconfig}"]
        with (folder / "log").open("wb") as log:
            process = await asyncio.create_subprocess_exec(*argv, stdout=log, stderr=log)
        try:
            await _answering(kubeconfig)
            yield "embedded", kubeconfig
        finally:
            process.terminate()
            await process.wait()
            shutil.rmtree(folder)
    else:
        yield "given", Path(kind)


async def _answering(kubeconfig: Path) -> None:
    async with asyncio.timeout(60):
        while True:
            try:
                async with Client(await load_config(kubeconfig)) as client:
                    await client.text("/readyz")
                    return
            except ManagerError:
                await asyncio.sleep(0.1)


async def prepare(config: RestConfig, count: int) -> None:
    """The CRD, the namespace, and exactly ``count`` objects that nobody has reconciled yet."""
    async with Client(config) as client:
        await _cleared(client)
        try:
            await client.get(CRDS, CRD["metadata"]["name"])
        except NotFound:
            await client.create(CRDS, CRD)
        try:
            await client.get(NAMESPACES, SPACE)
        except NotFound:
            await client.create(NAMESPACES, {"metadata": {"name": SPACE}})
        async with asyncio.timeout(30):
            while True:
                try:
                    await client.list_page(BENCHES, SPACE, query={"limit": 1})
                    break
                except NotFound:
                    await asyncio.sleep(0.1)
        numbers = iter(range(count))

        async def create() -> None:
            for number in numbers:
                await client.create(BENCHES, bench(number))

        await asyncio.gather(*(create() for _ in range(16)))


async def _cleared(client: Client) -> None:
    """Whatever an earlier round left is gone, the finalizers of its operators included."""
    try:
        left = await client.list(BENCHES, SPACE)
    except NotFound:
        return
    items = iter(left.items)

    async def delete() -> None:
        for item in items:
            name = item["metadata"]["name"]
            if item["metadata"].get("finalizers"):
                await client.patch(BENCHES, name, {"metadata": {"finalizers": None}}, namespace=SPACE)
            await client.delete(BENCHES, name, SPACE)

    await asyncio.gather(*(delete() for _ in range(16)))


def reconciled(obj: Obj) -> bool:
    """Whether the status has caught up with the spec."""
    return bool((obj.get("status") or {}).get("observed") == obj["spec"]["value"])


class Observer:
    """Watches the objects from outside the operator and knows when which one was seen reconciled."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._at: dict[str, tuple[Any, float]] = {}
        self._pending: dict[str, Any] = {}
        self._changed = asyncio.Event()
        self._done: set[str] = set()

    async def run(self) -> None:
        """Until cancelled; a watch that the server ends is resumed."""
        listed = await self._client.list(BENCHES, SPACE)
        for obj in listed.items:
            self._saw(obj)
        version = listed.resource_version
        while True:
            batches = self._client.watch_batches(BENCHES, SPACE, resource_version=version, timeout_seconds=600)
            async with aclosing(batches):
                async for events in batches:
                    for event in events:
                        version = event.object["metadata"].get("resourceVersion", version)
                        if event.type != "BOOKMARK":
                            self._saw(event.object)

    def _saw(self, obj: Obj) -> None:
        name = obj["metadata"]["name"]
        if reconciled(obj):
            self._done.add(name)
            self._at[name] = (obj["spec"]["value"], time.perf_counter())
            self._changed.set()
        else:
            self._done.discard(name)

    async def all_done(self, count: int, seconds: float) -> None:
        """Until that many objects are reconciled."""
        async with asyncio.timeout(seconds):
            while len(self._done) < count:
                self._changed.clear()
                await self._changed.wait()

    async def seen(self, name: str, value: Any) -> float:
        """When (``time.perf_counter``) this value of this object was seen reconciled."""
        while (found := self._at.get(name)) is None or found[0] != value:
            self._changed.clear()
            await self._changed.wait()
        return found[1]
