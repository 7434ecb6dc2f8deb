"""Every refusal of Azure, all the way: from ARM's reply through the SDK and the controllers into the Workspace.

What is asserted is literal: the Machine's condition and event, and the Workspace's condition, for each row of
``refusals.yaml`` and each place where Azure can refuse. A run samples the rows; KAITO_SOAK=1 has all of them.
"""

from __future__ import annotations

import asyncio
import os
import random
import re
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from api.crds import crds
from controllers import MachineSettings, WorkspaceSettings, add_machine_controller, add_workspace_controller
from controllers.resources import MACHINES, WORKSPACES
from kaito.local.cluster import put
from kaito.local.fakearm import Fault, Rules
from manager.client import Client
from manager.errors import ApiError, NotFound
from manager.manager import Manager
from manager.resources import CRDS, EVENTS
from manager.types import Resource

Make = Callable[..., Awaitable[Any]]
Json = dict[str, Any]

SKU = "Standard_NC24ads_A100_v4"
TABLE: dict[str, Json] = yaml.safe_load((Path(__file__).parent / "refusals.yaml").read_text())
SOAK = bool(os.environ.get("KAITO_SOAK"))
WAITING = ("OperationInProgress", "Throttled")  # neither yes nor no: the Machine waits, and nothing has failed
ABSENT = ("InstanceNotFound",)
EVENT = {"CapacityUnavailable": "InsufficientCapacityError"}  # the name that Karpenter's users know
pytestmark = pytest.mark.timeout(900 if SOAK else 90)


@pytest.fixture
async def client(cluster: Any) -> AsyncIterator[Client]:
    async with Client(cluster.config) as client:
        for crd in crds():
            await put(client, CRDS, crd)

        async def served() -> bool:
            try:
                await client.list(MACHINES, limit=1)
                await client.list(WORKSPACES, limit=1)
            except ApiError:
                return False
            return True

        await eventually(served)
        yield client


async def eventually(check: Callable[[], Awaitable[Any]], seconds: float = 30.0, what: str = "") -> Any:
    try:
        async with asyncio.timeout(seconds):
            while not (answer := await check()):
                await asyncio.sleep(0.02)
            return answer
    except TimeoutError:
        raise AssertionError(f"not so after {seconds:.0f} s: {what}") from None


@asynccontextmanager
async def operator(config: Any, provider: Any) -> AsyncIterator[None]:
    """Both controllers, with the Azure provider on the real SDK."""
    mgr, stop = Manager(config, metrics_bind="0", health_bind="0"), asyncio.Event()
    add_machine_controller(mgr, provider, MachineSettings())
    add_workspace_controller(mgr, WorkspaceSettings(registry="example.com/kaito"))
    async with asyncio.TaskGroup() as group:
        group.create_task(mgr.run(stop))
        try:
            yield
        finally:
            stop.set()


def fault(place: str, answer: str) -> Fault:
    verb: Any = {"put": "put", "operation": "create-operation", "get": "get"}[place]
    return Fault(verb=verb, sku=SKU, answer=answer, times=0)


def sampled(seed: int, place: str) -> list[str]:
    """The rows of this run: all of them, or two."""
    # A pool that is not there is no refusal where it is looked up: it is then made.
    rows = [name for name, row in TABLE.items() if place == "put" or row["reason"] not in ABSENT]
    return rows if SOAK else random.Random(f"{seed}/{place}").sample(rows, 2)


@pytest.mark.parametrize("place", ["put", "operation", "get"])
async def test_a_refusal_reaches_the_workspace_word_for_word(
    cluster: Any, client: Client, namespace: str, azure_with: Make, seed: int, place: str
) -> None:
    """For each row: condition and event of the Machine, condition of the Workspace. Takes real time."""
    for answer in sampled(seed, place):
        rules = Rules(create_seconds=0.05, delete_seconds=0.05, faults=[fault(place, answer)])
        azure = await azure_with(rules)
        provider = azure.provider()
        provider.poll_interval = 0.05
        async with operator(cluster.config, provider):
            await one_row(client, namespace, azure.arm.journal, answer, place)
            rules.faults.clear()  # so that everything can leave


