"""What is written is what is read: any Workspace that is admitted comes back from the API server unchanged."""

from __future__ import annotations

import asyncio
import os
import uuid
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest
from hypothesis import HealthCheck, Phase, given, settings

from api.crds import workspace_crd
from api.testing.strategies import accepted
from api.v1alpha1 import Workspace
from api.validation import judge
from controllers.resources import WORKSPACES
from kaito.local.cluster import put
from manager.client import Client
from manager.errors import ApiError
from manager.resources import CRDS

if TYPE_CHECKING:
    from conftest import Server

Obj = dict[str, Any]
COUNT = 500 if os.environ.get("KAITO_SOAK") else 40
PARTS = ("resource", "inference", "tuning")


def examples(count: int, seed: int) -> list[Obj]:
    """So many admitted Workspaces."""
    found: list[Obj] = []

    @hypothesis.seed(seed)
    @settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(accepted())
    def collect(obj: Obj) -> None:
        found.append(obj)

    collect()
    return found


def test_they_are_admitted(seed: int) -> None:
    """The generator keeps its promise, and the typed view reads each of them."""
    for obj in examples(4 * COUNT, seed):
        assert judge(obj).violations == (), obj
        assert Workspace.parse(obj).name == obj["metadata"]["name"]


@pytest.mark.timeout(600)
async def test_a_workspace_comes_back_unchanged(crd_server: Server, namespace: str, seed: int) -> None:
    """Nothing is pruned, defaulted or rewritten, templates included; writing it again is no change."""
    async with Client(crd_server.config) as client:
        await put(client, CRDS, workspace_crd())
        await _served(client)
        for obj in examples(COUNT, seed):
            name = f"w-{uuid.uuid4().hex[:12]}"
            where = f"/apis/{obj['apiVersion']}/namespaces/{namespace}/workspaces"
            await client.request("POST", where, body=obj | {"metadata": {"name": name, "namespace": namespace}})

            for version in ("v1alpha1", "v1beta1"):
                path = f"/apis/kaito.sh/{version}/namespaces/{namespace}/workspaces/{name}"
                read = await client.request("GET", path)
                for part in PARTS:
                    assert read.get(part) == obj.get(part), (read.get(part), obj.get(part))
            path = f"/apis/{obj['apiVersion']}/namespaces/{namespace}/workspaces/{name}"
            read = await client.request("GET", path)
            again = await client.request("PUT", path, body=read)
            assert again["metadata"]["resourceVersion"] == read["metadata"]["resourceVersion"], (again, read)
            await client.delete(WORKSPACES, name, namespace)


async def _served(client: Client) -> None:
    async with asyncio.timeout(60):
        while True:
            try:
                await client.text("/apis/kaito.sh/v1beta1/workspaces")
            except ApiError:
                await asyncio.sleep(0.02)
            else:
                return
