"""The scripted server of ``manager.testing.scripted``, running, and a client of it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from manager.client import Client
from manager.config import RestConfig
from manager.testing.controlplane import assets
from manager.testing.scripted import Script

_folder = assets()
if _folder is None or not (_folder / "apiextensions-apiserver").exists():
    collect_ignore = ["test_webhooks_on_the_newest.py"]  # it is about that server and nothing else


@pytest.fixture
async def script() -> AsyncIterator[Script]:
    """The server's script; the server runs."""
    written = Script()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", written.answer)
    server = TestServer(app)
    await server.start_server(shutdown_timeout=0)
    written.url = str(server.make_url("")).rstrip("/")
    yield written
    await server.close()


@pytest.fixture
async def client(script: Script) -> AsyncIterator[Client]:
    """A client of the scripted server."""
    async with Client(RestConfig(server=script.url, token="secret-token")) as opened:
        yield opened
