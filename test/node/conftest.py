"""A node agent in this process, against the API server under test."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from kaito.local.node.agent import Agent, Options
from manager.client import Client
from manager.errors import NotFound
from manager.resources import NODES, PODS

TOKEN = "node-token"


class Node:
    """One agent that can be stopped and started anew, and what tests ask about its pods."""

    def __init__(self, server: Any, client: Client, state: Path) -> None:
        self.client = client
        self.name = f"node-{uuid.uuid4().hex[:8]}"
        self.state = state
        self.server = server
        self.agent: Agent
        self._stop = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self, **options: Any) -> None:
        """Start an agent and wait until its node is registered."""
        self._stop = asyncio.Event()
        wanted = Options(
            state=self.state,
            token=TOKEN,
            kubelet_port=0,
            node_delay=0.1,
            node_name=self.name,
            anonymous=True,
            shutdown_grace=1.0,
            **options,
        )
        self.agent = Agent(self.server.config, wanted)
        self._task = asyncio.create_task(self.agent.run(self._stop))
        ready = asyncio.create_task(self.agent.ready.wait())
        await asyncio.wait({self._task, ready}, return_when=asyncio.FIRST_COMPLETED)
        ready.cancel()
        if self._task.done():
            await self._task

    async def stop(self) -> None:
        """End the agent as SIGTERM does."""
        self._stop.set()
        if self._task is not None:
            await self._task
            self._task = None

    async def crash(self) -> None:
        """End the agent without any cleaning up, as SIGKILL does."""
        if self._task is not None:
            for worker in self.agent.workers:
                await worker.release()
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    def pod(self, name: str, *argv: str, **spec: Any) -> dict[str, Any]:
        """A pod of one container `c`, bound to the node."""
        container = {"name": "c", "image": "busybox", "command": list(argv), **spec.pop("container", {})}
        body = {"nodeName": self.name, "terminationGracePeriodSeconds": 1, "restartPolicy": "Never"}
        return {"metadata": {"name": name}, "spec": {**body, "containers": [container], **spec}}

    async def until(
        self, namespace: str, name: str, check: Callable[[dict[str, Any]], Any], seconds: float = 15
    ) -> dict[str, Any]:
        """The pod once `check` of its status is true."""
        found: dict[str, Any] = {}
        try:
            async with asyncio.timeout(seconds):
                while True:
                    found = await self.client.get(PODS, name, namespace)
                    if check(found.get("status") or {}):
                        return found
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise AssertionError(f"pod {name} did not get there: {found.get('status')}") from None

    async def until_gone(self, namespace: str, name: str, seconds: float = 10) -> None:
        """Wait until the pod object is gone."""
        async with asyncio.timeout(seconds):
            while True:
                try:
                    await self.client.get(PODS, name, namespace)
                except NotFound:
                    return
                await asyncio.sleep(0.05)


@pytest.fixture
async def node(api_server: Any, client: Client, tmp_path: Path) -> AsyncIterator[Node]:
    """A running node; at the end its containers are stopped and its Node object is deleted."""
    one = Node(api_server, client, tmp_path / "state")
    await one.start()
    yield one
    await one.stop()
    with contextlib.suppress(NotFound):
        await client.delete(NODES, one.name)


@pytest.fixture
async def client(api_server: Any) -> AsyncIterator[Client]:
    """A client of the API server under test."""
    async with Client(api_server.config) as opened:
        yield opened
    await asyncio.sleep(
        0.1
    )  # cancelled watches: TLS says goodbye in turns of the loop, which aiohttp does not await
