"""An API server inside the test's own loop: no process to wait for, and its insides at hand."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from kaito.local.apiserver.server import ApiServer
from manager.client import Client


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[ApiServer]:
    """A fresh server without controllers."""
    async with ApiServer(tmp_path / "data", bookmark_seconds=0.2) as running:
        yield running


@pytest.fixture
async def client(server: ApiServer) -> AsyncIterator[Client]:
    """The administrator's client of ``server``."""
    async with Client(server.rest_config(), field_manager="test") as connected:
        yield connected
