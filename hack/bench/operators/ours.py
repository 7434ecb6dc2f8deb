"""The workload as an operator of our own framework, as its README would have it written.

Usage: python -m hack.bench.operators.ours KUBECONFIG WORKERS
"""

from __future__ import annotations

import asyncio
import sys

from manager import ControllerBuilder, Manager, NotFound, Request, Resource, Result, load_config

BENCHES = Resource("bench.kaito.sh", "v1", "benches", "Bench")


class Follower:
    """Makes the status follow the spec."""

    def __init__(self, manager: Manager) -> None:
        self.client = manager.client

    async def reconcile(self, request: Request) -> Result:
        """One look at one object."""
        try:
            bench = await self.client.get(BENCHES, request.name, request.namespace)
        except NotFound:
            return Result()
        value = bench["spec"]["value"]
        if (bench.get("status") or {}).get("observed") != value:
            patch = {"status": {"observed": value}}
            await self.client.patch(
                BENCHES, request.name, patch, namespace=request.namespace, subresource="status"
            )
        return Result()


async def operate(kubeconfig: str, workers: int) -> None:
    """Until the process is ended."""
    manager = Manager(await load_config(kubeconfig), name="bench")
    ControllerBuilder(manager).for_(BENCHES).options(max_concurrent=workers).build(Follower(manager))
    await manager.run(asyncio.Event())


if __name__ == "__main__":
    asyncio.run(operate(sys.argv[1], int(sys.argv[2])))
