"""Hints from outside the cluster: before the start, under pressure, to several controllers, at the end (E16)."""

from __future__ import annotations

import asyncio

import pytest

from manager.changes import Generic
from manager.channel import Channel, ChannelClosed, ChannelSource
from manager.errors import ManagerError
from manager.handlers import Queue, enqueue_self
from manager.predicates import generation_changed, on_object
from manager.queue import PriorityQueue
from manager.types import Obj

pytestmark = [pytest.mark.looptime, pytest.mark.acceptance("FW-E16")]


def obj(name: str) -> Obj:
    return {"metadata": {"name": name, "namespace": "n"}}


async def names(queue: Queue) -> list[str]:
    """What came, once all that can happen has happened."""
    await asyncio.sleep(1)
    return [(await queue.get())[0].name for _ in range(len(queue))]


async def connected(channel: Channel, **options: int) -> Queue:
    queue: Queue = PriorityQueue()
    await ChannelSource(channel, enqueue_self, **options).start(queue)
    return queue


async def test_what_is_sent_comes_to_the_handler_as_a_generic_change() -> None:
    """Predicates see it too, and what they refuse makes no work."""
    channel, queue, seen = Channel(), PriorityQueue(), []  # type: Channel, Queue, list[object]
    source = ChannelSource(
        channel,
        lambda change, _: seen.append(change),
        generation_changed,
        on_object(lambda o: bool(o["metadata"]["name"] != "no")),
    )
    await source.start(queue)
    await source.wait_synced()
    for name in ("yes", "no"):
        await channel.send(obj(name))
    await asyncio.sleep(1)

    assert seen == [Generic(obj("yes"))]


async def test_what_was_sent_before_the_start_is_not_lost() -> None:
    """In its order, before what is sent later."""
    channel = Channel()
    for name in ("a", "b"):
        await channel.send(obj(name))
    queue = await connected(channel)
    await channel.send(obj("c"))

    assert await names(queue) == ["a", "b", "c"]


async def test_a_sender_waits_while_nobody_listens_and_the_buffer_is_full() -> None:
    """As soon as a source is started it goes on, and nothing is lost."""
    channel = Channel(buffer=2)
    sender = asyncio.create_task(send_all(channel, "a", "b", "c", "d"))
    await asyncio.sleep(60)
    assert not sender.done()
    queue = await connected(channel)
    await sender

    assert await names(queue) == ["a", "b", "c", "d"]


async def send_all(channel: Channel, *which: str) -> None:
    for name in which:
        await channel.send(obj(name))


async def test_a_full_source_holds_the_sender_back_until_it_gets_its_turn() -> None:
    """More than a buffer can be sent; never more than a buffer waits."""
    channel = Channel()
    queue = await connected(channel, buffer=3)
    sender = asyncio.create_task(send_all(channel, *map(str, range(10))))
    await asyncio.sleep(0)
    assert not sender.done()
    await sender

    assert await names(queue) == [str(number) for number in range(10)]


async def test_every_source_gets_everything() -> None:
    """Two controllers that watch one channel do not take each other's hints."""
    channel = Channel()
    first, second = await connected(channel), await connected(channel)
    await send_all(channel, "a", "b")

    assert (await names(first), await names(second)) == (["a", "b"], ["a", "b"])


async def test_closing_ends_it() -> None:
    """What was sent before is still handled; later and waiting senders are told; closing twice does no harm."""
    channel = Channel(buffer=1)
    await channel.send(obj("a"))
    waiting = asyncio.create_task(channel.send(obj("b")))
    await asyncio.sleep(1)
    channel.close()
    channel.close()
    with pytest.raises(ChannelClosed):
        await waiting
    with pytest.raises(ChannelClosed):
        await channel.send(obj("c"))

    assert await names(await connected(channel)) == ["a"]


async def test_a_handler_that_fails_loses_one_hint(caplog: pytest.LogCaptureFixture) -> None:
    """It is logged, and the next one is handled."""
    channel, seen = Channel(), []  # type: Channel, list[str]

    def handler(change: object, _: Queue) -> None:
        assert isinstance(change, Generic)
        seen.append(change.obj["metadata"]["name"])
        if len(seen) == 1:
            raise KeyError("bug")

    await ChannelSource(channel, handler).start(PriorityQueue())
    await send_all(channel, "a", "b")
    await asyncio.sleep(1)

    assert seen == ["a", "b"]
    assert "hint skipped" in caplog.text


async def test_a_flood_of_hints_lets_others_run() -> None:
    """A slice at a time, between the turns of the rest of the process."""
    channel = Channel(buffer=1000)
    await send_all(channel, *map(str, range(1000)))
    queue = await connected(channel)
    turns = 0
    while len(queue) < 1000:
        turns += 1
        await asyncio.sleep(0)

    assert turns >= 10


@pytest.mark.parametrize("missing", ["channel", "handler"])
def test_a_source_needs_a_channel_and_a_handler(missing: str) -> None:
    """The mistake is told where it is made."""
    parts = {"channel": Channel(), "handler": enqueue_self, missing: None}
    with pytest.raises(ManagerError, match="needs a channel and a handler"):
        ChannelSource(parts["channel"], parts["handler"])  # type: ignore[arg-type]
