"""Running a piece of work so that a signal ends it cleanly, at whatever point it is.

In: a coroutine that cleans up in ``finally`` blocks. Out: its result, or :class:`Interrupted` after the clean-up.
The first SIGINT, SIGTERM or SIGHUP cancels it; further ones are answered with a word, since a clean-up that is
torn down half-way is what leaves processes behind. What the work creates must be created inside it: before it
starts, and after it has ended undisturbed, signals have their usual effect. After an interruption the process is
expected to exit, and ignores them.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine
from typing import Any, TypeVar

from kaito.console import note
from kaito.errors import Interrupted

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
T = TypeVar("T")


async def until_signal(work: Coroutine[Any, Any, T], interrupted: str) -> T:
    """The result of the work; ``interrupted`` is said at the first signal.

    Raises:
        Interrupted: a signal came before the work had ended.
    """
    loop = asyncio.get_running_loop()
    task = loop.create_task(work, name="interruptible")
    received: list[signal.Signals] = []

    def interrupt(number: signal.Signals) -> None:
        received.append(number)
        if len(received) == 1:
            task.cancel()
            note(interrupted)
        elif number is signal.SIGINT:
            note("still stopping: the processes get some seconds to end")

    for number in _SIGNALS:
        loop.add_signal_handler(number, interrupt, number)
    try:
        return await task
    except asyncio.CancelledError:
        if received:
            raise Interrupted from None
        raise
    finally:
        for number in _SIGNALS:
            loop.remove_signal_handler(number)
            if received:
                signal.signal(number, signal.SIG_IGN)  # all is done but the exit, which shall have its own code
