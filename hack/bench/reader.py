"""Reads a replayed collection and prints one JSON line: what it cost. Runs in a process of its own.

``ours``: manager, cache, informer, handler, queue. ``limit``: the HTTP library's line reader and orjson, nothing
kept. ``dicts``: one list, decoded and kept as it came.

Usage: python -m hack.bench.reader ours|limit|dicts URL KIND OBJECTS EVENTS
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import sys
import time
from typing import Any

from hack.bench.facts import usage


async def ours(url: str, kind: str, objects: int, events: int) -> dict[str, float]:
    """From the wire into the queue of a controller that has no workers."""
    from manager.config import RestConfig
    from manager.handlers import enqueue_self
    from manager.manager import Manager
    from manager.queue import PriorityQueue
    from manager.resources import PODS
    from manager.types import Request, Resource

    resource = PODS if kind == "pod" else Resource("bench.kaito.sh", "v1", "benches", "Bench")
    manager = Manager(RestConfig(server=url), metrics_bind="0")
    queue: PriorityQueue[Request] = PriorityQueue()
    found: dict[str, float] = {}
    before, seen, began = usage(os.getpid()), 0, 0.0
    done = asyncio.Event()

    def count(event: Any) -> None:
        nonlocal seen, began
        enqueue_self(event, queue)
        seen += 1
        if seen == objects:
            gc.collect()
            now = usage(os.getpid())
            found["rss_kib_per_object"] = (now.rss - before.rss) * 1024 / objects
            began = time.perf_counter()
            if not events:
                done.set()
        elif seen == objects + events:
            done.set()

    manager.cache.informer(resource).add_handler(count)
    stop = asyncio.Event()
    running = asyncio.create_task(manager.run(stop))
    await done.wait()
    found["seconds"] = time.perf_counter() - began
    stop.set()
    await running
    return found


async def limit(url: str, kind: str, objects: int, events: int) -> dict[str, float]:
    """Lines off the wire, decoded and dropped."""
    import aiohttp
    import orjson

    async with aiohttp.ClientSession(read_bufsize=2**20) as session, session.get(f"{url}/x?watch=true") as reply:
        began = time.perf_counter()
        for _ in range(events):
            orjson.loads(await reply.content.readline())
        return {"seconds": time.perf_counter() - began}


async def dicts(url: str, kind: str, objects: int, events: int) -> dict[str, float]:
    """A list as orjson makes it, kept."""
    import aiohttp
    import orjson

    async with aiohttp.ClientSession() as session:
        before = usage(os.getpid())
        async with session.get(f"{url}/x") as reply:
            kept = orjson.loads(await reply.read())
        gc.collect()
        now = usage(os.getpid())
        return {"rss_kib_per_object": (now.rss - before.rss) * 1024 / len(kept["items"])}


if __name__ == "__main__":
    reader = {"ours": ours, "limit": limit, "dicts": dicts}[sys.argv[1]]
    print(json.dumps(asyncio.run(reader(sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5])))))
