"""A cluster of many Workspaces whose pods are stubs: what the tests and the load figures of many have in common.

In: a folder and counts. Out: a cluster's three processes (API server with the built-in controllers, node agent,
operator) as `kaito up` runs them, with an image table that maps every preset's image to ``stub.py``; Workspaces;
and a log of when each was seen Ready, from a watch. The processes are those of production; only the program in the
pod is another. Nothing is left running after the block.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import aiohttp
import yaml

from api.conditions import WORKSPACE_READY, conditions_of, is_true
from controllers.resources import WORKSPACES
from kaito.local.cluster import Cluster, Options, choose_ports
from kaito.local.home import HOST
from kaito.local.supervisor import Child
from kaito.local.testing import stub
from manager.cache import Cache
from manager.client import Client
from manager.informer import Deleted, Event, Updated
from manager.types import Obj

PRESET = "phi-3-mini-4k-instruct"
COMES, STAYS_AWAY = "Standard_NC6s_v3", "Standard_NC12s_v3"
_APPLIED_AT_ONCE = 16


class StubCluster(Cluster):
    """A cluster whose pods run the stub instead of a model server."""

    def node(self) -> Child:
        """The node agent, with the table of images that knows the stub."""
        table = self.home / "images.yaml"
        table.write_text(yaml.safe_dump(image_table()))
        child = super().node()
        return replace(child, argv=[*child.argv, f"--images={table}"])


def image_table() -> Obj:
    """Every preset's image, run as the stub."""
    command = ["{python}", "-I", "-S", str(Path(stub.__file__).resolve())]
    return {"images": [{"match": ["*/kaito-{preset}:*", "*/kaito-base:*"], "commands": {"kaito": command}}]}


def workspace(name: str, *, instance_type: str = COMES) -> Obj:
    """A Workspace like the seed's first, with nodes of its own."""
    return {
        "apiVersion": WORKSPACES.api_version,
        "kind": "Workspace",
        "metadata": {"name": name, "namespace": "default"},
        "resource": {"instanceType": instance_type, "labelSelector": {"matchLabels": {"apps": name}}},
        "inference": {"preset": {"name": PRESET}},
    }


@dataclass(slots=True)
class Seen:
    """When Workspaces were applied and first seen Ready: seconds of the monotonic clock."""

    applied: dict[str, float] = field(default_factory=dict)
    ready: dict[str, float] = field(default_factory=dict)
    now_ready: set[str] = field(default_factory=set)
    newest: dict[str, Obj] = field(default_factory=dict)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    def note(self, event: Event) -> None:
        """The handler of an informer of Workspaces."""
        obj = event.new if isinstance(event, Updated) else event.obj
        name = str(obj["metadata"]["name"])
        self.now_ready.discard(name)
        self.newest[name] = obj
        if not isinstance(event, Deleted) and is_true(conditions_of(obj), WORKSPACE_READY):
            self.ready.setdefault(name, time.monotonic())
            self.now_ready.add(name)
        self._changed.set()

    async def changed(self) -> None:
        """Wait for the next news of any Workspace."""
        self._changed.clear()
        await self._changed.wait()

    async def until(self, names: Iterable[str], seconds: float) -> bool:
        """Whether all of these are Ready at one moment within so many seconds."""
        wanted = set(names)
        try:
            async with asyncio.timeout(seconds):
                while not wanted <= self.now_ready:
                    await self.changed()
        except TimeoutError:
            return False
        return True

    def latencies(self, names: Iterable[str]) -> list[float]:
        """Seconds from apply to Ready of those that got there, sorted."""
        return sorted(self.ready[name] - self.applied[name] for name in names if name in self.ready)


@asynccontextmanager
async def running(home: Path, *, node_delay: float = 1.0) -> AsyncIterator[StubCluster]:
    """The three processes for the length of the block.

    Raises:
        ChildFailed: one of them did not start.
        CliError: the API server does not serve our kinds.
    """
    options = Options.of(home, node_delay=node_delay)
    home.mkdir(parents=True, exist_ok=True)
    cluster = StubCluster(options, choose_ports(options))
    cluster.write_node_token()
    try:
        await cluster.supervisor.start(cluster.apiserver())
        await cluster.install()
        await cluster.supervisor.start(cluster.node())
        await cluster.supervisor.start(cluster.operator())
        yield cluster
    finally:
        await cluster.supervisor.stop()


@asynccontextmanager
async def watching(client: Client) -> AsyncIterator[Seen]:
    """A log of the Workspaces' readiness, kept for the length of the block."""
    seen, cache = Seen(), Cache(client)
    cache.informer(WORKSPACES).add_handler(seen.note)
    task = asyncio.create_task(cache.run(), name="watch-workspaces")
    try:
        await cache.informer(WORKSPACES).wait_synced()
        yield seen
    finally:
        task.cancel()
        await asyncio.wait({task})


async def apply(client: Client, seen: Seen, objects: Iterable[Obj]) -> None:
    """Create the Workspaces, in their order, as fast as the API server takes them."""
    waiting = iter(objects)

    async def some() -> None:
        for obj in waiting:
            seen.applied[str(obj["metadata"]["name"])] = time.monotonic()
            await client.create(WORKSPACES, obj)

    async with asyncio.TaskGroup() as group:
        for _ in range(_APPLIED_AT_ONCE):
            group.create_task(some())


async def keep_away(cluster: Cluster, instance_type: str = STAYS_AWAY) -> None:
    """From now on nodes of this type never come: their instances run, and nothing joins."""
    url = f"http://{HOST}:{cluster.ports.instances}/faults"
    headers = {"Authorization": f"Bearer {cluster.node_token.read_text().strip()}"}
    fault = {"operation": "join", "code": "NodeLost", "instanceType": instance_type, "times": -1}
    async with aiohttp.ClientSession(headers=headers) as session, session.put(url, json=fault) as reply:
        reply.raise_for_status()
