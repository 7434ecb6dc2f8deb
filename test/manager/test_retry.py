"""Trying again on conflicts."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from itertools import pairwise

import pytest

from manager.errors import AlreadyExists, ApplyConflict, Conflict, ManagerError, NotFound
from manager.retry import DEFAULT_BACKOFF, DEFAULT_RETRY, Backoff, retry_on_conflict

pytestmark = [pytest.mark.looptime, pytest.mark.acceptance("FW-G13")]


def attempts(*outcomes: Exception | str) -> tuple[Callable[[], Awaitable[str]], list[float]]:
    """A callback with these outcomes, the last for ever, and the times at which it was called."""
    times: list[float] = []

    async def attempt() -> str:
        times.append(asyncio.get_running_loop().time())
        outcome = outcomes[min(len(times), len(outcomes)) - 1]
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    return attempt, times


def conflict() -> Conflict:
    return Conflict(409, "Conflict", "the object has been modified")


async def test_success_after_conflicts_is_returned() -> None:
    """The callback is asked again until it succeeds."""
    attempt, times = attempts(conflict(), conflict(), "done")

    assert await retry_on_conflict(attempt) == "done"
    assert len(times) == 3


@pytest.mark.parametrize(
    ("backoff", "tries"), [(DEFAULT_RETRY, 5), (DEFAULT_BACKOFF, 4), (Backoff(1, 1, 1, 0), 1)]
)
async def test_the_last_conflict_is_returned_when_all_tries_met_one(backoff: Backoff, tries: int) -> None:
    """It is the server's own error, not one about retrying."""
    errors = [conflict() for _ in range(tries)]
    attempt, times = attempts(*errors)
    with pytest.raises(Conflict) as caught:
        await retry_on_conflict(attempt, backoff=backoff)

    assert caught.value is errors[-1]
    assert len(times) == tries


@pytest.mark.parametrize(
    "error",
    [NotFound(404, "NotFound"), AlreadyExists(409, "AlreadyExists"), ManagerError("x"), ValueError("x")],
)
async def test_another_error_is_raised_at_once(error: Exception) -> None:
    """Only a conflict says that a newer object may help; 409 on a create says something else."""
    attempt, times = attempts(error, "done")
    with pytest.raises(type(error)):
        await retry_on_conflict(attempt)

    assert len(times) == 1


async def test_a_conflict_of_managers_is_one_too() -> None:
    """Its reason is Conflict, and that is what counts."""
    attempt, times = attempts(ApplyConflict(409, "Conflict"), "done")

    assert (await retry_on_conflict(attempt), len(times)) == ("done", 2)


@pytest.mark.parametrize(
    ("backoff", "waits"), [(DEFAULT_RETRY, [0.01] * 4), (DEFAULT_BACKOFF, [0.01, 0.05, 0.25])]
)
async def test_the_waits_between_tries(backoff: Backoff, waits: list[float], seed: int) -> None:
    """Each is the nominal one, stretched by at most a tenth."""
    attempt, times = attempts(conflict())
    with pytest.raises(Conflict):
        await retry_on_conflict(attempt, backoff=backoff, rng=random.Random(seed))
    gaps = [later - earlier for earlier, later in pairwise(times)]

    assert len(gaps) == len(waits)
    assert all(wait - 1e-6 <= gap <= wait * 1.1 + 2e-6 for gap, wait in zip(gaps, waits, strict=True))


async def test_a_cancellation_keeps_its_own_error() -> None:
    """Neither the conflict nor a wrapper hides it, in the wait as in the callback."""
    attempt, _ = attempts(conflict())
    waiting = asyncio.create_task(retry_on_conflict(attempt, backoff=Backoff(9, 60.0, 1.0, 0.0)))
    await asyncio.sleep(1)
    waiting.cancel("the caller had enough")
    with pytest.raises(asyncio.CancelledError):
        await waiting

    async def cancelled() -> str:
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await retry_on_conflict(cancelled)


async def test_a_deadline_keeps_its_own_error() -> None:
    """What ends the tries is the caller's TimeoutError, not the conflict before it."""
    attempt, _ = attempts(conflict())
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1):
            await retry_on_conflict(attempt, backoff=Backoff(9, 60.0, 1.0, 0.0))
