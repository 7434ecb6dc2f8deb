"""A node that exists on paper only: it runs nothing, and reports what the pods' annotations tell it to."""

from __future__ import annotations

import asyncio
import itertools
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest

from manager.client import Client
from manager.errors import ConnectionFailed, ManagerError, NotFound
from manager.resources import NODES, PODS

Obj = dict[str, Any]
_ADDRESSES = itertools.count(1)


@pytest.fixture(scope="session")
def api_server(request: pytest.FixtureRequest, _pool: Any) -> Any:
    """An API server without any controller, of these tests alone: the controllers under test look after all that
    is on it, and what other tests leave in namespaces that nobody ends would be theirs to schedule."""
    return _pool.get(request.param, controllers=False, of="workloads")


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass(frozen=True)
class PaperNode:
    """A registered node; pods with its selector land on it and nowhere else."""

    name: str
    selector: dict[str, str]


def reported(pod: Obj) -> Obj:
    """The status that this node gives a pod: Running and ready, unless an annotation says otherwise."""
    told = pod["metadata"].get("annotations") or {}
    phase = told.get("test/phase", "Running")
    ready = str(phase == "Running" and told.get("test/ready", "true") == "true").capitalize()
    number = next(_ADDRESSES)
    status: Obj = {
        "phase": phase,
        "podIP": f"10.77.{number // 250}.{number % 250 + 1}",
        "conditions": [{"type": kind, "status": ready, "lastTransitionTime": now()} for kind in ("Ready",)],
    }
    if phase != "Running":
        ended = {"exitCode": 0, "finishedAt": now(), "startedAt": now()}
        status["containerStatuses"] = [
            {
                "name": "c",
                "image": "i",
                "imageID": "",
                "ready": False,
                "restartCount": 0,
                "state": {"terminated": ended},
            }
        ]
    return status


async def _play(client: Client, name: str) -> None:
    """Report on every pod of the node once, and let go of those that are being deleted."""
    done: set[str] = set()
    while True:
        try:
            async for event in client.watch(PODS, field_selector=f"spec.nodeName={name}", timeout_seconds=300):
                pod = event.object
                meta = pod.get("metadata", {})
                if event.type not in ("ADDED", "MODIFIED"):
                    continue
                try:
                    if meta.get("deletionTimestamp"):
                        await client.delete(PODS, meta["name"], meta["namespace"], grace_seconds=0)
                    elif meta["uid"] not in done:
                        done.add(meta["uid"])
                        await client.patch(
                            PODS,
                            meta["name"],
                            {"status": reported(pod)},
                            namespace=meta["namespace"],
                            subresource="status",
                        )
                except NotFound:
                    continue
        except ConnectionFailed:
            await asyncio.sleep(0.1)


@asynccontextmanager
async def paper_node(client: Client, *, allocatable: Obj | None = None, taints: list[Obj] | None = None) -> Any:
    """Register a node, play it, and remove it in the end."""
    name = f"paper-{uuid.uuid4().hex[:8]}"
    amounts = {"cpu": "64", "memory": "64Gi", "pods": "110", **(allocatable or {})}
    await client.create(
        NODES, {"metadata": {"name": name, "labels": {"paper": name}}, "spec": {"taints": taints or []}}
    )
    ready = {"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "on paper"}
    ready |= {"lastHeartbeatTime": now(), "lastTransitionTime": now()}
    status = {"capacity": amounts, "allocatable": amounts, "conditions": [ready]}
    await client.patch(NODES, name, {"status": status}, subresource="status")
    player = asyncio.create_task(_play(client, name))
    try:
        yield PaperNode(name, {"paper": name})
    finally:
        player.cancel()
        await asyncio.gather(player, return_exceptions=True)
        await client.delete(NODES, name)


@pytest.fixture
async def client(cluster: Any) -> AsyncIterator[Client]:
    """A client of the cluster under test."""
    async with Client(cluster.config) as made:
        yield made


@pytest.fixture
async def node(client: Client) -> AsyncIterator[PaperNode]:
    """A node that is ready and on which pods run at once."""
    async with paper_node(client) as made:
        yield made


Until = Callable[..., Awaitable[Any]]


@pytest.fixture
def until() -> Until:
    """Waits until an awaitable function gives something true (or does not raise), and returns it."""

    async def wait(check: Callable[[], Awaitable[Any]], seconds: float = 30.0) -> Any:
        last: object = None
        try:
            async with asyncio.timeout(seconds):
                while True:
                    try:
                        last = await check()
                        if last:
                            return last
                    except ManagerError as error:
                        last = error
                    await asyncio.sleep(0.03)
        except TimeoutError:
            pytest.fail(f"did not come true within {seconds:.0f} s; last: {last!r}")

    return wait
