"""What an import of the framework costs: the command line pays for it at every start."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("manager.client", {"kubernetes_asyncio", "aiohttp", "prometheus_client"}),
        ("manager.kubeconfig", {"kubernetes_asyncio", "aiohttp"}),
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
