"""Many Workspaces at once on the embedded cluster: the three real processes, and a stub process in every pod."""

from __future__ import annotations

import asyncio
import os
import statistics
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from api import keys
from api.conditions import INFERENCE_READY, RESOURCE_READY, WORKSPACE_READY, conditions_of, find
from kaito.local.testing.many import (
    STAYS_AWAY,
    Seen,
    StubCluster,
    apply,
    keep_away,
    running,
    watching,
    workspace,
)
from manager.client import Client
from manager.resources import PODS

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1500)]

_SOAK = bool(os.environ.get("KAITO_SOAK"))
_COUNT, _ODD = (1000, 20) if _SOAK else (15, 2)
_SECONDS = 1200.0 if _SOAK else 120.0  # a bound for a loaded machine; what it takes is far less


@pytest.fixture
async def stubs(tmp_path: Path) -> AsyncIterator[StubCluster]:
    """A cluster whose pods are stubs."""
    async with running(tmp_path / "home") as started:
        yield started


@pytest.fixture
async def client(stubs: StubCluster) -> AsyncIterator[Client]:
    """The administrator's."""
    async with Client(stubs.rest_config()) as opened:
        yield opened


@pytest.fixture
async def seen(client: Client) -> AsyncIterator[Seen]:
    """When each Workspace became Ready."""
    async with watching(client) as log:
        yield log


def _condition(seen: Seen, name: str, kind: str) -> Any:
    return find(conditions_of(seen.newest[name]), kind)


async def test_workspaces_without_hope_delay_nobody(stubs: StubCluster, client: Client, seen: Seen) -> None:
    """All become Ready though those in front never will, each of which says why; then one that fails on request is
    not Ready, says why and comes back, and all others stay Ready."""
    good = [f"ws-{number}" for number in range(_COUNT)]
    never = [f"never-{number}" for number in range(_ODD)]
    fails = [f"fails-{number}" for number in range(_ODD)]
    await keep_away(stubs)

    without = (workspace(name, instance_type=STAYS_AWAY) for name in never)
    await apply(client, seen, [*without, *map(workspace, fails), *map(workspace, good)])

    assert await seen.until(good, _SECONDS), f"{len(seen.now_ready)} of {len(good)}"
    assert seen.now_ready == set(good)
    assert {str(_condition(seen, name, RESOURCE_READY).reason) for name in never} == {"MachineNotRegistered"}
    async with asyncio.timeout(_SECONDS):
        while not all(_condition(seen, name, INFERENCE_READY) for name in fails) or not all(
            "the stub of this pod always fails" in _condition(seen, name, WORKSPACE_READY).message
            for name in fails
        ):
            await seen.changed()
    print(f"p50 {statistics.median(seen.latencies(good)):.1f} s")

    await _fail_on_request(client, good[0])
    async with asyncio.timeout(_SECONDS):
        while good[0] in seen.now_ready:
            await seen.changed()
    assert seen.now_ready == set(good[1:])
    assert _condition(seen, good[0], WORKSPACE_READY).message
    assert await seen.until(good, _SECONDS)


async def _fail_on_request(client: Client, name: str) -> None:
    pods = await client.list(PODS, "default", label_selector=f"{keys.WORKSPACE_LABEL}={name}")
    url = f"http://{pods.items[0]['status']['podIP']}:{keys.SERVER_PORT}/stub/fail?how=exit"
    async with aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.ServerDisconnectedError):
            await session.post(url)
