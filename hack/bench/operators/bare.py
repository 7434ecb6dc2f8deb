"""The floor: the workload with asyncio, aiohttp and orjson alone. No cache, no queue, no retry, no resync.

It lists once, watches, and patches. It shows what the server and the HTTP library cost by themselves; an operator
like this would lose work at the first error.

Usage: python -m hack.bench.operators.bare KUBECONFIG WORKERS
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import aiohttp
import orjson

from hack.bench.operators.connection import connection


async def operate(kubeconfig: Path, workers: int) -> None:
    """Patch every object whose status is behind, for ever."""
    server, headers, tls = connection(kubeconfig)
    base = f"{server}/apis/bench.kaito.sh/v1/namespaces/bench/benches"
    patch_headers = {"Content-Type": "application/merge-patch+json"}
    todo: asyncio.Queue[tuple[str, Any]] = asyncio.Queue()
    connector = aiohttp.TCPConnector(ssl=tls, limit=0)
    async with aiohttp.ClientSession(connector=connector, headers=headers, read_bufsize=2**20) as session:

        async def work() -> None:
            while True:
                name, value = await todo.get()
                body = orjson.dumps({"status": {"observed": value}})
                async with session.patch(f"{base}/{name}/status", data=body, headers=patch_headers) as reply:
                    reply.raise_for_status()
                    orjson.loads(await reply.read())

        def look(obj: dict[str, Any]) -> None:
            value = obj["spec"]["value"]
            if (obj.get("status") or {}).get("observed") != value:
                todo.put_nowait((obj["metadata"]["name"], value))

        async with asyncio.TaskGroup() as group:
            for _ in range(workers):
                group.create_task(work())
            async with session.get(f"{base}?resourceVersion=0") as reply:
                listed = orjson.loads(await reply.read())
            for item in listed["items"]:
                look(item)
            version = listed["metadata"]["resourceVersion"]
            del listed
            while True:
                query = f"?watch=true&allowWatchBookmarks=true&timeoutSeconds=500&resourceVersion={version}"
                async with session.get(base + query, timeout=aiohttp.ClientTimeout(total=None)) as reply:
                    rest = b""
                    async for chunk in reply.content.iter_any():
                        *lines, rest = (rest + chunk).split(b"\n")
                        for line in lines:
                            event = orjson.loads(line)
                            version = event["object"]["metadata"]["resourceVersion"]
                            if event["type"] != "BOOKMARK":
                                look(event["object"])


if __name__ == "__main__":
    asyncio.run(operate(Path(sys.argv[1]), int(sys.argv[2])))
