"""A look inside the process."""

from __future__ import annotations

import asyncio
import time
import tracemalloc
from collections.abc import AsyncIterator

import pytest
from aiohttp.test_utils import TestClient, TestServer
from prometheus_client import CollectorRegistry

from manager.config import RestConfig
from manager.errors import ConfigError
from manager.loopwatch import LoopLag
from manager.manager import Manager
from manager.profiling import debug_app


@pytest.fixture
async def inside() -> AsyncIterator[TestClient]:  # type: ignore[type-arg]
    async with TestClient(TestServer(debug_app(LoopLag(CollectorRegistry())))) as client:
        yield client


async def read(client: TestClient, path: str) -> str:  # type: ignore[type-arg]
    answer = await client.get(path)
    assert answer.status == 200
    return await answer.text()


@pytest.mark.parametrize("bind", ["0.0.0.0:6060", ":6060", "10.0.0.1:6060", "example.com:6060", "[::]:6060"])
def test_only_this_machine_may_look(bind: str) -> None:
    """An address that others reach is refused, with what to do instead."""
    with pytest.raises(ConfigError, match=r"use 127\.0\.0\.1 and `kubectl port-forward`"):
        Manager(RestConfig(server="http://127.0.0.1:1"), debug_bind=bind)


async def test_tasks_are_told_with_where_they_wait(inside: TestClient) -> None:  # type: ignore[type-arg]
    """Also through the coroutines that a task is in."""

    async def deep() -> None:
        await asyncio.Event().wait()

    async def outer() -> None:
        await deep()

    task = asyncio.create_task(outer(), name="patient")
    await asyncio.sleep(0)
    text = await read(inside, "/debug/tasks")
    task.cancel()

    section = next(part for part in text.split("\n\n") if part.startswith("patient\n"))
    assert "outer" in section
    assert "deep" in section
    assert "Event.wait" in section


async def test_threads_are_told_with_their_stacks(inside: TestClient) -> None:  # type: ignore[type-arg]
    """The main one at least."""
    assert "MainThread\n" in await read(inside, "/debug/threads")


async def test_memory_is_traced_from_the_first_look_until_it_is_stopped(inside: TestClient) -> None:  # type: ignore[type-arg]
    """The second look shows who allocated."""
    assert "started" in await read(inside, "/debug/memory")
    kept = [bytes(1000) for _ in range(1000)]
    text = await read(inside, "/debug/memory?top=5")
    await read(inside, "/debug/memory?stop")

    assert "test_profiling.py" in text
    assert kept
    assert not tracemalloc.is_tracing()


async def test_a_profile_shows_where_the_loop_spends_its_time(inside: TestClient) -> None:  # type: ignore[type-arg]
    """As collapsed stacks with their counts."""

    async def busy() -> None:
        while True:
            end = time.monotonic() + 0.02
            while time.monotonic() < end:
                pass
            await asyncio.sleep(0)

    task = asyncio.create_task(busy())
    text = await read(inside, "/debug/profile?seconds=0.2")
    task.cancel()

    assert any("busy" in line and line.rsplit(" ", 1)[1].isdigit() for line in text.splitlines())


@pytest.mark.parametrize(
    "path", ["/debug/profile?seconds=0", "/debug/profile?seconds=3600", "/debug/memory?top=x"]
)
async def test_questions_that_make_no_sense_are_refused(inside: TestClient, path: str) -> None:  # type: ignore[type-arg]
    """400, with what would make sense."""
    await read(inside, "/debug/memory")
    answer = await inside.get(path)
    tracemalloc.stop()

    assert answer.status == 400
    assert "must be a number above 0" in await answer.text()


async def test_the_index_names_everything(inside: TestClient) -> None:  # type: ignore[type-arg]
    """And a tool from outside."""
    text = await read(inside, "/debug/")

    assert "py-spy" in text
    for line in text.splitlines():
        if line.startswith("/debug/") and "profile" not in line and "memory" not in line:
            await read(inside, line.split()[0])
