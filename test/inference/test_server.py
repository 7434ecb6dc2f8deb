"""One server's life: port, loading, readiness, draining, signals by way of the stop event."""

from __future__ import annotations

import asyncio
import socket

import aiohttp
import pytest
from prometheus_client import CollectorRegistry

from inference_server.protocol import EngineFailed
from inference_server.server import ListenError, serve
from inference_server.settings import ServeSettings


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Running:
    """A served scripted engine and a client's view of it."""

    def __init__(self, engine, session, **settings) -> None:
        self.engine = engine
        self.session = session
        self.settings = ServeSettings(model="/m", preset="p", host="127.0.0.1", port=free_port(), **settings)
        self.stop = asyncio.Event()
        self.url = f"http://127.0.0.1:{self.settings.port}"
        self.task = asyncio.ensure_future(
            serve(self.settings, engine, stop=self.stop, registry=CollectorRegistry())
        )

    async def health(self) -> int:
        async with self.session.get(f"{self.url}/healthz") as reply:
            return reply.status

    async def until(self, status: int) -> None:
        async with asyncio.timeout(60):
            while True:
                try:
                    if await self.health() == status:
                        return
                except aiohttp.ClientConnectionError:
                    pass
                await asyncio.sleep(0.01)

    async def chat(self):
        async with self.session.post(f"{self.url}/chat", json={"prompt": "hi"}) as reply:
            return reply.status, await reply.json()


@pytest.fixture
async def run(engine):
    started: list[Running] = []
    async with aiohttp.ClientSession() as session:

        def start(**settings) -> Running:
            engine.info = None
            started.append(Running(engine, session, **settings))
            return started[-1]

        yield start
        for server in started:
            server.stop.set()
            server.task.cancel()
        await asyncio.gather(*(server.task for server in started), return_exceptions=True)


async def test_the_port_answers_while_the_model_loads(run, engine, caplog):
    """Health is 500 from the first moment and 200 once loaded, and then a report says what was chosen."""
    caplog.set_level("INFO")
    engine.start_gate = asyncio.Event()
    server = run()
    await server.until(500)
    engine.start_gate.set()
    await server.until(200)
    server.stop.set()
    assert await server.task == 0
    assert "device         script" in caplog.text
    assert engine.stopped


async def test_a_port_in_use_is_known_before_the_engine_starts(engine):
    """A taken port is an error that names address and remedy, and nothing was loaded for it."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        settings = ServeSettings(model="/m", host="127.0.0.1", port=taken.getsockname()[1])
        with pytest.raises(ListenError, match="another program listens there"):
            await serve(settings, engine, stop=asyncio.Event(), registry=CollectorRegistry())
    assert not engine.started.is_set()


async def test_an_address_of_another_machine_is_named(engine):
    """A host that is not ours is an error that says so."""
    with pytest.raises(ListenError, match="no such address"):
        settings = ServeSettings(model="/m", host="192.0.2.1", port=free_port())
        await serve(settings, engine, stop=asyncio.Event(), registry=CollectorRegistry())


async def test_an_engine_that_cannot_start_ends_the_server(run, engine):
    """The engine's reason comes out of serve, and the port is free again."""
    engine.start_error = EngineFailed("no memory")
    server = run()
    with pytest.raises(EngineFailed, match="no memory"):
        await server.task
    assert engine.stopped
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", server.settings.port))


async def test_stopping_while_loading_does_not_wait_for_the_model(run, engine):
    """A signal during the start ends the server at once with code 0."""
    engine.start_gate = asyncio.Event()
    server = run()
    await server.until(500)
    server.stop.set()
    async with asyncio.timeout(2):
        assert await server.task == 0
    assert engine.stopped


async def test_draining_lets_running_requests_finish(run, engine):
    """After the signal readiness falls, new requests get 503, and the running one gets its answer."""
    engine.hold = asyncio.Event()
    server = run()
    await server.until(200)
    request = asyncio.ensure_future(server.chat())
    while not engine.running:
        await asyncio.sleep(0.01)
    server.stop.set()
    await server.until(500)
    assert (await server.chat())[0] == 503
    assert not engine.stopped
    engine.hold.set()
    assert await request == (200, {"Result": "hione two three"})
    assert await server.task == 0


async def test_draining_is_bounded(run, engine):
    """A request that does not end is given up after the drain time."""
    engine.hold = asyncio.Event()
    server = run(drain_seconds=0.2)
    await server.until(200)
    request = asyncio.ensure_future(server.chat())
    while not engine.running:
        await asyncio.sleep(0.01)
    server.stop.set()
    async with asyncio.timeout(60):
        assert await server.task == 0
    with pytest.raises(aiohttp.ClientError):
        await request
    assert engine.running == 0


@pytest.mark.parametrize("sent", [b"", b"POST /chat HTTP/1.1\r\nHost: x\r\nX-Slow: "])
async def test_a_connection_without_a_whole_head_is_closed(run, sent):
    """Neither silence nor headers that never end keep a connection longer than the limit."""
    server = run(idle_seconds=0.2)
    await server.until(200)
    reader, writer = await asyncio.open_connection("127.0.0.1", server.settings.port)
    writer.write(sent)
    assert await asyncio.wait_for(reader.read(), 60) == b""
    writer.close()
    await writer.wait_closed()
