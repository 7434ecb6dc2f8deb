"""The algorithm of leader election, one candidate at a time, in virtual time."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from manager.elector import Elector
from manager.errors import Conflict, ConnectionFailed, Forbidden, ManagerError, ServerError
from manager.lease import LeaderElection, Record
from manager.testing.leases import LeaseBoard

pytestmark = pytest.mark.looptime

ME = LeaderElection("l", "n", "me")
NOW = datetime(2026, 5, 6, tzinfo=UTC)
RIVAL = Record("rival", 15, NOW, NOW, 7)


def now() -> float:
    return asyncio.get_running_loop().time()


def elector(board: LeaseBoard, election: LeaderElection = ME, **options: object) -> Elector:
    given = {"clock": now, "wall": lambda: NOW + timedelta(seconds=now()), "rng": random.Random(1), **options}
    return Elector(board.lock(election), election, **given)  # type: ignore[arg-type]


@asynccontextmanager
async def leading(board: LeaseBoard, **options: object) -> AsyncIterator[asyncio.Task[None]]:
    """The lease is held and being renewed during the block; the task ends when it is lost."""
    me = elector(board, **options)
    await me.acquire()
    task = asyncio.create_task(me.renew())
    yield task
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def in_time(seconds: float, task: asyncio.Task[None]) -> bool:
    await asyncio.wait({task}, timeout=seconds)
    return task.done()


# ------------------------------------------------------------------ take


@pytest.mark.acceptance("FW-F14")
async def test_a_lease_that_is_not_there_is_created() -> None:
    """At once, with a first acquisition and no transition."""
    board = LeaseBoard()
    await elector(board).acquire()

    assert (now(), board.record) == (0, Record("me", 15, NOW, NOW, 0))
    assert board.requests == [("me", "get"), ("me", "create")]


@pytest.mark.acceptance("FW-F14")
@pytest.mark.parametrize(
    ("before", "after"),
    [
        (replace(RIVAL, holder=""), Record("me", 15, NOW, NOW, 8)),
        (Record(), Record("me", 15, NOW, NOW, 1)),
        (replace(RIVAL, holder="me", acquired=NOW - timedelta(1)), Record("me", 15, NOW - timedelta(1), NOW, 7)),
    ],
    ids=["released", "empty", "mine"],
)
async def test_a_lease_that_is_nobodys_or_mine_is_taken_at_once(before: Record, after: Record) -> None:
    """From somebody else it counts a transition; from myself nothing but the renewal changes."""
    board = LeaseBoard()
    board.put(before)
    await elector(board).acquire()

    assert (now(), board.record) == (0, after)


@pytest.mark.acceptance("FW-F14")
async def test_a_rival_that_renews_keeps_its_lease() -> None:
    """A candidate waits as long as the record goes on changing."""
    board = LeaseBoard()
    board.put(RIVAL)
    task = asyncio.create_task(elector(board).acquire())
    for second in range(60):
        board.put(replace(RIVAL, renewed=NOW + timedelta(seconds=second)))
        await asyncio.sleep(1)

    assert not task.done()
    task.cancel()
    assert board.record.holder == "rival"


@pytest.mark.acceptance("FW-F14")
async def test_a_lease_whose_record_stands_still_is_taken_after_its_duration() -> None:
    """Measured from when this candidate first saw it so, not from the times in the record."""
    board = LeaseBoard()
    board.put(replace(RIVAL, renewed=NOW - timedelta(days=400)))
    await elector(board).acquire()

    assert now() == pytest.approx(15, abs=0.1)
    assert (board.record.holder, board.record.transitions) == ("me", 8)


@pytest.mark.acceptance("FW-F14")
@pytest.mark.parametrize(
    ("verb", "error"),
    [
        ("get", ServerError(500, "InternalError")),
        ("get", ConnectionFailed("reset")),
        ("update", Conflict(409, "Conflict")),
        ("update", ConnectionFailed("reset")),
        ("create", ServerError(503, "ServiceUnavailable")),
    ],
)
async def test_an_attempt_that_fails_is_no_success(verb: str, error: ManagerError) -> None:
    """It is made again after the stretched retry period."""
    board = LeaseBoard()
    if verb != "create":
        board.put(replace(RIVAL, holder=""))
    board.failures[verb].append(error)
    await elector(board).acquire()

    assert 2 <= now() <= 4.4
    assert board.record.holder == "me"


@pytest.mark.acceptance("FW-F14")
async def test_two_that_create_at_once_are_not_both_leaders() -> None:
    """The slower one's create is refused, and it sees the other's lease next time."""
    board = LeaseBoard(latency=0.5)
    first, second = elector(board), elector(board, replace(ME, identity="you"))
    tasks = [asyncio.create_task(each.acquire()) for each in (first, second)]
    done, _ = await asyncio.wait(tasks, timeout=14)

    assert len(done) == 1
    for task in tasks:
        task.cancel()


async def test_a_candidate_hears_of_a_release_at_once() -> None:
    """A clean hand-over does not wait for the next poll."""
    board = LeaseBoard()
    board.put(RIVAL)
    task = asyncio.create_task(elector(board).acquire())
    await asyncio.sleep(0.5)
    board.put(RIVAL.released(NOW))
    await task

    assert now() == 0.5


async def test_who_may_not_watch_polls() -> None:
    """Hearing of a release is a convenience: without it the next attempt comes in its time."""
    board = LeaseBoard()
    board.put(RIVAL)
    lock = board.lock(ME)

    async def freed() -> None:
        raise Forbidden(403, "Forbidden")

    lock.freed = freed  # type: ignore[method-assign]
    task = asyncio.create_task(Elector(lock, ME, clock=now, rng=random.Random(1)).acquire())
    await asyncio.sleep(0.5)
    board.put(RIVAL.released(NOW))
    await task

    assert 2 <= now() <= 4.4


# ------------------------------------------------------------------ keep


@pytest.mark.acceptance("FW-F17")
async def test_a_renewal_is_one_update() -> None:
    """No read before it, every retry period."""
    board = LeaseBoard()
    async with leading(board):
        board.requests.clear()
        await asyncio.sleep(20.5)

    assert board.requests == [("me", "update")] * 10


@pytest.mark.acceptance("FW-F17")
async def test_a_renewal_that_meets_a_conflict_reads_and_updates() -> None:
    """Somebody touched the object, such as its labels: the lease is kept."""
    board = LeaseBoard()
    async with leading(board) as task:
        board.requests.clear()
        board.put(board.record)
        await asyncio.sleep(2.5)

        assert not task.done()
    assert board.requests == [("me", "update"), ("me", "get"), ("me", "update")]


async def test_a_lease_that_was_deleted_is_made_again() -> None:
    """The leader goes on."""
    board = LeaseBoard()
    async with leading(board) as task:
        board.remove()
        await asyncio.sleep(30)

        assert not task.done()
    assert board.record.holder == "me"


@pytest.mark.parametrize("latency", [0.0, 0.5])
async def test_a_leader_that_reaches_nobody_gives_up_before_others_may_take_over(latency: float) -> None:
    """Within the renew deadline after the first renewal that failed: 12 s, or 12.5 on slow networks."""
    board = LeaseBoard(random.Random(3), latency=latency)
    me = elector(board)
    await me.acquire()
    task = asyncio.create_task(me.renew())
    await asyncio.sleep(7)
    board.partitioned.add("me")
    await task

    assert 12 <= round(now() - me.renewed_at, 3) <= (12.5 if latency else 12)


async def test_short_interruptions_do_not_cost_the_lease() -> None:
    """Some seconds without the server, again and again."""
    board = LeaseBoard()
    async with leading(board) as task:
        for _ in range(10):
            board.partitioned.add("me")
            await asyncio.sleep(4)
            board.partitioned.clear()
            await asyncio.sleep(7)

        assert not task.done()


async def test_a_leader_gives_up_in_good_time_whatever_the_periods_are() -> None:
    """With a renew deadline near the lease's duration client-go's leader would go on after its end."""
    election = LeaderElection("l", "n", "me", lease_duration=15, renew_deadline=14, retry_period=4)
    board = LeaseBoard()
    me = elector(board, election)
    await me.acquire()
    board.partitioned.add("me")
    await me.renew()

    assert now() == pytest.approx(14.5)


async def test_a_leader_that_sees_another_holder_stops_at_once() -> None:
    """It does not go on trying until its deadline."""
    board = LeaseBoard()
    async with leading(board) as task:
        board.put(RIVAL)

        assert await in_time(2.1, task)
    assert board.record == RIVAL


async def test_no_request_of_a_renewal_outlives_its_deadline() -> None:
    """A server that never answers costs the lease in time, not later."""
    board = LeaseBoard()
    me = elector(board)
    await me.acquire()
    board.failures["update"].clear()
    board.partitioned.add("me")
    await me.renew()

    assert now() <= 12.001


@pytest.mark.parametrize("hours", [-30, -1, 1, 30])
async def test_the_wall_clock_decides_nothing(hours: int) -> None:
    """A leader whose clock jumps keeps the lease; a candidate whose clock is wrong does not take it early."""
    board = LeaseBoard()
    wall = [NOW]
    async with leading(board, wall=lambda: wall[0] + timedelta(seconds=now())) as task:
        wrong = elector(
            board, replace(ME, identity="you"), wall=lambda: NOW + timedelta(hours=hours, seconds=now())
        )
        you = asyncio.create_task(wrong.acquire())
        await asyncio.sleep(10)
        wall[0] += timedelta(hours=hours)
        await asyncio.sleep(60)

        assert not task.done()
        assert not you.done()
        you.cancel()


# ------------------------------------------------------------------ give back


@pytest.mark.acceptance("FW-F16")
async def test_a_release_reads_first_and_leaves_a_rival_alone() -> None:
    """What is remembered may be old: only the record just read is given back."""
    board = LeaseBoard()
    me = elector(board)
    await me.acquire()
    board.put(RIVAL)
    board.requests.clear()
    await me.release()

    assert board.requests == [("me", "get")]
    assert board.record == RIVAL


@pytest.mark.acceptance("FW-F16")
async def test_a_released_lease_is_free_for_all() -> None:
    """No holder, one second, the count of transitions kept."""
    board = LeaseBoard()
    board.put(RIVAL)
    later = NOW + timedelta(hours=1)
    me = elector(board, wall=lambda: later)
    await me.acquire()
    await me.release()

    assert board.record == Record("", 1, later, later, 8)


@pytest.mark.acceptance("FW-F16")
async def test_a_release_that_meets_conflicts_is_tried_again() -> None:
    """Each time after another look."""
    board = LeaseBoard()
    me = elector(board)
    await me.acquire()
    board.failures["update"].extend([Conflict(409, "Conflict")] * 2)
    board.requests.clear()
    await me.release()

    assert board.requests == [("me", "get"), ("me", "update")] * 3
    assert board.record.holder == ""


@pytest.mark.acceptance("FW-F16")
async def test_a_release_takes_the_renew_deadline_at_most() -> None:
    """Nobody waits longer for a server that does not answer, and it is no error."""
    board = LeaseBoard()
    me = elector(board)
    await me.acquire()
    board.failures["update"].extend([Conflict(409, "Conflict")] * 1000)
    await me.release()

    assert now() == pytest.approx(10, abs=0.2)


@pytest.mark.acceptance("FW-F16")
async def test_a_cancelled_attempt_that_came_through_is_given_back() -> None:
    """A candidate that stops while its request is under way does not leave a lease behind that nobody holds."""
    board = LeaseBoard()
    me = elector(board)
    board.put(replace(RIVAL, holder=""))
    board._latency = 1.0
    task = asyncio.create_task(me.acquire())
    while board.record.holder != "me":
        await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await me.release()

    assert board.record.holder == ""


@pytest.mark.acceptance("FW-F08")
async def test_a_candidate_that_never_wrote_asks_for_nothing_at_the_end() -> None:
    """It has nothing to give back."""
    board = LeaseBoard()
    board.put(RIVAL)
    me = elector(board)
    task = asyncio.create_task(me.acquire())
    await asyncio.sleep(1)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    board.requests.clear()
    await me.release()

    assert board.requests == []
    assert board.record == RIVAL
