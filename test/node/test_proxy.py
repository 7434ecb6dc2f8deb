"""The service proxy on real sockets, following Services and EndpointSlices of the API server under test."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from kaito.local.node.proxy import ADDRESS_ANNOTATION, ServiceProxy, listening_socket
from kaito.local.node.relay import relay
from manager.cache import Cache
from manager.client import Client
from manager.resources import SERVICES
from manager.types import Resource

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Events:
    """Keeps what was recorded."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def event(self, regarding: Any, type: str, reason: str, note: str, *, action: str = "") -> None:
        self.notes.append(note)


@contextlib.asynccontextmanager
async def serving(handler: Handler, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[tuple[str, int]]:
    """A TCP server on loopback."""

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await handler(reader, writer)
        writer.close()

    server = await asyncio.start_server(one, host, port)
    async with server:
        yield server.sockets[0].getsockname()


def answer(text: bytes) -> Handler:
    async def handler(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(text)
        await writer.drain()

    return handler


async def ask(host: str, port: int, data: bytes = b"") -> bytes:
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(data)
        writer.write_eof()
        return await reader.read()
    finally:
        writer.close()


async def eventually(host: str, port: int, expected: set[bytes]) -> set[bytes]:
    """Ask until each expected answer has been seen (an empty set: until refused)."""
    seen: set[bytes] = set()
    async with asyncio.timeout(10):
        while True:
            try:
                seen.add(await ask(host, port))
            except OSError:
                if not expected:
                    return set()
            if expected and seen >= expected:
                return seen
            await asyncio.sleep(0.02)


@pytest.fixture
async def proxy(client: Client) -> AsyncIterator[Callable[..., Events]]:
    """Starts a proxy; it ends with the test."""
    tasks: list[asyncio.Task[None]] = []

    def start(**options: Any) -> Events:
        cache, events = Cache(client), Events()
        tasks.append(asyncio.create_task(cache.run()))
        tasks.append(asyncio.create_task(ServiceProxy(client, cache, events, **options).run()))
        return events

    yield start
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def slices(client: Client) -> Resource:
    found = await client.discover("discovery.k8s.io", "EndpointSlice", "v1", "v1beta1")
    assert found is not None
    return found


def service(port: int) -> dict[str, Any]:
    return {"metadata": {"name": "svc"}, "spec": {"ports": [{"port": port}]}}


def endpoints(name: str, port: int, *addresses: str, ready: bool = True) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "labels": {"kubernetes.io/service-name": "svc"}},
        "addressType": "IPv4",
        "ports": [{"name": "", "port": port, "protocol": "TCP"}],
        "endpoints": [{"addresses": list(addresses), "conditions": {"ready": ready}}],
    }


async def test_a_cluster_ip_leads_to_ready_endpoints(
    proxy: Callable[..., Events], client: Client, namespace: str
) -> None:
    """Connections go round the ready endpoints; with none left the address refuses."""
    proxy()
    kind = await slices(client)
    made = await client.create(SERVICES, service(18080), namespace=namespace)
    ip = made["spec"]["clusterIP"]
    async with serving(answer(b"a"), "127.97.255.1", 18081), serving(answer(b"b"), "127.97.255.2", 18081):
        for name, address, ready in (
            ("one", "127.97.255.1", True),
            ("two", "127.97.255.2", True),
            ("three", "127.97.255.3", False),
        ):
            await client.create(kind, endpoints(name, 18081, address, ready=ready), namespace=namespace)
        both = await eventually(ip, 18080, {b"a", b"b"})
        for name in ("one", "two"):
            await client.delete(kind, name, namespace)
        await eventually(ip, 18080, set())

    assert both == {b"a", b"b"}


async def test_a_low_port_falls_back_to_a_mapped_one(
    proxy: Callable[..., Events], client: Client, namespace: str
) -> None:
    """Without the privilege for port 80 the service answers at 8080, and annotation and event say so."""

    def unprivileged(host: str, port: int) -> socket.socket:
        if port < 1024:
            raise PermissionError(13, "Permission denied")
        return listening_socket(host, port)

    events = proxy(bind=unprivileged)
    made = await client.create(SERVICES, service(80), namespace=namespace)
    ip = made["spec"]["clusterIP"]
    await client.create(await slices(client), endpoints("one", 9, "127.97.255.2"), namespace=namespace)

    async with asyncio.timeout(10):
        while True:
            found = (await client.get(SERVICES, "svc", namespace))["metadata"].get("annotations") or {}
            if ADDRESS_ANNOTATION in found:
                break
            await asyncio.sleep(0.02)

    assert found[ADDRESS_ANNOTATION] == f"{ip}:8080"
    assert any(f"{ip}:8080" in note for note in events.notes)


async def relayed(backends: list[tuple[str, int]], data: bytes) -> bytes:
    async def front(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await relay(reader, writer, backends)

    async with serving(front) as (host, port):
        return await ask(host, port, data)


async def test_half_closed_connections_go_on() -> None:
    """A client that has sent everything still gets a long answer."""

    async def count(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        length = len(await reader.read())
        writer.write(str(length).encode() + b"." * 500_000)
        await writer.drain()

    async with serving(count) as backend:
        reply = await relayed([backend], b"x" * 300_000)

    assert reply[:6] == b"300000"
    assert len(reply) == 500_006


async def test_a_dead_endpoint_is_passed_over() -> None:
    """The next endpoint serves when one refuses; when all refuse the client is reset, not left waiting."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        dead = closed.getsockname()
        async with serving(answer(b"alive")) as backend:
            assert await relayed([dead, backend], b"") == b"alive"
        with pytest.raises(ConnectionError):
            await relayed([dead], b"hello")
