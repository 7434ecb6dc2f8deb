"""What the framework offers to tests of operators."""

from __future__ import annotations

import pytest

from manager.config import RestConfig
from manager.errors import NotFound
from manager.manager import Manager
from manager.testing import eventually, running


def idle() -> Manager:
    return Manager(RestConfig(server="http://127.0.0.1:1"), metrics_bind="0")


async def test_a_manager_runs_during_the_block_and_is_stopped_after_it() -> None:
    """Its controllers have been started when the block begins."""
    manager = idle()
    async with running(manager) as task:
        assert manager.elected.is_set()
        assert not task.done()

    assert task.done()


async def test_what_fails_in_the_manager_fails_the_test() -> None:
    """Also when the block noticed nothing."""

    async def fail() -> None:
        raise ValueError("broken")

    manager = idle()
    manager.add(fail, name="broken")
    with pytest.raises(ValueError, match="broken"):
        async with running(manager):
            pass


async def test_what_fails_in_the_block_is_what_the_test_shows() -> None:
    """The manager is stopped all the same."""
    with pytest.raises(ZeroDivisionError):
        async with running(idle()) as task:
            _ = 1 / 0
    assert task.done()


@pytest.mark.looptime
async def test_waiting_ends_with_the_first_answer_that_is_true() -> None:
    """NotFound is a no like any other."""
    answers = iter([NotFound(404), None, [], "there"])

    async def check() -> object:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert await eventually(check) == "there"


@pytest.mark.looptime
async def test_waiting_in_vain_says_what_was_seen_last() -> None:
    """So that the test's report is enough to go on."""

    async def check() -> int:
        return 0

    with pytest.raises(TimeoutError, match="still not so after 3 s; the last answer was 0"):
        await eventually(check, timeout=3)
