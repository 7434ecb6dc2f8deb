"""HTTP client of the local cloud, which the node agent of the embedded cluster serves.

In: calls of the Machine controller. Out: requests with a bearer token, and typed results. The local cloud
owns the instances and survives restarts of either side. Nothing is cached and nothing is retried here: the
controller decides when to ask again. No aiohttp exception leaves this module.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp

from provisioner.errors import AuthorizationFailed, CloudUnavailable
from provisioner.local import wire
from provisioner.protocol import Instance, InstanceRequest

_PREFIX = "local:///instances/"  # of the providerID of its nodes
_TIMEOUT = aiohttp.ClientTimeout(total=10, connect=3)  # loopback: slower than this is broken


class LocalProvider:
    """Simulated instances; implements :class:`provisioner.protocol.CloudProvider`."""

    name = "local"
    poll_interval = 1.0

    def __init__(self, url: str, token_file: Path | None, *, gpus_of: Mapping[str, int]) -> None:
        """Args:
        url: base URL of the local cloud.
        token_file: file with the bearer token, read for every request so that it may be replaced.
        gpus_of: number of GPUs of each known instance type.
        """
        self._url = url.rstrip("/")
        self._token_file = token_file
        self._gpus_of = gpus_of
        self._session: aiohttp.ClientSession | None = None

    def instance_name(self, machine: str, uid: str, provider_id: str = "") -> str:
        return machine

    def instance_of(self, node: Mapping[str, Any]) -> str:
        provider_id = str((node.get("spec") or {}).get("providerID") or "")
        return provider_id.removeprefix(_PREFIX) if provider_id.startswith(_PREFIX) else ""

    async def create(self, request: InstanceRequest) -> Instance:
        body = wire.create_body(request, self._capacity(request.instance_types[0]))
        path = f"/instances/{quote(request.name, safe='')}"
        return wire.parse_instance(await self._call("PUT", path, body, {"If-None-Match": "*"}))

    async def get(self, name: str) -> Instance:
        return wire.parse_instance(await self._call("GET", f"/instances/{quote(name, safe='')}"))

    async def resume(self, name: str, operation: str) -> Instance:
        return await self.get(name)  # the instance itself tells how its operation stands

    async def list(self) -> list[Instance]:
        body = await self._call("GET", "/instances")
        return [wire.parse_instance(item) for item in body.get("items") or []]

    async def delete(self, name: str) -> str:
        await self._call("DELETE", f"/instances/{quote(name, safe='')}")
        return ""

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _capacity(self, instance_type: str) -> dict[str, str]:
        # An unknown type of the N family is a GPU machine that our catalogue does not list yet.
        default = 1 if instance_type.startswith("Standard_N") else 0
        gpus = self._gpus_of.get(instance_type, default)
        return {"nvidia.com/gpu": str(gpus)} if gpus else {}

    async def _call(
        self, method: str, path: str, body: wire.Json | None = None, headers: Mapping[str, str] | None = None
    ) -> wire.Json:
        sent = {"Accept": "application/json", **self._authorization(), **(headers or {})}
        if body is not None:
            sent["Content-Type"] = "application/json"
        if self._session is None:
            # Proxies of the environment are ignored: the local cloud is on loopback.
            self._session = aiohttp.ClientSession(timeout=_TIMEOUT, trust_env=False)
        data = None if body is None else json.dumps(body).encode()
        try:
            async with self._session.request(method, self._url + path, data=data, headers=sent) as reply:
                payload = await reply.read()
                return wire.parse_reply(reply.status, reply.headers, payload)
        except (aiohttp.ClientError, TimeoutError, ValueError, OSError) as error:
            raise CloudUnavailable(
                f"the local cloud at {self._url} could not be asked: {error or type(error).__name__}",
                next_step="Start the node agent (kaito node), or correct --local-cloud-url.",
            ) from error

    def _authorization(self) -> dict[str, str]:
        if self._token_file is None:
            return {}
        try:
            return {"Authorization": f"Bearer {self._token_file.read_text().strip()}"}
        except OSError as error:
            raise AuthorizationFailed(
                f"the token file of the local cloud cannot be read: {error}",
                next_step="Correct --local-cloud-token-file.",
            ) from error
