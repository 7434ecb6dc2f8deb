"""The machines behind the stand-in's agent pools: instances of the local cloud, played by the node agent.

In: a Node object that AKS would have registered. Out: calls of the node agent's own HTTP API, until the agent has
registered the node, or has taken it away. The agent owns what happens then. An agent that is away, or starts
anew, is waited for: an operation of a cloud takes as long as it takes.
"""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp

from api import catalog, keys

log = logging.getLogger("kaito.local.fakearm.machines")

Json = dict[str, Any]
_POLL = 0.2
_TIMEOUT = aiohttp.ClientTimeout(total=10, connect=3)


class LocalMachines:
    """Use as an async context manager; :meth:`on_node` is what :class:`FakeArm` calls."""

    def __init__(self, url: str, token_file: Path) -> None:
        self._url = url.rstrip("/")
        self._token_file = token_file
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> LocalMachines:
        self._session = aiohttp.ClientSession(timeout=_TIMEOUT, trust_env=False)
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._session is not None:
            await self._session.close()

    async def on_node(self, event: str, node: Json) -> None:
        """Bring a machine up, or take it away; returns when that is done."""
        path = f"/instances/{quote(node['metadata']['name'], safe='')}"
        if event == "deleted":
            while await self._call("DELETE", path) != 404:
                await asyncio.sleep(_POLL)
            return
        body = instance_body(node)
        while await self._call("PUT", path, body) not in (201, 412):
            await asyncio.sleep(_POLL)

    async def _call(self, method: str, path: str, body: Json | None = None) -> int:
        """The status of the answer; 0 where there is none."""
        if self._session is None:
            raise RuntimeError("use it as an async context manager")
        headers = {"Authorization": f"Bearer {self._token_file.read_text().strip()}"}
        if method == "PUT":
            headers["If-None-Match"] = "*"
        try:
            async with self._session.request(method, self._url + path, json=body, headers=headers) as reply:
                return reply.status
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            log.info("node agent does not answer: %s", error)
            return 0


def instance_body(node: Json) -> Json:
    """A Node as the local cloud's instance, with the GPUs that the catalogue knows of its type."""
    labels = dict(node["metadata"]["labels"])
    instance_type = labels[keys.INSTANCE_TYPE_LABEL]
    sku = catalog.sku(instance_type)
    gpus = sku.gpus if sku else int(instance_type.startswith("Standard_N"))
    return {
        "instanceType": instance_type,
        "labels": labels,
        "taints": list(node["spec"].get("taints") or []),
        "capacity": {keys.GPU_RESOURCE: str(gpus)} if gpus else {},
        "providerID": node["spec"]["providerID"],
    }