async def one_row(client: Client, namespace: str, journal: Any, answer: str, place: str) -> None:
    row, name = (
        TABLE[answer] | (TABLE[answer].get("put", {}) if place == "put" else {}),
        f"w-{uuid.uuid4().hex[:8]}",
    )
    labels = {"apps": name}
    await client.create(
        WORKSPACES,
        {
            "metadata": {"name": name, "namespace": namespace},
            "resource": {"instanceType": SKU, "labelSelector": {"matchLabels": labels}},
            "inference": {"preset": {"name": "phi-3-mini-4k-instruct"}},
        },
    )
    waits = row["reason"] in WAITING
    if waits and place != "put":
        await goes_on(client, namespace, name, journal, answer, place)
        await leave(client, name, namespace, await machine_of(client, name))
        return
    launched = await condition(client, MACHINES, name, "", "MachineLaunched", row["reason"], place, answer)
    assert launched["status"] == ("Unknown" if waits else "False"), (answer, place)
    assert without_time(launched["message"]) == expected(row, waits), (answer, place)

    machine = await machine_of(client, name)
    ready = await condition(client, WORKSPACES, name, namespace, "ResourceReady", row["reason"], place, answer)
    told = f"Machine {machine}: " if waits else f"Machine {machine} ({SKU}) was refused by the cloud: "
    assert ready["status"] == "False", (answer, place)
    assert without_time(ready["message"]).rstrip(".") == f"{told}{expected(row, waits)}".rstrip("."), (
        answer,
        place,
    )
    if not waits:
        reason = EVENT.get(row["reason"], row["reason"])
        note = await event(client, machine, reason, place, answer)
        assert without_time(note) == expected(row, waits), (answer, place)
    await leave(client, name, namespace, machine)


async def goes_on(client: Client, namespace: str, name: str, journal: Any, answer: str, place: str) -> None:
    """A look that has to wait, or a creation that another one cancelled, is no failure: nothing is told of it."""
    verb = {"get": "get", "operation": "delete"}[place]  # what failed is cleared away

    async def met() -> bool:
        return any(item.status not in (0, 404) for item in journal.of(verb))

    await eventually(met, what=f"{(answer, place)} the fault is met")
    launched = await condition(client, MACHINES, name, "", "MachineLaunched", "InstanceCreating", place, answer)
    ready = await condition(client, WORKSPACES, name, namespace, "ResourceReady", "MachineCreating", place, answer)
    assert (launched["status"], ready["status"]) == ("Unknown", "False"), (answer, place)
    machine = await machine_of(client, name)
    told = (await client.list(EVENTS, field_selector=f"involvedObject.name={machine}")).items
    assert [item["reason"] for item in told if item["type"] == "Warning"] == [], (answer, place)


def expected(row: Json, waits: bool) -> str:
    """What a condition says; where it only waits there is nothing to do, and it says for what."""
    return f"waiting for the cloud: {row['message']}" if waits else f"{row['message']}. {row['next']}"


def without_time(text: str) -> str:
    """The time of the next attempt is the clock's; a terminal refusal has none."""
    return re.sub(r" Next attempt at \d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ\.?$", "", text)


async def machine_of(client: Client, workspace: str) -> str:
    listed = (await client.list(MACHINES, label_selector=f"kaito.sh/workspace={workspace}")).items
    return str(listed[0]["metadata"]["name"])


async def condition(
    client: Client, resource: Resource, name: str, namespace: str, kind: str, reason: str, *where: str
) -> Json:
    """Wait for a condition of the Workspace, or of its Machine, that has a reason."""
    seen: list[Json] = []

    async def check() -> Json | None:
        if resource is MACHINES:
            objects = (await client.list(MACHINES, label_selector=f"kaito.sh/workspace={name}")).items
        else:
            objects = [await client.get(resource, name, namespace)]
        seen[:] = [item for obj in objects for item in (obj.get("status") or {}).get("conditions") or []]
        for item in seen:
            if item["type"] == kind and reason == item.get("reason"):
                return dict(item)
        return None

    return dict(await eventually(check, what=f"{where} {kind} {reason}"))


async def event(client: Client, machine: str, reason: str, *where: str) -> str:
    async def check() -> str | None:
        for item in (await client.list(EVENTS, field_selector=f"involvedObject.name={machine}")).items:
            if item["reason"] == reason:
                assert item["type"] == "Warning"
                return str(item["message"])
        return None

    return str(await eventually(check, what=f"{where} event {reason}"))


async def leave(client: Client, name: str, namespace: str, machine: str) -> None:
    """Out of the way of the next row, whatever the cloud still says."""
    unfinalized = {"metadata": {"finalizers": None}}
    for resource, one, where in ((WORKSPACES, name, namespace), (MACHINES, machine, None)):
        for act in (
            client.patch(resource, one, unfinalized, namespace=where),
            client.delete(resource, one, where),
        ):
            try:
                await act
            except (NotFound, ApiError):
                pass  # the operator was quicker
