"""The operator dies after each of its steps in turn, and the next one takes over.

A step is a write to the API server or a call of the cloud; the process dies when it has been carried out and its
answer not yet heard, which is the worst moment. All points are tried with KAITO_SOAK=1, a seeded few otherwise:
each takes two operators and the round trips of a whole life.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from controllers.machine.garbage import SweepLimits
from kaito.local.fakearm import Rules
from kaito.local.testing.operators import MortalCloud
from manager.testing.mortal import Life, MortalClient

pytestmark = pytest.mark.timeout(900)
Json = dict[str, Any]
_SAMPLE = 2


@asynccontextmanager
async def alive(fleet: Any, life: Life) -> Any:
    client = MortalClient(fleet.config, life)
    mgr = fleet.manager(MortalCloud(fleet.provider(), life), client, sweep=SweepLimits(period=3600))
    run = asyncio.create_task(mgr.run(asyncio.Event()), name="operator")
    try:
        yield run
    finally:
        run.cancel()
        await asyncio.gather(run, return_exceptions=True)


async def live(fleet: Any, steps: int, goal: Callable[[], Awaitable[Any]]) -> Life:
    """One life: until the goal is reached, or the steps are used up."""
    life = Life(steps)
    async with alive(fleet, life) as run:
        died, reached = asyncio.create_task(life.over.wait()), asyncio.create_task(goal())
        done, pending = await asyncio.wait({run, died, reached}, return_when=asyncio.FIRST_COMPLETED)
        for task in pending - {run}:
            task.cancel()
        await asyncio.gather(*(pending - {run}), return_exceptions=True)
        for task in done:
            task.result()
    return life


def points(steps: int, seed: int) -> list[int]:
    """After which steps to die."""
    every = list(range(1, steps + 1))
    if os.environ.get("KAITO_SOAK"):
        return every
    print(f"seed {seed}: {_SAMPLE} of {steps} points")
    return sorted(random.Random(seed).sample(every, min(_SAMPLE, steps)))


def check(fleet: Any, name: str, claim: Json | None) -> None:
    """Never two pools for one claim: whatever was asked for, one name, created once at a time."""
    journal = fleet.azure.arm.journal
    wanted = {exchange.pool for exchange in journal.of("put", status=201)}
    assert len(wanted) == 1, wanted
    assert len(journal.of("put", status=201)) == 1
    if claim is not None:
        assert wanted == {fleet.pool(name, claim)}


@pytest.mark.acceptance("PV-kill-create")
async def test_killed_after_any_step_of_a_creation(fleet: Any, seed: int) -> None:
    """Whatever the last step was, the next operator ends with one pool, one node and a ready claim."""
    await fleet.cloud(Rules(create_seconds=0.1, delete_seconds=0.05))
    first = await fleet.claim()
    whole = await live(fleet, 10_000, lambda: fleet.becomes(first, "True"))
    await fleet.delete(first)
    await live(fleet, 10_000, lambda: fleet.leaves(first))
    print(f"steps: {whole.taken}")
    assert "cloud create" in whole.taken

    for point in points(len(whole.taken), seed):
        fleet.azure.arm.journal.clear()
        name = await fleet.claim()
        life = await live(fleet, point, lambda name=name: fleet.becomes(name, "True"))  # type: ignore[misc]
        await live(fleet, 10_000, lambda name=name: fleet.becomes(name, "True"))  # type: ignore[misc]
        claim = await fleet.get(name)
        print(f"died after {point}: {life.taken[-1]}")
        check(fleet, name, claim)
        assert list(fleet.azure.arm.pools.pools) == [fleet.pool(name, claim)]

        await fleet.delete(name)
        await live(fleet, 10_000, lambda name=name: fleet.leaves(name))  # type: ignore[misc]
        assert fleet.azure.arm.pools.pools == {}


@pytest.mark.acceptance("PV-kill-delete")
async def test_killed_after_any_step_of_a_deletion(fleet: Any, seed: int) -> None:
    """Whatever the last step was, the next operator leaves no pool, no node and no claim."""
    await fleet.cloud(Rules(create_seconds=0.05, delete_seconds=0.1))

    async def grown() -> str:
        name = await fleet.claim()
        ready: Json = {}

        async def goal() -> None:
            ready.update(await fleet.becomes(name, "True"))

        await live(fleet, 10_000, goal)
        await fleet.pod(ready["status"]["nodeName"], f"p-{name}")
        await fleet.delete(name)
        return str(name)

    first = await grown()
    whole = await live(fleet, 10_000, lambda: fleet.leaves(first))
    print(f"steps: {whole.taken}")
    assert "cloud delete" in whole.taken

    for point in points(len(whole.taken), seed):
        fleet.azure.arm.journal.clear()
        name = await grown()
        life = await live(fleet, point, lambda name=name: fleet.leaves(name))  # type: ignore[misc]
        await live(fleet, 10_000, lambda name=name: fleet.leaves(name))  # type: ignore[misc]
        print(f"died after {point}: {life.taken[-1]}")
        check(fleet, name, None)
        assert fleet.azure.arm.pools.pools == {}
        assert len(fleet.azure.arm.journal.of("delete", status=202)) == 1
