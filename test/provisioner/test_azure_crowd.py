"""Many Machines at once against a cluster that takes few operations at a time and an ARM that throttles."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from kaito.local.fakearm import Rules, Throttle
from provisioner import Instance, InstanceRequest, InstanceState
from provisioner.azure import AzureProvider
from provisioner.errors import CloudError, InstanceExists, NotFound

pytestmark = [pytest.mark.looptime, pytest.mark.timeout(300)]

Ask = Callable[..., InstanceRequest]
Make = Callable[..., Awaitable[Any]]


async def grow(provider: AzureProvider, request: InstanceRequest, asked: list[str]) -> float:
    """What the Machine controller does for one Machine; seconds until the pool runs.

    ``asked`` gets the pool's name whenever something is asked of the provider.
    """
    clock = asyncio.get_running_loop().time
    began, token, failed = clock(), "", 0
    while True:
        wait: float = provider.poll_interval
        try:
            instance = await look(provider, request, token, asked)
            token = instance.operation or token
            if instance.state is InstanceState.RUNNING:
                return clock() - began
            wait = instance.look_again or wait
        except InstanceExists:
            wait = 1
        except CloudError as error:
            failed += 1
            wait = error.retry_delay(failed)
        await asyncio.sleep(wait)


async def look(provider: AzureProvider, request: InstanceRequest, token: str, asked: list[str]) -> Instance:
    if token:
        return await provider.resume(request.name, token)
    try:
        return await provider.get(request.name)
    except NotFound:
        asked.append(request.name)
        return await provider.create(request)


async def test_two_hundred_at_once_take_their_turns(azure_with: Make, ask: Ask) -> None:
    """One operation at a time and a throttled ARM: all succeed in their order, with hardly a call to spare.

    Half a hundred by default: two hundred are a thousand exchanges of the real SDK over TLS, and take seconds.
    """
    rules = Rules(
        create_seconds=60,
        retry_after=30,
        max_operations=1,
        reads=Throttle(burst=40, per_second=1, retry_after=15),
        writes=Throttle(burst=10, per_second=0.5, retry_after=15),
    )
    azure = await azure_with(rules)
    provider = azure.provider()
    asked: list[str] = []
    many = 200 if os.environ.get("KAITO_SOAK") else 50

    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(grow(provider, ask(provider, uid=f"uid-{number}"), asked)) for number in range(many)
        ]
    took = [task.result() for task in tasks]

    counts = azure.arm.journal.counts()
    print(f"\ncalls={sum(counts.values())} {dict(counts)} last={max(took):.0f}s {provider!r} asked={len(asked)}")
    assert len(azure.arm.pools.pools) == many
    assert azure.arm.pools.most == 1
    # One accepted PUT for each; the limit of one is found out by few refused ones.
    assert counts["put 201"] == many
    assert counts["put 409"] <= 12
    assert counts["put 412"] == 0
    # For each: one look before the PUT, two or three polls (each 30 s), the final look.
    assert sum(counts.values()) <= many * 6
    assert max(took) <= many * 60 * 1.15
    # First come, first served, but for a few seconds in which the next in line is not there.
    came = list(dict.fromkeys(asked))
    went = [exchange.pool for exchange in azure.arm.journal.of("put", status=201)]
    assert max(abs(came.index(pool) - turn) for turn, pool in enumerate(went)) <= 3
    # First come, first served: nobody who came later is done much earlier.


async def test_a_cluster_that_takes_many_is_used_by_many(azure_with: Make, ask: Ask) -> None:
    """Where AKS takes eight at a time, the provider finds out, stays there, and is done all the sooner."""
    azure = await azure_with(Rules(create_seconds=60, retry_after=30, max_operations=8))
    provider = azure.provider()
    many = 64

    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(grow(provider, ask(provider, uid=f"uid-{number}"), [])) for number in range(many)
        ]

    counts = azure.arm.journal.counts()
    print(f"\n{dict(counts)} last={max(task.result() for task in tasks):.0f}s {provider!r}")
    assert azure.arm.pools.most == 8
    assert counts["put 201"] == many
    assert counts["put 409"] <= 16
    assert max(task.result() for task in tasks) <= many / 7 * 75


async def test_throttled_reading_slows_down_and_recovers(azure_with: Make, ask: Ask) -> None:
    """A hundred looks at an ARM that takes ten at once and two a second: all are answered, few are refused."""
    rules = Rules(create_seconds=0, reads=Throttle(burst=10, per_second=2, retry_after=5))
    azure = await azure_with(rules)
    provider = azure.provider()
    name = (await provider.create(ask(provider))).name

    before = asyncio.get_running_loop().time()

    async def persist() -> int:
        tries = 0
        while True:
            tries += 1
            try:
                await provider.get(name)
            except CloudError as error:
                await asyncio.sleep(error.retry_delay(tries))
            else:
                return tries

    async with asyncio.TaskGroup() as group:
        for _ in range(100):
            group.create_task(persist())

    counts = azure.arm.journal.counts()
    print(f"\n{dict(counts)} {provider._arm!r} {asyncio.get_running_loop().time():.0f}")
    assert counts["get 200"] == 100
    assert counts["get 429"] <= 30
    assert asyncio.get_running_loop().time() - before < 90  # 45 are the least


@pytest.mark.parametrize(
    ("retry_after", "polls"), [(0, 13 + 5), (30, 7 + 3)], ids=["no Retry-After", "Retry-After 30"]
)
async def test_what_one_machine_costs(azure_with: Make, ask: Ask, retry_after: int, polls: int) -> None:
    """A life of a pool that takes three minutes to make and one to remove: four requests beside the polls."""
    azure = await azure_with(Rules(create_seconds=180, delete_seconds=60, retry_after=retry_after))
    provider = azure.provider()
    request = ask(provider)
    await grow(provider, request, [])
    token = await provider.delete(request.name)
    with pytest.raises(NotFound):
        while True:
            await asyncio.sleep((await provider.resume(request.name, token)).look_again or provider.poll_interval)

    counts = azure.arm.journal.counts()
    print(f"\ncalls per Machine={sum(counts.values())} {dict(counts)}")
    # A look before the PUT, the PUT, the pool at the end of its creation, the DELETE; nothing after its end.
    assert (counts["get 404"], counts["put 201"], counts["get 200"], counts["delete 202"]) == (1, 1, 1, 1)
    assert counts["poll 200"] <= polls
    assert sum(counts.values()) == 4 + counts["poll 200"]
