"""What one Workspace costs the API server, request by request, and what it costs when nothing happens.

In virtual time, so that the idle hour is an hour of the framework's timers: watches that end and are opened again,
sweeps, polls. A lease, where there is an election, is renewed over a connection of its own, every two seconds by
default; that is the price of a standby and not of a Workspace, and it is not in these tables.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

from controllers.resources import WORKSPACES
from kaito.local.testing import Paper
from kaito.local.testing.counting import CountingClient

pytestmark = pytest.mark.timeout(120)

START = {
    "discover karpenter.sh/v1": 1,
    "watch configmaps": 2,
    "watch controllerrevisions": 1,
    "watch deployments": 1,
    "watch jobs": 1,
    "watch machines": 1,
    "watch nodeclaims": 1,
    "watch nodes": 1,
    "watch pods": 1,
    "watch services": 1,
    "watch statefulsets": 1,
    "watch workspaces": 1,
}
TO_READY = {
    "create machines": 1,
    "patch configmaps": 1,  # the adapters
    "patch controllerrevisions": 1,
    "patch deployments": 1,
    "patch nodes": 1,  # the label of the accelerator
    "patch services": 1,
    "patch workspaces": 2,  # the finalizer, and the hash of the revision
    "patch workspaces/status": 7,
}
EVENTS = {"create events": 9, "patch events": 1}
MACHINE_TO_READY = {
    "create events": 3,
    "patch machines": 1,
    "patch machines/status": 3,
    "patch nodes": 4,
}
SWEEPS = 30  # of the Machine controller in an hour: it compares the cloud with the cluster every two minutes


def other_than_watches(seen: dict[str, int]) -> dict[str, int]:
    """Each watch must have been opened again as often as its time limit of five to ten minutes asks for."""
    for what, number in seen.items():
        if what.startswith("watch "):
            streams = START.get(what, 1)
            assert 6 * streams - 1 <= number <= 12 * streams + 1, (what, number)
    return {what: number for what, number in seen.items() if not what.startswith("watch ")}


@pytest.mark.parametrize("nodeclaims", [True, False], ids=["both-kinds", "machines-only"])
def test_requests_to_ready_and_over_an_idle_hour(virtual: Any, nodeclaims: bool) -> None:
    """No read on the way and no write too many; then an hour in which nothing is written and nothing is read."""
    tables: dict[str, dict[str, int]] = {}

    async def play(paper: Paper) -> None:
        ours, machines = CountingClient(paper.config), CountingClient(paper.config)
        async with (
            paper.operators.running(client=ours, machine=False),
            paper.operators.running(client=machines, workspace=False),
        ):
            await asyncio.sleep(29)
            tables["start"] = ours.since(Counter())
            before = Counter(ours.seen), Counter(machines.seen)
            resource = {"instanceType": "Standard_NC6s_v3", "labelSelector": {"matchLabels": {"apps": "w"}}}
            adapter = {"source": {"name": "first", "image": "example.com/first:1"}}
            inference = {"preset": {"name": "phi-3-mini-4k-instruct"}, "adapters": [adapter]}
            body = {"metadata": {"name": "w"}, "resource": resource, "inference": inference}
            await paper.client.create(WORKSPACES, body, namespace=paper.namespace)
            await paper.ready("w")
            await asyncio.sleep(60)
            tables["to ready"], tables["machine to ready"] = ours.since(before[0]), machines.since(before[1])
            rested = await paper.get("w")
            before = Counter(ours.seen), Counter(machines.seen)
            await asyncio.sleep(3600)
            tables["idle hour"], tables["machine idle hour"] = ours.since(before[0]), machines.since(before[1])
            assert await paper.get("w") == rested

    virtual(play, nodeclaims=nodeclaims)
    for title, seen in tables.items():
        print(f"{title}: " + ", ".join(f"{what} {number}" for what, number in seen.items()))

    if nodeclaims:
        assert tables["start"] == START
    assert tables["to ready"] == TO_READY | EVENTS
    machine = {what: n for what, n in tables["machine to ready"].items() if what.split()[0] in ("create", "patch")}
    assert machine == MACHINE_TO_READY
    # A kind that is not served is looked for every ten minutes: the deletion of what another setting made.
    assert other_than_watches(tables["idle hour"]) == ({} if nodeclaims else {"discover karpenter.sh/v1": 6})
    swept = {"list machines": SWEEPS} | ({"list nodeclaims": SWEEPS} if nodeclaims else {})
    hour = other_than_watches(tables["machine idle hour"])
    hour.pop("discover karpenter.sh/v1", None)
    assert hour == swept
