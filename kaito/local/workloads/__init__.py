"""The controllers that Kubernetes itself would run, and its scheduler, on our own framework.

In: an API server, the embedded one or kube-apiserver. Out: Deployments that become pods on nodes, Services with
endpoints, Jobs that end, namespaces and owners whose contents go with them. Each controller is a folder or a
file: ``decide`` is pure, the reconciler observes and acts. All of them share one manager and its cache, and none
knows of workspaces, machines or the node agent. State lives in the API server only; a restart loses nothing.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from manager.config import RestConfig


async def run(config: RestConfig, stop: asyncio.Event) -> None:
    """Run all controllers until ``stop`` is set.

    The server may still be starting. No leader election: this is for a server that has no other controllers.

    Raises:
        ManagerError: the server refuses us, or a controller failed beyond retry.
    """
    from .composition import run_controllers  # imports the framework, which commands that do not run it need not

    await run_controllers(config, stop)
