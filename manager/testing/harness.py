"""Running a manager inside a test, and waiting for what it does.

    async with running(manager):
        await client.create(WEBSITES, {...})
        await eventually(lambda: client.get(CONFIGMAPS, "web", "default"))

What fails in the manager fails the test, at the latest when the block ends.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

from manager.errors import NotFound
from manager.manager import Manager

T = TypeVar("T")


@asynccontextmanager
async def running(manager: Manager, *, timeout: float = 30.0) -> AsyncIterator[asyncio.Task[None]]:
    """The manager runs during the block, its controllers started, and is stopped after it.

    Gives its task, for who wants to see it end by itself.

    Raises:
        TimeoutError: the controllers did not start within ``timeout`` seconds.
        Exception: what the manager raised, if the block ended without an exception of its own.
    """
    stop = asyncio.Event()
    task = asyncio.create_task(manager.run(stop), name="manager-under-test")
    started = asyncio.create_task(manager.elected.wait(), name="manager-started")
    try:
        done, _ = await asyncio.wait({task, started}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        if not done:
            raise TimeoutError(f"{manager!r} did not start within {timeout:.0f} s")
        yield task
    finally:
        started.cancel()
        stop.set()
        await asyncio.wait({task})
    task.result()


async def eventually(check: Callable[[], Awaitable[T]], *, timeout: float = 10.0, interval: float = 0.02) -> T:
    """The first answer of ``check`` that is true, asked again and again; a ``NotFound`` is a no.

    Raises:
        TimeoutError: not within ``timeout`` seconds; says what the last answer was.
    """
    last: object = "nothing yet"
    try:
        async with asyncio.timeout(timeout):
            while True:
                try:
                    answer = await check()
                except NotFound as error:
                    last = error
                else:
                    if answer:
                        return answer
                    last = answer
                await asyncio.sleep(interval)
    except TimeoutError:
        raise TimeoutError(f"still not so after {timeout:.0f} s; the last answer was {last!r}") from None
