"""Outputs that go straight to a connection: what is written at once, what waits, and how it ends."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field

import pytest

from inference_server.protocol import EngineError
from inference_server.vllm_plain import drained
from inference_server.vllm_push import Push


@dataclass
class Output:
    text: str
    finished: bool = False


class Collector:
    """As vLLM's: one place, in which what nobody takes is merged."""

    request_id = "r"

    def __init__(self) -> None:
        self.output: Output | Exception | None = None
        self.closed = False

    def put(self, output: Output | Exception) -> None:
        if isinstance(self.output, Output) and isinstance(output, Output):
            self.output = Output(self.output.text + output.text, output.finished)
        else:
            self.output = output

    def get_nowait(self) -> Output | None:
        output, self.output = self.output, None
        if isinstance(output, Exception):
            raise output
        return output

    def close(self) -> None:
        self.closed = True


class Llm:
    def __init__(self) -> None:
        self.collector = Collector()
        self.aborted: list[str] = []

    async def add_request(self, request_id, prompt, parameters):
        return self.collector

    async def abort(self, request_id, internal):
        self.aborted.append(request_id)


@dataclass
class Reader:
    """An outlet; ``hold`` is a reader that takes nothing."""

    free: bool = True
    got: list[str] = field(default_factory=list)
    hold: asyncio.Event | None = None

    def write(self, data: bytes) -> None:
        self.got.append(data.decode())

    async def send(self, data: bytes) -> None:
        if self.hold is not None:
            await self.hold.wait()
        self.got.append(f"({data.decode()})")

    async def end(self, data: bytes = b"") -> None:
        self.got.append(f"[{data.decode()}]")


@pytest.fixture
def llm() -> Llm:
    return Llm()


async def begun(llm: Llm, outlet: Reader, event=lambda output: output.text.encode()) -> asyncio.Task:
    task = asyncio.create_task(Push(llm, event, event, ({}, None, "r"), {}).run(outlet))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return task


async def test_what_the_reader_takes_is_written_at_once(llm):
    """While the connection takes everything, an output is on it before ``put`` returns; the end has one write."""
    outlet = Reader()
    task = await begun(llm, outlet)
    for text in ("a", "", "b"):
        llm.collector.put(Output(text))
    assert outlet.got == ["a", "b"]
    llm.collector.put(Output("c", finished=True))
    await task
    assert outlet.got == ["a", "b", "[c]"]
    assert (llm.aborted, llm.collector.closed) == ([], True)


async def test_what_a_slow_reader_leaves_is_merged(llm):
    """Outputs for a reader that takes nothing become one; order is kept when it takes again."""
    outlet = Reader(free=False, hold=asyncio.Event())
    task = await begun(llm, outlet)
    llm.collector.put(Output("a"))
    await asyncio.sleep(0)
    for text in ("b", "c", "d"):
        llm.collector.put(Output(text))
        await asyncio.sleep(0)
    outlet.hold.set()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    outlet.free = True
    llm.collector.put(Output("e"))
    llm.collector.put(Output("f", finished=True))
    await task
    assert "".join(outlet.got).translate(str.maketrans("", "", "()[]")) == "abcdef"
    assert "(bcd)" in outlet.got or "(bcde)" in outlet.got


async def test_a_failure_ends_one_request_and_never_its_caller(llm):
    """What an event raises ends this answer, aborted, and does not reach the task that calls ``put``."""

    def event(_):
        raise ZeroDivisionError

    task = await begun(llm, Reader(), event)
    llm.collector.put(Output("a"))
    with pytest.raises(ZeroDivisionError):
        await task
    assert (llm.aborted, llm.collector.closed) == (["r"], True)


async def test_a_request_that_is_left_is_aborted(llm):
    """Cancelling the answer aborts it in the engine; what the engine reports is raised."""
    task = await begun(llm, Reader())
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert llm.aborted == ["r"]
    task = await begun(llm, Reader())
    llm.collector.put(RuntimeError("died"))
    with pytest.raises(RuntimeError, match="died"):
        await task


async def test_a_generator_that_does_not_wait_is_emptied_in_one_step():
    """All its parts come back at once; one that waits is an error and not a hang."""

    async def parts(wait: bool):
        yield "a"
        if wait:
            await asyncio.sleep(0)
        yield "b"

    assert drained(parts(wait=False)) == ["a", "b"]
    with pytest.raises(EngineError):
        drained(parts(wait=True))
