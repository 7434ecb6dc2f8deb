"""Ending a program when it is told to: the first SIGINT or SIGTERM asks, the second does not.

Semantics: controller-runtime's ``SetupSignalHandler``, with the exit code that shells expect of a signal.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

log = logging.getLogger("kaito.manager.signals")

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stoppable(Protocol):
    """Such as a ``Manager``."""

    def run(self, stop: asyncio.Event) -> Coroutine[Any, Any, None]:
        """Run until ``stop`` is set, then end in an orderly way."""
        ...


async def run_until_signal(program: Stoppable) -> None:
    """Run it until SIGINT or SIGTERM comes or it ends by itself.

    A second signal ends the process there and then, with code 128 + its number. Must run in the main thread.

    Raises:
        Exception: what the program raised.
    """
    with stop_on_signals() as stop:
        await program.run(stop)


@contextmanager
def stop_on_signals() -> Iterator[asyncio.Event]:
    """An event that the first signal sets; during the block a second one ends the process."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def signalled(number: signal.Signals) -> None:
        if stop.is_set():
            log.warning("ending at once signal=%s", number.name)
            os._exit(128 + number)
        log.info("stopping signal=%s", number.name)
        stop.set()

    for number in SIGNALS:
        loop.add_signal_handler(number, signalled, number)
    try:
        yield stop
    finally:
        for number in SIGNALS:
            loop.remove_signal_handler(number)
