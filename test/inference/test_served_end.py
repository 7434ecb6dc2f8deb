"""The end of an engine under a server that stays. Last of the files that share a server: it kills the engine."""

from __future__ import annotations

import asyncio
import os
import signal
from importlib.util import find_spec

import pytest

from inference_server.testing.served import Served

pytestmark = [
    pytest.mark.engine,
    pytest.mark.timeout(900),
    pytest.mark.skipif(find_spec("vllm") is None, reason="the engine is not installed"),
]


async def test_the_killed_engine_is_503_and_unhealthy(served: Served, session):
    """With the engine's process killed, health is 500, every route answers 503, and the server itself lives."""
    os.kill(served.engine_pid(), signal.SIGKILL)
    await served.until(500, seconds=120)
    async with session.post(f"{served.url}/chat", json={"prompt": "hello"}) as reply:
        assert (reply.status, "died" in (await reply.json())["detail"]) == (503, True)
    async with session.post(f"{served.url}/v1/completions", json={"prompt": "hello"}) as reply:
        assert (reply.status, "died" in (await reply.json())["error"]["message"]) == (503, True)
    async with session.get(f"{served.url}/livez") as reply:
        assert reply.status == 500
    assert served.process.poll() is None
    served.process.terminate()
    assert await asyncio.to_thread(served.process.wait, 60) == 0
