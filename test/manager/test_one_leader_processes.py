"""Leaders as real processes, seen from outside: whose writes a resource accepts, and when.

The resource is an HTTP endpoint of the test. Each candidate is a manager in a process of its own, whose leader's
work writes there twenty times a second. With KAITO_SOAK the crash is shown with the default times.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import os
import pickle
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from manager.config import RestConfig
from manager.testing.proxy import TcpProxy

if TYPE_CHECKING:
    from conftest import Server

SOAK = bool(os.environ.get("KAITO_SOAK"))
DEFAULT = (15.0, 10.0, 2.0)
SHORT = (2.0, 1.2, 0.2)

PROGRAM = """
import asyncio, base64, pickle, signal, sys, time
import aiohttp
from manager import LeaderElection, Manager
from manager.signals import stop_on_signals

config, namespace, who, times, url = pickle.loads(base64.b64decode(sys.argv[1]))

async def work():
    async with aiohttp.ClientSession() as session:
        while True:
            async with session.post(url, data=who):
                await asyncio.sleep(0.05)

async def main():
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, time.sleep, 60)
    manager = Manager(config, leader_election=LeaderElection("l", namespace, who, *times), metrics_bind="0")
    manager.add(work, name="work")
    async def ready():
        async with aiohttp.ClientSession() as session, session.post(url, data=f"{who} is there"):
            pass
    manager.add(ready, name="ready", needs_leader=False)
    with stop_on_signals() as stop:
        await manager.run(stop)

asyncio.run(main())
"""


@dataclass
class Resource:
    """What leaders write to."""

    server: Server
    namespace: str
    url: str
    writes: list[tuple[float, str]] = field(default_factory=list)
    present: set[str] = field(default_factory=set)

    async def write(self, request: web.Request) -> web.Response:
        words = await request.text()
        if words.endswith(" is there"):
            self.present.add(words.removesuffix(" is there"))
        else:
            self.writes.append((time.monotonic(), words))
        return web.Response()

    def first(self, who: str) -> float | None:
        """When it wrote for the first time."""
        return next((at for at, writer in self.writes if writer == who), None)

    def last(self, who: str) -> float:
        """When it wrote for the last time."""
        return max(at for at, writer in self.writes if writer == who)

    async def leads(self, who: str, seconds: float) -> float:
        """Wait until it writes; when it began."""
        async with asyncio.timeout(seconds):
            while (at := self.first(who)) is None:
                await asyncio.sleep(0.01)
        return at

    def check(self) -> None:
        """Each leader's writes stand together."""
        runs = [who for who, _ in itertools.groupby(who for _, who in self.writes)]
        assert len(runs) == len(set(runs)), f"two leaders at once: {runs}"

    @asynccontextmanager
    async def candidate(
        self, who: str, times: tuple[float, float, float], config: RestConfig | None = None
    ) -> AsyncIterator[asyncio.subprocess.Process]:
        """A process that is there, and gone after the block."""
        options = pickle.dumps((config or self.server.config, self.namespace, who, times, self.url))
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", PROGRAM, base64.b64encode(options).decode(), stderr=asyncio.subprocess.DEVNULL
        )
        try:
            async with asyncio.timeout(30):
                while who not in self.present:
                    await asyncio.sleep(0.01)
            yield process
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()


@pytest.fixture
async def resource(api_server: Server, namespace: str) -> AsyncIterator[Resource]:
    made = Resource(api_server, namespace, "")
    app = web.Application()
    app.router.add_post("/", made.write)
    async with TestServer(app) as server:
        made.url = str(server.make_url("/"))
        yield made


async def test_a_process_that_is_told_to_end_is_followed_within_two_seconds(resource: Resource) -> None:
    """With the default times, from the last write of the one to the first of the other."""
    async with resource.candidate("first", DEFAULT) as first:
        await resource.leads("first", 10)
        async with resource.candidate("second", DEFAULT):
            first.send_signal(signal.SIGTERM)
            assert await first.wait() == 0
            began = await resource.leads("second", 10)

    resource.check()
    assert 0 < began - resource.last("first") < 2


@pytest.mark.embedded_only(reason="what is tried here happens in the processes")
async def test_a_process_that_is_killed_is_followed_when_its_lease_has_ended(resource: Resource) -> None:
    """Not before that, and at most a poll later than rivals have seen."""
    times = DEFAULT if SOAK else SHORT
    lease, _, retry = times
    async with resource.candidate("first", times) as first:
        await resource.leads("first", 10)
        async with resource.candidate("second", times), resource.candidate("third", times):
            first.kill()
            killed = time.monotonic()
            async with asyncio.timeout(60):
                while not (resource.first("second") or resource.first("third")):
                    await asyncio.sleep(0.01)
            took = time.monotonic() - killed

    resource.check()
    assert lease - retry - 0.5 < took < lease + 2.2 * retry + 1
    assert took < 24


@pytest.mark.embedded_only(reason="what is tried here happens in the processes")
async def test_a_process_that_is_stuck_and_cut_off_ends_itself_before_another_leads(resource: Resource) -> None:
    """Its event loop is blocked for a minute, so nothing in it can react; it ends with the fence's code."""
    proxy = TcpProxy(resource.server.config.server)
    proxy.start()
    through = replace(resource.server.config, server=proxy.url)
    try:
        async with resource.candidate("first", SHORT, through) as first:
            await resource.leads("first", 10)
            async with resource.candidate("second", SHORT):
                first.send_signal(signal.SIGUSR1)
                proxy.cut()
                async with asyncio.timeout(10):
                    code = await first.wait()
                ended = time.monotonic()
                began = await resource.leads("second", 10)
    finally:
        proxy.stop()

    resource.check()
    assert code == 70
    assert ended <= began + 0.1, "the parent hears of the end a moment later"
