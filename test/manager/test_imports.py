"""What an import of the framework costs: the command line pays for it at every start."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("manager.client", {"kubernetes_asyncio", "aiohttp", "prometheus_client", "yaml", "jsonpatch"}),
        ("manager.kubeconfig", {"kubernetes_asyncio", "aiohttp", "yaml"}),
        ("manager.manager", {"kubernetes_asyncio"}),
    ],
)
def test_heavy_libraries_are_imported_only_when_used(module: str, absent: set[str]) -> None:
    """kubernetes_asyncio costs 1.6 s and 112 MB, aiohttp 0.3 s."""
    code = f"import sys, {module}; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()

    assert absent.isdisjoint(loaded)


def test_a_plain_kubeconfig_and_a_request_need_no_heavy_library(tmp_path: Path) -> None:
    """A token and an address are data: reading them does not import a package of thousands of models."""
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(
        "current-context: c\nclusters: [{name: c, cluster: {server: 'http://127.0.0.1:1'}}]\n"
        "users: [{name: c, user: {token: t}}]\ncontexts: [{name: c, context: {cluster: c, user: c}}]\n"
    )
    code = f"""
import asyncio, sys
from manager import Client, ConnectionFailed, load_config
async def main():
    async with Client(await load_config({str(kubeconfig)!r})) as client:
        try:
            await client.text("/readyz")
        except ConnectionFailed:
            print(*sys.modules)
asyncio.run(main())
"""
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()

    assert "aiohttp" in loaded
    assert {"kubernetes_asyncio", "prometheus_client", "jsonpatch"}.isdisjoint(loaded)
