"""A program that is told to end: once, it ends in order; twice, at once."""

from __future__ import annotations

import asyncio
import os
import signal
import sys

import pytest

from manager.signals import run_until_signal, stop_on_signals

PROGRAM = """
import asyncio
from manager import run_until_signal

class Program:
    async def run(self, stop):
        print("started", flush=True)
        await stop.wait()
        print("stopping", flush=True)
        if {hangs}:
            await asyncio.Event().wait()

asyncio.run(run_until_signal(Program()))
print("ended", flush=True)
"""


async def start(*, hangs: bool) -> asyncio.subprocess.Process:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PROGRAM.format(hangs=hangs), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"started\n"
    return process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_the_first_signal_stops_in_order(number: signal.Signals) -> None:
    """The program ends by itself, with 0."""
    process = await start(hangs=False)
    process.send_signal(number)
    output, _ = await asyncio.wait_for(process.communicate(), 10)

    assert (output, process.returncode) == (b"stopping\nended\n", 0)


async def test_the_second_signal_ends_it_at_once() -> None:
    """With the code that a shell expects of the signal."""
    process = await start(hangs=True)
    process.send_signal(signal.SIGINT)
    assert process.stdout is not None
    assert await process.stdout.readline() == b"stopping\n"
    process.send_signal(signal.SIGTERM)
    await asyncio.wait_for(process.communicate(), 10)

    assert process.returncode == 128 + signal.SIGTERM


async def test_what_the_program_raises_comes_through_and_signals_are_given_back() -> None:
    """Afterwards the process is as it was."""

    class Failing:
        async def run(self, stop: asyncio.Event) -> None:
            raise ValueError("no")

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(ValueError, match="no"):
        await run_until_signal(Failing())

    assert signal.getsignal(signal.SIGTERM) == before


async def test_the_event_alone_is_enough_for_a_program_of_ones_own() -> None:
    """It is set by the first signal, and not before."""
    with stop_on_signals() as stop:
        assert not stop.is_set()
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.wait_for(stop.wait(), 5)
