"""Two hundred Machines at once: controller, API server, SDK and ARM in one loop of virtual time.

The API server is the embedded one, inside the test's own loop, so that hours of waiting cost nothing; what is left
is the work itself, some thousand exchanges over TLS. A dozen by default, two hundred with KAITO_SOAK=1.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from api.conditions import READY, conditions_of, is_true
from api.crds import machine_crd, nodeclaim_crd
from controllers import MachineSettings, add_machine_controller
from controllers.resources import MACHINES, NODECLAIMS
from kaito.local.apiserver.server import ApiServer
from kaito.local.cluster import put
from kaito.local.fakearm import Rules, Throttle
from manager.client import Client
from manager.config import RestConfig
from manager.errors import ApiError, NotFound
from manager.manager import Manager
from manager.resources import CRDS, NODES

pytestmark = [pytest.mark.looptime, pytest.mark.timeout(900)]
Json = dict[str, Any]
MANY = 200 if os.environ.get("KAITO_SOAK") else 12


class CountingClient(Client):
    """Counts writes, by what they are for."""

    def __init__(self, config: RestConfig) -> None:
        super().__init__(config)
        self.writes: Counter[str] = Counter()

    async def send(self, method: str, target: str, body: Any, headers: bytes) -> Json:
        if method != "GET":
            path = target.partition("?")[0]
            kind = "events" if "/events" in path else "nodes" if "/nodes/" in path else "claims"
            self.writes["status" if path.endswith("/status") and kind == "claims" else kind] += 1
        return await super().send(method, target, body, headers)


async def join(client: Client, event: str, node: Json) -> None:
    """What the kubelet of a new node does."""
    name = node["metadata"]["name"]
    if event == "deleted":
        try:
            await client.delete(NODES, name)
        except NotFound:
            pass
        return
    await client.create(NODES, node)
    amounts = {"cpu": "6", "nvidia.com/gpu": "1"}
    ready = {"type": "Ready", "status": "True", "reason": "Played", "message": "played"}
    status = {"conditions": [ready], "capacity": amounts, "allocatable": amounts}
    await client.patch(NODES, name, {"status": status}, subresource="status")


@pytest.mark.acceptance("PV-crowd")
async def test_two_hundred_machines_at_once_all_become_ready(
    tmp_path: Path, azure_with: Callable[..., Awaitable[Any]]
) -> None:
    """One operation at a time, and reads and writes that are throttled: all become Ready in the order of the
    queue, with hardly a call more than the operations themselves need."""
    throttle = {
        "reads": Throttle(burst=40, per_second=1, retry_after=15),
        "writes": Throttle(burst=10, per_second=0.5, retry_after=15),
    }
    rules = Rules(create_seconds=60, retry_after=30, max_operations=1, **throttle)
    loop = asyncio.get_running_loop()
    began, zero = datetime.now(UTC), loop.time()

    def clock() -> datetime:
        return began + timedelta(seconds=loop.time() - zero)

    async with ApiServer(tmp_path / "data", bookmark_seconds=30) as server, Client(server.rest_config()) as client:
        for crd in (machine_crd(), nodeclaim_crd()):
            await put(client, CRDS, crd)
        while not await _served(client):
            await asyncio.sleep(0.05)
        azure = await azure_with(rules, on_node=lambda event, node: join(client, event, node))
        mgr, stop = Manager(server.rest_config(), metrics_bind="0", health_bind="0"), asyncio.Event()
        counting = CountingClient(server.rest_config())
        live, mgr.live = mgr.live, counting
        add_machine_controller(mgr, azure.provider(), MachineSettings(clock=clock))
        async with asyncio.TaskGroup() as group:
            group.create_task(mgr.run(stop))
            for number in range(MANY):
                await client.create(MACHINES, _machine(f"ws{number:09x}"))
            ready = await _all_ready(client, loop)
            stop.set()
        await live.close()

    took = max(ready.values()) - zero
    counts = azure.arm.journal.counts()
    calls = sum(counts.values()) - counts["list 200"] - counts["list 429"]
    print(
        f"\n{MANY} Machines: {took:.0f} s, {calls} calls ({calls / MANY:.2f} each) and "
        f"{counts['list 200']} lists of the sweep: {dict(counts)}; writes {dict(counting.writes)}"
    )
    assert len(ready) == len(azure.arm.pools.pools) == MANY
    assert azure.arm.pools.most == 1
    assert counts["put 201"] == MANY
    # A PUT, two or three polls (each 30 s), the SDK's final look; for the first in the queue a look before it.
    assert calls <= MANY * 6.5 + 20
    assert took <= MANY * 60 * 1.2 + 60
    # Nobody starves and no time is lost: the first minutes go into finding out how much AKS and ARM take.
    order = sorted(ready.values())
    late = [done - zero - (turn + 1) * 60 * 1.1 for turn, done in enumerate(order)]
    print(f"latest against its turn: {max(late):.0f} s")
    assert max(late) <= 600
    # A status is written when its words change, not at each look.
    assert counting.writes["status"] <= MANY * 60


def _machine(name: str) -> Json:
    requirement = {"key": "node.kubernetes.io/instance-type", "operator": "In", "values": ["Standard_NC6s_v3"]}
    labels = {"kaito.sh/workspace": "w", "karpenter.sh/provisioner-name": "default"}
    return {"metadata": {"name": name, "labels": labels}, "spec": {"requirements": [requirement]}}


async def _served(client: Client) -> bool:
    try:
        for resource in (MACHINES, NODECLAIMS):
            await client.list(resource, limit=1)
    except ApiError:
        return False
    return True


async def _all_ready(client: Client, loop: asyncio.AbstractEventLoop) -> dict[str, float]:
    """When each became Ready, by the loop's clock, to half a minute."""
    ready: dict[str, float] = {}
    while len(ready) < MANY:
        await asyncio.sleep(30)
        for item in (await client.list(MACHINES)).items:
            if is_true(conditions_of(item), READY):
                ready.setdefault(item["metadata"]["name"], loop.time())
    return ready
