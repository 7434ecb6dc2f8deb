"""Many streams at once through one server: none is dropped, each is whole, and nothing is left behind."""

from __future__ import annotations

import asyncio
import os
import resource

import aiohttp
import pytest
from aiohttp.test_utils import TestServer
from prometheus_client import CollectorRegistry

from inference_server.app import make_app
from inference_server.server import make_shim
from inference_server.settings import ServeSettings

STREAMS = 1000 if os.environ.get("KAITO_SOAK") else 200
EVENTS = 20


@pytest.fixture
def descriptors():
    """Both ends of each connection are in this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * STREAMS + 200
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(wanted, hard)), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.timeout(300)
async def test_a_crowd_of_streams_is_served_whole(engine, descriptors):
    """All streams of a crowd run at the same time, end with the same text, and free their places."""
    engine.words = ["w"] * EVENTS
    engine.hold = asyncio.Event()
    shim = make_shim(ServeSettings(model="/m", max_queue=STREAMS), engine, registry=CollectorRegistry())
    connector = aiohttp.TCPConnector(limit=0)
    async with (
        TestServer(make_app(shim)) as server,
        aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(280)) as session,
    ):

        async def one() -> int:
            body = {"prompt": "hi", "stream": True, "return_full_text": False}
            async with session.post(server.make_url("/chat"), json=body) as reply:
                raw = await reply.read()
            return raw.count(b'{"Result":"w"}') if raw.endswith(b"data: [DONE]\n\n") else -1

        crowd = [asyncio.create_task(one()) for _ in range(STREAMS)]
        while engine.running < STREAMS:
            assert not any(task.done() for task in crowd)
            await asyncio.sleep(0.01)
        engine.hold.set()
        counts = await asyncio.gather(*crowd)
    assert counts == [EVENTS] * STREAMS
    assert (engine.running, engine.aborted, shim.gate.active) == (0, 0, 0)
