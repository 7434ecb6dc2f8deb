"""From bytes to events: lines, decoding, and when a peer counts as gone."""

from __future__ import annotations

import asyncio
import itertools
import json

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from manager.client import Client
from manager.errors import ConnectionFailed, Gone, StreamSilent
from manager.lines import LineSplitter
from manager.resources import CONFIGMAPS
from manager.testing.scripted import Handler, Script, bookmark, config_map, status_object
from manager.watch import decode_events


@given(st.lists(st.binary(max_size=12)), st.lists(st.integers(0, 30)))
def test_lines_are_the_same_however_their_bytes_are_cut(lines: list[bytes], cuts: list[int]) -> None:
    """Every line once, in order, without empty ones; what has no line end yet is the rest."""
    data = b"\n".join(lines)
    splitter = LineSplitter()
    found: list[bytes] = []
    edges = sorted({min(cut, len(data)) for cut in cuts} | {0, len(data)})
    for start, end in itertools.pairwise(edges):
        found += splitter.feed(data[start:end])

    whole, _, rest = data.rpartition(b"\n")
    assert found == [line for line in whole.split(b"\n") if line]
    assert splitter.rest() == rest


def line(kind: str, obj: object) -> bytes:
    return json.dumps({"type": kind, "object": obj}).encode()


ADDED = line("ADDED", config_map("a", "1"))


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        (b"<html>", ConnectionFailed),
        (b'{"type":"ADDED"}', ConnectionFailed),
        (b'{"object":{}}', ConnectionFailed),
        (b"[1]", ConnectionFailed),
        (b"7", ConnectionFailed),
        (line("ERROR", "words"), ConnectionFailed),
        (line("ERROR", status_object(410, "Expired")), Gone),
    ],
)
def test_what_comes_before_nonsense_counts(bad: bytes, error: type[Exception]) -> None:
    """The events before it are delivered, it is an error, and what follows it is not looked at."""
    events, failure = decode_events([ADDED, bad, ADDED])

    assert [event.type for event in events] == ["ADDED"]
    assert isinstance(failure, error)


def dripping(pauses: list[float]) -> Handler:
    """A watch that sends a bookmark after each of these pauses, and then nothing."""

    async def handle(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for pause in pauses:
            await asyncio.sleep(pause)
            await response.write(line("BOOKMARK", bookmark("1")) + b"\n")
        await asyncio.Event().wait()
        return response

    return handle


@pytest.mark.looptime
async def test_a_peer_is_gone_after_a_silence_not_after_a_time(client: Client, script: Script) -> None:
    """Each byte starts the wait anew."""
    script.watches = [dripping([60, 60, 60])]
    loop = asyncio.get_running_loop()
    began, seen = loop.time(), 0
    with pytest.raises(StreamSilent):
        async for _ in client.watch(CONFIGMAPS):
            seen += 1

    assert seen == 3
    assert loop.time() - began == pytest.approx(180 + 70, abs=0.1)


@pytest.mark.looptime
async def test_a_slow_reader_does_not_make_its_peer_look_dead(client: Client, script: Script) -> None:
    """Time that the reader spends on its own is not the peer's silence, and interrupts nobody."""
    script.watches = [dripping([1, 1, 90, 90])]
    seen = 0
    with pytest.raises(StreamSilent):
        async for _ in client.watch(CONFIGMAPS, timeout_seconds=300):
            seen += 1
            await asyncio.sleep(100)

    assert seen == 4


@pytest.mark.looptime
async def test_without_bookmarks_silence_says_nothing(client: Client, script: Script) -> None:
    """Who did not ask for bookmarks waits until the end of the watch's time, and a little longer."""
    script.watches = [dripping([])]
    loop = asyncio.get_running_loop()
    began = loop.time()
    with pytest.raises(StreamSilent):
        async for _ in client.watch(CONFIGMAPS, allow_bookmarks=False, timeout_seconds=300):
            pass

    assert loop.time() - began == pytest.approx(330, abs=0.1)
