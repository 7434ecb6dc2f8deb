"""The local cloud: exactly-once creates, delays, faults, deletion, survival."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer

from kaito.local.node.cloud import Cloud, CloudFailure, Fault
from kaito.local.node.cloud_api import cloud_app

BODY = {"instanceType": "Standard_NC6s_v3", "labels": {"a": "b"}, "taints": [], "capacity": {"nvidia.com/gpu": 1}}


class Nodes:
    """Stands for the agent: what joined and left, and whether it works at the moment."""

    def __init__(self) -> None:
        self.joined: list[tuple[float, str]] = []
        self.left: list[str] = []
        self.broken = 0

    async def join(self, instance: dict[str, Any]) -> None:
        if self.broken:
            self.broken -= 1
            raise RuntimeError("planned")
        self.joined.append((asyncio.get_running_loop().time(), instance["name"]))

    async def leave(self, instance: dict[str, Any]) -> None:
        self.left.append(instance["name"])


def cloud_at(path: Path, delay: float = 2.0) -> Cloud:
    loop = asyncio.get_running_loop()
    return Cloud(path / "instances.json", delay, loop.time)


@pytest.fixture
async def running() -> AsyncIterator[Any]:
    """Runs clouds until the end of the test."""
    tasks: list[asyncio.Task[None]] = []

    def run(cloud: Cloud, nodes: Nodes) -> None:
        tasks.append(asyncio.create_task(cloud.run(nodes.join, nodes.leave)))

    yield run
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.looptime
async def test_an_instance_becomes_a_node_after_the_delay(tmp_path: Path, running: Any) -> None:
    """Creating lasts the configured delay, then the node joins and the instance is Running; delete undoes both."""
    cloud, nodes = cloud_at(tmp_path), Nodes()
    running(cloud, nodes)

    assert cloud.create("i", BODY)["state"] == "Creating"
    await asyncio.sleep(2.1)
    assert cloud.get("i")["state"] == "Running"
    assert nodes.joined == [(2.0, "i")]
    cloud.delete("i")
    await asyncio.sleep(0.1)

    assert nodes.left == ["i"]
    assert cloud.list() == []


@pytest.mark.looptime
async def test_a_join_that_fails_is_tried_again(tmp_path: Path, running: Any) -> None:
    """An API server that is away delays the node, it does not lose it."""
    cloud, nodes = cloud_at(tmp_path), Nodes()
    nodes.broken = 2
    running(cloud, nodes)
    cloud.create("i", BODY)

    await asyncio.sleep(10)

    assert [name for _time, name in nodes.joined] == ["i"]


@pytest.mark.looptime
async def test_instances_survive_a_restart(tmp_path: Path, running: Any) -> None:
    """A new agent goes on where the old one was: the rest of the delay, the join, an unfinished deletion."""
    before = cloud_at(tmp_path)
    before.create("early", BODY)
    before.create("doomed", BODY)
    before.delete("doomed")
    await asyncio.sleep(1.5)

    cloud, nodes = cloud_at(tmp_path), Nodes()
    running(cloud, nodes)
    await asyncio.sleep(0.6)

    assert nodes.joined == [(2.0, "early")]
    assert nodes.left == ["doomed"]


@pytest.mark.looptime
async def test_faults_hit_the_next_operations(tmp_path: Path, running: Any) -> None:
    """A fault fails as many operations as it says; a launch fault makes the instance Failed with the reason."""
    cloud = cloud_at(tmp_path)
    running(cloud, Nodes())
    cloud.add_fault(Fault("create", "QuotaExceeded", "no quota", times=2))
    cloud.add_fault(Fault("launch", "AllocationFailed", "no capacity"))

    for _ in range(2):
        with pytest.raises(CloudFailure, match="no quota"):
            cloud.create("i", BODY)
    cloud.create("i", BODY)
    await asyncio.sleep(3)

    assert cloud.get("i")["state"] == "Failed"
    assert cloud.get("i")["error"] == {"code": "AllocationFailed", "message": "no capacity"}


@pytest.fixture
async def http(tmp_path: Path) -> AsyncIterator[TestClient[Any, Any]]:
    """The HTTP API, with the right token."""
    app = cloud_app(cloud_at(tmp_path), "secret", lambda: True)
    async with TestClient(TestServer(app), headers={"Authorization": "Bearer secret"}) as client:
        yield client


async def test_a_create_happens_once(http: TestClient[Any, Any]) -> None:
    """The second PUT of a name is a 412, one without the precondition is refused, GET shows the promise."""
    once = {"If-None-Match": "*"}
    first = await http.put("/instances/i", json=BODY, headers=once)
    second = await http.put("/instances/i", json=BODY, headers=once)
    bare = await http.put("/instances/j", json=BODY)

    assert [r.status for r in (first, second, bare)] == [201, 412, 428]
    body = await (await http.get("/instances/i")).json()
    assert (body["providerID"], body["nodeName"], body["simulated"]) == ("local:///instances/i", "i", True)
    assert (await second.json())["error"]["code"] == "InstanceExists"


async def test_wrong_callers_and_names_are_refused(http: TestClient[Any, Any]) -> None:
    """Everything but the health check needs the token; absent instances are 404 in the error shape."""
    stranger = await http.get("/instances", headers={"Authorization": "Bearer wrong"})
    missing = await http.get("/instances/none")
    health = await http.get("/healthz", headers={"Authorization": ""})

    assert [r.status for r in (stranger, missing, health)] == [401, 404, 200]
    assert (await missing.json())["error"]["code"] == "NotFound"
    assert (await http.delete("/instances/none")).status == 404


async def test_faults_are_set_over_http(http: TestClient[Any, Any]) -> None:
    """A throttling fault answers 429 with Retry-After; a nonsense fault is refused."""
    fault = {"operation": "create", "code": "TooManyRequests", "message": "slow down", "times": 1}
    await http.put("/faults", json=fault)
    refused = await http.put("/instances/i", json=BODY, headers={"If-None-Match": "*"})

    assert (refused.status, refused.headers["Retry-After"]) == (429, "5")
    assert (await http.put("/faults", json={"operation": "dance"})).status == 400


@pytest.mark.looptime
async def test_nodes_of_one_type_can_be_kept_away(tmp_path: Path, running: Any) -> None:
    """An instance of that type runs and its node does not come until the fault is cleared; others come at once."""
    cloud, nodes = cloud_at(tmp_path), Nodes()
    cloud.add_fault(Fault("join", "NodeLost", "kept away", times=-1, instance_type="Standard_NC12s_v3"))
    running(cloud, nodes)

    cloud.create("away", {**BODY, "instanceType": "Standard_NC12s_v3"})
    cloud.create("here", BODY)
    await asyncio.sleep(60)
    while_faulty = [name for _, name in nodes.joined]
    state = cloud.get("away")["state"]
    cloud.clear_faults()
    await asyncio.sleep(5)

    assert (while_faulty, state) == (["here"], "Running")
    assert [name for _, name in nodes.joined] == ["here", "away"]


async def test_a_broken_state_file_is_said(tmp_path: Path) -> None:
    """A file that is no list of instances is named, not overwritten."""
    (tmp_path / "instances.json").write_text("{oops")

    with pytest.raises(ValueError, match=r"instances\.json"):
        cloud_at(tmp_path)
