"""Logs, exec and attach through the API server, with a small kubelet in the test."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from kaito.local.apiserver.server import ApiServer
from kaito.local.pki import Authority
from manager.client import Client
from manager.errors import ApiError, BadRequest, NotFound
from manager.resources import NODES, PODS

PROTOCOL = "v5.channel.k8s.io"


@dataclass
class Kubelet:
    """Answers like a node agent and remembers what it was asked."""

    port: int = 0
    seen: list[tuple[str, str, str]] = field(default_factory=list)
    status: int = 200
    go: asyncio.Event = field(default_factory=asyncio.Event)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        self.seen.append((request.path, request.query_string, request.headers.get("Authorization", "")))
        if self.status != 200:
            return web.Response(status=self.status, text="the container is waiting to start")
        if request.path.startswith("/containerLogs"):
            response = web.StreamResponse()
            await response.prepare(request)
            await response.write(b"first\n")
            if "follow" in request.query:
                await self.go.wait()
            await response.write(b"\xff\x00 last\n")
            return response
        socket = web.WebSocketResponse(protocols=[PROTOCOL])
        await socket.prepare(request)
        async for message in socket:
            if message.type is aiohttp.WSMsgType.BINARY:
                if message.data == b"\xff\x00":  # stdin is closed
                    await socket.send_bytes(b'\x03{"status":"Success"}')
                    break
                await socket.send_bytes(b"\x01" + message.data[1:].upper())
        await socket.close()
        return socket


@pytest.fixture
async def kubelet(server: ApiServer, client: Client, tmp_path: Path) -> AsyncIterator[Kubelet]:
    pair = Authority(tmp_path / "node-pki").server("kubelet", ["127.0.0.1"])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate, pair.key)
    agent = Kubelet()
    runner = web.ServerRunner(web.Server(agent.handle), shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    agent.port = runner.addresses[0][1]
    await client.create(
        NODES,
        {
            "metadata": {"name": "n1"},
            "status": {
                "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
                "daemonEndpoints": {"kubeletEndpoint": {"Port": agent.port}},
            },
        },
    )
    containers = [{"name": "main", "image": "x"}]
    await client.create(
        PODS,
        {"metadata": {"name": "p"}, "spec": {"nodeName": "n1", "containers": containers}},
        namespace="default",
    )
    yield agent
    await runner.cleanup()


def token(server: ApiServer) -> str:
    return "Bearer " + (server.data_dir / "kubelet-token").read_text().strip()


async def test_logs_come_from_the_pods_node(server: ApiServer, client: Client, kubelet: Kubelet) -> None:
    """The container is chosen, options are handed on, the agent's secret is shown, bytes stay as they are."""
    path = PODS.path("default", "p", "log")
    async with (
        aiohttp.ClientSession(headers={"Authorization": f"Bearer {server.token}"}) as session,
        session.get(f"{server.url}{path}?tailLines=5", ssl=False) as response,
    ):
        body = await response.read()

    assert body == b"first\n\xff\x00 last\n"
    assert kubelet.seen == [("/containerLogs/default/p/main", "tailLines=5", token(server))]


async def test_followed_logs_arrive_as_they_are_written(client: Client, kubelet: Kubelet) -> None:
    """A line is delivered before the next one exists."""
    lines = client.stream_lines(PODS.path("default", "p", "log"), query={"follow": True})
    async with asyncio.timeout(5):
        first = await anext(lines)
        kubelet.go.set()
        rest = [line async for line in lines]

    assert first.strip() == b"first"
    assert len(rest) == 1


async def test_what_the_agent_refuses_the_client_sees(client: Client, kubelet: Kubelet) -> None:
    """The agent's status and words become the client's error."""
    kubelet.status = 400
    with pytest.raises(BadRequest, match="waiting to start"):
        await client.text(PODS.path("default", "p", "log"))


async def test_requests_that_cannot_be_handed_on(client: Client, kubelet: Kubelet) -> None:
    """No node, no such container, no such pod, no agent: each says so."""
    containers = [{"name": "a", "image": "x"}, {"name": "b", "image": "x"}]
    await client.create(
        PODS, {"metadata": {"name": "free"}, "spec": {"containers": containers}}, namespace="default"
    )

    with pytest.raises(BadRequest, match=r"a container name must be specified .* \[a b\]"):
        await client.text(PODS.path("default", "free", "log"))
    with pytest.raises(BadRequest, match="does not have a host"):
        await client.text(PODS.path("default", "free", "log"), query={"container": "a"})
    with pytest.raises(BadRequest, match="container zz is not valid"):
        await client.text(PODS.path("default", "p", "log"), query={"container": "zz"})
    with pytest.raises(NotFound):
        await client.text(PODS.path("default", "absent", "log"))
    endpoint = {"status": {"daemonEndpoints": {"kubeletEndpoint": {"Port": 1}}}}
    await client.patch(NODES, "n1", endpoint, subresource="status")
    with pytest.raises(ApiError, match="error dialing the node agent"):
        await client.text(PODS.path("default", "p", "log"))


async def test_exec_joins_two_sockets(server: ApiServer, kubelet: Kubelet) -> None:
    """Messages pass both ways unchanged, repeated parameters and the subprotocol too, until the agent closes."""
    path = PODS.path("default", "p", "exec")
    async with (
        aiohttp.ClientSession(headers={"Authorization": f"Bearer {server.token}"}) as session,
        session.ws_connect(
            f"{server.url}{path}?command=sh&command=-c&stdin=true",
            ssl=False,
            protocols=[PROTOCOL, "v4.channel.k8s.io"],
        ) as socket,
    ):
        await socket.send_bytes(b"\x00hello")
        first = await socket.receive(5)
        await socket.send_bytes(b"\xff\x00")
        second = await socket.receive(5)
        end = await socket.receive(5)
        chosen = socket.protocol

    assert (first.data, second.data) == (b"\x01HELLO", b'\x03{"status":"Success"}')
    assert end.type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED)
    assert chosen == PROTOCOL
    assert kubelet.seen == [("/exec/default/p/main", "command=sh&command=-c&stdin=true", token(server))]


async def test_exec_without_a_websocket_says_what_is_needed(client: Client, kubelet: Kubelet) -> None:
    """A plain request for exec is refused with the reason."""
    with pytest.raises(BadRequest, match="needs a WebSocket"):
        await client.request("POST", PODS.path("default", "p", "exec"), query={"command": "sh"})
