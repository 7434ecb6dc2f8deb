"""Blocking work beside the event loop.

In: a function that blocks, such as loading a model. Out: its result or its error, in the task that waits. The
thread belongs to nobody and is a daemon: unlike a pool's, it cannot keep the interpreter from exiting when
the work hangs.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


async def in_thread(name: str, work: Callable[[], T]) -> T:
    """Run ``work`` in a daemon thread of its own. Cancelling the wait leaves the thread running."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if done.cancelled():
            return
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(result)  # type: ignore[arg-type]

    def run() -> None:
        result: T | None = None
        failure: BaseException | None = None
        try:
            result = work()
        except BaseException as error:  # handed over to the waiting task
            failure = error
        try:
            loop.call_soon_threadsafe(settle, result, failure)
        except RuntimeError:  # the loop is closed; nobody waits any more
            pass

    threading.Thread(target=run, name=name, daemon=True).start()
    return await done
