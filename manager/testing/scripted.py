"""A scripted API server: what it answers next is decided by the test, one answer after the other.

For faults that no real server shows on request: 410, 429, broken streams, nonsense. It records every query. What a
test leaves unscripted hangs, as a dead peer would.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Script:
    """Answers requests from queues of handlers, one for lists and one for watches; records every query."""

    def __init__(self) -> None:
        self.lists: list[Handler] = []
        self.watches: list[Handler] = []
        self.seen: list[dict[str, str]] = []
        self.url = ""

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.seen.append({"path": request.path, "method": request.method, **request.query})
        queue = self.watches if request.query.get("watch") else self.lists
        if not queue:
            await asyncio.sleep(3600)  # the script is over: hang until the test ends
        return await queue.pop(0)(request)

    def queries(self, *, watch: bool) -> list[dict[str, str]]:
        """What was asked, lists or watches."""
        return [query for query in self.seen if bool(query.get("watch")) == watch]


def listing(*names: str, rv: str = "10", cont: str = "") -> Handler:
    """Answers a list of ConfigMaps."""

    async def handle(_: web.Request) -> web.StreamResponse:
        items = [config_map(name, "1") for name in names]
        metadata = {"resourceVersion": rv, **({"continue": cont} if cont else {})}
        return web.json_response({"kind": "ConfigMapList", "metadata": metadata, "items": items})

    return handle


def failing(status: int, reason: str = "", message: str = "", headers: dict[str, str] | None = None) -> Handler:
    """Answers with a Status."""

    async def handle(_: web.Request) -> web.StreamResponse:
        body = {"kind": "Status", "code": status, "reason": reason, "message": message}
        return web.json_response(body, status=status, headers=headers)

    return handle


def watching(*events: tuple[str, dict[str, Any]], hold: bool = False) -> Handler:
    """Answers a watch with events, then ends it, or holds it open."""

    async def handle(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for kind, obj in events:
            await response.write(json.dumps({"type": kind, "object": obj}).encode() + b"\n")
        if hold:
            await asyncio.sleep(3600)
        return response

    return handle


def config_map(name: str, rv: str, **data: str) -> dict[str, Any]:
    """A ConfigMap as a server would send it."""
    metadata = {"name": name, "namespace": "n", "resourceVersion": rv, "uid": f"uid-{name}"}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}
