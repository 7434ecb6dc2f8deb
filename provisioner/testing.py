"""For tests: a local cloud in memory that speaks the real wire, and the contract of every provider.

In: HTTP requests of a ``LocalProvider``, and a test that moves instances along. Out: the replies that the
node agent gives, and ``on_change``, called after every change of state so that a test can play the node. The
fake owns its instances; it never talks to Kubernetes and has no timers: an instance stays ``Creating`` until
the test calls :meth:`FakeLocalCloud.finish`, or becomes ``Running`` within the same request with ``auto``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Self

from aiohttp import web

from provisioner.contract import CONTRACT, ContractBroken, Subject

__all__ = ["CONTRACT", "ContractBroken", "FakeLocalCloud", "Fault", "Subject"]

Json = dict[str, Any]
OnChange = Callable[[Json], Awaitable[None]]


@dataclass
class Fault:
    """One prepared failure: the next ``times`` calls of ``operation`` answer it."""

    operation: str
    code: str
    message: str = ""
    times: int = 1
    status: int = 409
    retry_after: int | None = None


@dataclass
class FakeLocalCloud:
    """Instances by name. Use as an async context manager; ``url`` is valid inside it.

    Attributes:
        auto: finish creations and deletions at once instead of waiting for the test.
        creates: names of accepted creations, in order; the proof that nothing was created twice.
    """

    token: str = "token"  # noqa: S105 - a fake on loopback
    auto: bool = True
    on_change: OnChange | None = None
    instances: dict[str, Json] = field(default_factory=dict)
    faults: deque[Fault] = field(default_factory=deque)
    creates: list[str] = field(default_factory=list)
    url: str = ""
    _runner: web.AppRunner | None = None

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_put("/instances/{name}", self._create)
        app.router.add_get("/instances/{name}", self._get)
        app.router.add_get("/instances", self._list)
        app.router.add_delete("/instances/{name}", self._delete)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def finish(self, name: str, failure: Json | None = None) -> None:
        """End what is under way: ``Creating`` becomes ``Running`` (or ``Failed``), ``Deleting`` is gone."""
        instance = self.instances[name]
        if instance["state"] == "Deleting":
            del self.instances[name]
            instance = {**instance, "state": "Gone"}
        else:
            instance |= {"state": "Failed" if failure else "Running", "error": failure}
        if self.on_change is not None:
            await self.on_change(instance)

    async def _create(self, request: web.Request) -> web.Response:
        if refused := self._refuse(request, "create"):
            return refused
        name, body = request.match_info["name"], await request.json()
        if request.headers.get("If-None-Match") == "*" and name in self.instances:
            return _error(412, "InstanceExists", f"instance {name} exists")
        self.creates.append(name)
        self.instances[name] = {
            "name": name,
            "instanceType": body["instanceType"],
            "state": "Creating",
            "providerID": f"local:///instances/{name}",
            "nodeName": name,
            "createdAt": "2026-01-01T00:00:00Z",
            "error": None,
            "request": body,
        }
        reply = web.json_response(self.instances[name], status=201)
        if self.auto:
            await self.finish(name)
        return reply

    async def _get(self, request: web.Request) -> web.Response:
        if refused := self._refuse(request, "get"):
            return refused
        name = request.match_info["name"]
        if name not in self.instances:
            return _error(404, "NotFound", f"no instance {name}")
        return web.json_response(self.instances[name])

    async def _list(self, request: web.Request) -> web.Response:
        return self._refuse(request, "get") or web.json_response({"items": list(self.instances.values())})

    async def _delete(self, request: web.Request) -> web.Response:
        if refused := self._refuse(request, "delete"):
            return refused
        name = request.match_info["name"]
        if name not in self.instances:
            return _error(404, "NotFound", f"no instance {name}")
        self.instances[name]["state"] = "Deleting"
        if self.auto:
            await self.finish(name)
        return web.json_response({}, status=202)

    def _refuse(self, request: web.Request, operation: str) -> web.Response | None:
        if request.headers.get("Authorization") != f"Bearer {self.token}":
            return _error(401, "AuthorizationFailed", "wrong bearer token")
        for fault in self.faults:
            if fault.operation == operation and fault.times > 0:
                fault.times -= 1
                headers = {} if fault.retry_after is None else {"Retry-After": str(fault.retry_after)}
                return _error(fault.status, fault.code, fault.message, headers)
        return None


def _error(status: int, code: str, message: str, headers: dict[str, str] | None = None) -> web.Response:
    body = {"error": {"code": code, "message": message}}
    return web.json_response(body, status=status, headers=headers or {})
