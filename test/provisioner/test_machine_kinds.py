"""`kaito manager --controllers=machine` on clusters that lack one CRD or all of them."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from api.crds import machine_crd, nodeclaim_crd
from controllers.resources import MACHINES, NODECLAIMS, WORKSPACES
from kaito.local.cluster import put
from kaito.local.fakearm import Rules
from manager.client import Client
from manager.errors import ApiError, NotFound
from manager.resources import CRDS, NODES
from manager.types import Resource

pytestmark = pytest.mark.timeout(120)
Json = dict[str, Any]
_KINDS = (WORKSPACES, MACHINES, NODECLAIMS)


async def remove(client: Client, resource: Resource) -> None:
    """Take a kind away, with all that is left of it."""
    try:
        for item in (await client.list(resource)).items:
            await client.patch(
                resource,
                item["metadata"]["name"],
                {"metadata": {"finalizers": None}},
                namespace=item["metadata"].get("namespace"),
            )
        await client.delete(CRDS, f"{resource.plural}.{resource.group}")
    except NotFound:
        return
    while await client.discover(resource.group, resource.kind, resource.version) is not None:
        await asyncio.sleep(0.05)


async def install(client: Client, resource: Resource, crd: Json) -> None:
    """The CRD is applied again until its kind is served: one of that name may still be going."""
    while True:
        try:
            await put(client, CRDS, crd)
            await client.list(resource, limit=1)
        except ApiError:
            await asyncio.sleep(0.1)
            continue
        return


@asynccontextmanager
async def command(kubeconfig: Any, azure: Any, tmp_path: Any) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "kaito", "manager", "--controllers=machine", "--provider=azure"),
        *(f"--kubeconfig={kubeconfig}", "--metrics-bind=0", "--health-bind=0", "--log-level=warning"),
        env={**os.environ, **azure.environment(tmp_path)},
    )
    try:
        yield process
        process.terminate()
        assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def claim(name: str, kind: Resource) -> Json:
    requirement = {"key": "node.kubernetes.io/instance-type", "operator": "In", "values": ["Standard_NC6s_v3"]}
    spec: Json = {"requirements": [requirement]}
    if kind is NODECLAIMS:
        spec["nodeClassRef"] = {"group": "kaito.sh", "kind": "KaitoNodeClass", "name": "default"}
    return {"metadata": {"name": name, "labels": {"kaito.sh/workspace": "w"}}, "spec": spec}


async def is_launched(client: Client, kind: Resource, name: str) -> bool:
    status = (await client.get(kind, name)).get("status") or {}
    return any(
        item["type"] in ("Launched", "MachineLaunched") and item["status"] == "True"
        for item in status.get("conditions") or []
    )


async def until(check: Any) -> None:
    async with asyncio.timeout(60):
        while not await check():
            await asyncio.sleep(0.05)


@pytest.mark.acceptance("PV-kinds-absent", "PV-kinds-late")
async def test_kinds_are_served_as_they_appear(
    api_server: Any, azure_with: Any, namespace: str, tmp_path: Any
) -> None:
    """Started with no CRD at all: it stays; NodeClaims are served once they exist, Machines when they come, and
    Workspaces are never asked for. Takes the start of a process and its looks, five seconds apart."""

    async def on_node(event: str, node: Json) -> None:
        if event == "added":
            await client.create(NODES, node)

    async with Client(api_server.config) as client:
        for kind in _KINDS:
            await remove(client, kind)
        azure = await azure_with(Rules(create_seconds=0.1, delete_seconds=0.1, retry_after=1), on_node=on_node)
        try:
            async with command(api_server.kubeconfig, azure, tmp_path) as process:
                for kind, crd in ((NODECLAIMS, nodeclaim_crd()), (MACHINES, machine_crd())):
                    await install(client, kind, crd)
                    name = f"ws{namespace[-9:]}"
                    await client.create(kind, claim(name, kind))
                    await until(lambda kind=kind, name=name: is_launched(client, kind, name))
                assert process.returncode is None
            assert len(azure.arm.pools.pools) == 2
        finally:
            for kind in _KINDS:
                await remove(client, kind)
            for node in (await client.list(NODES, label_selector="agentpool")).items:
                await client.delete(NODES, node["metadata"]["name"])
                await client.patch(NODES, node["metadata"]["name"], {"metadata": {"finalizers": None}})
