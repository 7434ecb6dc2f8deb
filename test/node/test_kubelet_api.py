"""The kubelet API's door and the remote-command frames."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession, WSMsgType, web
from aiohttp.test_utils import TestClient, TestServer

from kaito.local.node.certs import server_context
from kaito.local.node.channels import Channels, Input, exit_status
from kaito.local.node.kubelet_api import kubelet_app


@pytest.fixture
async def http() -> AsyncIterator[TestClient[Any, Any]]:
    """The API of an agent without pods."""
    app = kubelet_app(lambda _namespace, _name: None, list, token="secret")
    async with TestClient(TestServer(app)) as client:
        yield client


@pytest.mark.parametrize("path", ["/pods", "/containerLogs/ns/p/c", "/exec/ns/p/c?command=id", "/nothing"])
async def test_strangers_are_turned_away(http: TestClient[Any, Any], path: str) -> None:
    """Without the token nothing is said, not even whether something exists."""
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic secret"}):
        assert (await http.get(path, headers=headers)).status == 401


async def test_the_token_opens_the_door(http: TestClient[Any, Any]) -> None:
    """With the token requests are answered; health needs none."""
    token = {"Authorization": "Bearer secret"}

    assert (await http.get("/healthz")).status == 200
    assert (await (await http.get("/pods", headers=token)).json())["items"] == []
    missing = await http.get("/containerLogs/ns/p/c", headers=token)
    assert (missing.status, await missing.text()) == (404, 'pod "p" is not on this node')


async def test_a_client_certificate_of_the_authority_opens_it_too(tmp_path: Path) -> None:
    """The API server may prove itself by a certificate instead of a token."""
    context = server_context(tmp_path, "node", None)
    again = server_context(tmp_path, "node", tmp_path / "kubelet.crt")
    app = kubelet_app(lambda _namespace, _name: None, list, token="secret")
    server = TestServer(app)
    await server.start_server(ssl=again)
    context_of_client = __import__("ssl").create_default_context(cafile=str(tmp_path / "kubelet.crt"))
    try:
        async with ClientSession() as session:
            url = f"https://localhost:{server.port}/pods"
            async with session.get(url, ssl=context_of_client) as anonymous:
                without = anonymous.status
    finally:
        await server.close()

    assert context is not again
    assert without == 401


async def test_frames_are_channels() -> None:
    """Stdin, size and the end of input arrive as such; output and the final status go out on their channels."""
    got: list[Input] = []

    async def handler(request: web.Request) -> web.StreamResponse:
        channels = await Channels.accept(request)
        async for item in channels.input():
            got.append(item)
            if item.end:
                break
        await channels.send(1, b"out")
        await channels.finish(exit_status(5))
        return channels.response

    app = web.Application()
    app.router.add_get("/", handler)
    async with TestClient(TestServer(app)) as client:
        socket = await client.ws_connect("/", protocols=("v5.channel.k8s.io",))
        for frame in (b"\x00typed", b'\x04{"Width":80,"Height":24}', b"\x00", b"\x04junk", b"\xff\x00"):
            await socket.send_bytes(frame)
        frames = [m.data async for m in socket if m.type is WSMsgType.BINARY]
        plain = await client.get("/")

    assert socket.protocol == "v5.channel.k8s.io"
    assert got == [Input(data=b"typed"), Input(size=(24, 80)), Input(end=True)]
    assert frames[:2] == [b"\x01", b"\x01out"]
    assert json.loads(frames[2][1:])["details"]["causes"] == [{"reason": "ExitCode", "message": "5"}]
    assert plain.status == 400
