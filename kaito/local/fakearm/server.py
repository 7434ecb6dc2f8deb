"""The HTTP side: ARM's paths for agent pools and their operations, over TLS, with the declared misbehaviour.

In: requests of the Azure SDK. Out: replies in ARM's formats, and a journal of both. The pools are ``Pools``'; here
is only what a gateway adds: who is asking, how often, and what gets lost on the way. Operations end after the
seconds that the rules say, by the event loop's clock, or when ``finish`` is called.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from aiohttp import web

from kaito.local.fakearm import account
from kaito.local.fakearm.answers import ANSWERS, Answer
from kaito.local.fakearm.faults import Fault, Rules, Throttle, Verb
from kaito.local.fakearm.identity import Identity
from kaito.local.fakearm.journal import Exchange, Journal
from kaito.local.fakearm.pools import KUBERNETES, OnNode, Operation, Pools
from kaito.local.fakearm.state import load, save

Json = dict[str, Any]
_CLUSTER = (
    "/subscriptions/{subscription}/resourceGroups/{group}/providers/Microsoft.ContainerService"
    "/managedClusters/{cluster}"
)
_OPERATIONS = "/subscriptions/{subscription}/providers/Microsoft.ContainerService/locations/{location}/operations"
_COMPUTE = "/subscriptions/{subscription}/providers/Microsoft.Compute"
_OPERATIONS_VERSION = "2017-08-31"  # AKS's operations have an api-version of their own


class FakeArm:
    """One subscription with one AKS cluster. Use as an async context manager; ``url`` is valid inside it."""

    def __init__(
        self,
        certificate: Path,
        key: Path,
        *,
        rules: Rules | None = None,
        on_node: OnNode | None = None,
        subscription: str = "00000000-0000-0000-0000-000000000001",
        group: str = "kaito-rg",
        cluster: str = "kaito",
        location: str = "eastus",
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        host: str = "127.0.0.1",
        port: int = 0,
        plain_port: int = 0,
        state: Path | None = None,
    ) -> None:
        """Args:
        certificate, key: of the server; the names in it must cover ``host``.
        on_node: called before an operation ends well, with "added" or "deleted" and the Node object.
        plain_port: of the metadata service and ``/healthz``, over plain HTTP.
        state: file that keeps pools, operations and tokens over a restart.
        """
        self.rules = rules or Rules()
        self.journal = Journal()
        self.identity = Identity()
        self.pools = Pools(subscription, group, cluster, location, on_node)
        self._state = state
        self.url = ""
        self.metadata_url = ""  # of the machine's metadata service, which is plain HTTP
        self._files = (certificate, key)
        self._address = (host, port, plain_port)
        self._now = now
        self._buckets: dict[str, tuple[float, float]] = {}
        self._ending: set[asyncio.Task[None]] = set()
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_get(_CLUSTER + "/agentPools", self._serve("list", self._list))
        app.router.add_get(_CLUSTER + "/agentPools/{pool}", self._serve("get", self._get))
        app.router.add_put(_CLUSTER + "/agentPools/{pool}", self._serve("put", self._put))
        app.router.add_delete(_CLUSTER + "/agentPools/{pool}", self._serve("delete", self._delete))
        app.router.add_get(_OPERATIONS + "/{id}", self._serve("poll", self._poll))
        app.router.add_get(_CLUSTER, self._serve("cluster", self._cluster))
        app.router.add_get(
            _CLUSTER + "/providers/Microsoft.Authorization/permissions",
            self._serve("permissions", self._permissions),
        )
        app.router.add_get(_COMPUTE + "/locations/{location}/usages", self._serve("usages", self._usages))
        app.router.add_get(_COMPUTE + "/skus", self._serve("skus", self._skus))
        app.router.add_get("/healthz", _healthy)
        app.add_routes(self.identity.routes())
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(*self._files)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        host, port, plain_port = self._address
        await web.TCPSite(self._runner, host, port, ssl_context=context).start()
        await web.TCPSite(self._runner, host, plain_port).start()
        (_, secure), (_, plain) = (address[:2] for address in self._runner.addresses)
        self.url, self.metadata_url = f"https://{host}:{secure}", f"http://{host}:{plain}"
        self._take_up()
        return self

    async def __aexit__(self, *exc: object) -> None:
        for timer in self._timers.values():
            timer.cancel()
        for task in self._ending:
            task.cancel()
        await asyncio.gather(*self._ending, return_exceptions=True)
        if self._runner is not None:
            await self._runner.cleanup()

    async def finish(self, pool: str) -> None:
        """End the operation that is under way on a pool."""
        for operation in self.pools.under_way():
            if operation.pool == pool:
                await self.pools.end(operation)

    def _take_up(self) -> None:
        """Go on from what the state file says; an operation that was under way starts its time anew."""
        if self._state is None:
            return
        path = self._state
        load(path, self.pools, self.identity.tokens)
        self.pools.changed = self.identity.changed = lambda: save(path, self.pools, self.identity.tokens)
        for operation in self.pools.under_way():
            self._time(operation, self._seconds(operation))

    # ------------------------------------------------------------------ the gateway

    def _serve(
        self, verb: Verb, act: Callable[[web.Request, Json], Awaitable[web.Response]]
    ) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def handle(request: web.Request) -> web.Response:
            body = json.loads(await request.read() or b"{}") if verb == "put" else {}
            at = asyncio.get_running_loop().time()
            reply, lost = await self._answer(verb, act, request, body)
            self._note(verb, request, body, at, 0 if lost else reply.status, reply)
            if lost and request.transport is not None:
                request.transport.abort()
            return reply

        return handle

    async def _answer(
        self,
        verb: Verb,
        act: Callable[[web.Request, Json], Awaitable[web.Response]],
        request: web.Request,
        body: Json,
    ) -> tuple[web.Response, bool]:
        lost = False
        pool = self._pool_of(verb, request)
        for fault in self.rules.take(verb, pool, self._sku_of(pool, body)):
            if fault.delay:
                await asyncio.sleep(fault.delay)
            if fault.lose == "request":
                return web.Response(), True
            lost = lost or fault.lose == "response"
            if fault.refusal is not None:
                return _refusal(fault.refusal, fault), lost
        refused = self._throttled(verb) or self._unknown_caller(request) or self._wrong_scope(verb, request)
        return refused or await act(request, body), lost

    def _unknown_caller(self, request: web.Request) -> web.Response | None:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        known = scheme == "Bearer" and token in self.identity.tokens
        return None if known else _refusal(ANSWERS["unauthorized"])

    def _throttled(self, verb: Verb) -> web.Response | None:
        kind = "writes" if verb in ("put", "delete") else "reads"
        throttle: Throttle | None = getattr(self.rules, kind)
        if throttle is None:
            return None
        now = asyncio.get_running_loop().time()
        left, since = self._buckets.get(kind, (float(throttle.burst), now))
        left = min(throttle.burst, left + (now - since) * throttle.per_second)
        if left >= 1:
            self._buckets[kind] = (left - 1, now)
            return None
        self._buckets[kind] = (left, now)
        return _refusal(ANSWERS["throttled"], retry_after=throttle.retry_after)

    def _wrong_scope(self, verb: Verb, request: web.Request) -> web.Response | None:
        asked, pools = request.match_info, self.pools
        if asked["subscription"] != pools.subscription:
            return _refusal(ANSWERS["no-subscription"])
        if "group" not in asked:  # an operation, or one of the compute service's lists
            return None
        if asked["group"].lower() != pools.group.lower():
            return _refusal(ANSWERS["no-group"])
        if asked["cluster"].lower() != pools.cluster.lower():
            return _refusal(ANSWERS["no-parent" if verb == "put" else "no-cluster"])
        return None

    # ------------------------------------------------------------------ what is asked

    async def _list(self, request: web.Request, _: Json) -> web.Response:
        return self._page(request, list(self.pools.pools.values()))

    def _page(self, request: web.Request, items: list[Json]) -> web.Response:
        size = self.rules.page_size or len(items) or 1
        start = int(request.query.get("skip", 0))
        body: Json = {"value": items[start : start + size]}
        if start + size < len(items):
            # ARM's links carry an api-version of their own making; a client of agent pools puts its own in.
            body["nextLink"] = f"{self.url}{request.path}?api-version=2020-01-01&skip={start + size}"
        return web.json_response(body)

    async def _cluster(self, request: web.Request, _: Json) -> web.Response:
        pools = self.pools
        return web.json_response(
            account.cluster(request.path, pools.cluster, pools.location, pools.node_group, KUBERNETES)
        )

    async def _permissions(self, request: web.Request, _: Json) -> web.Response:
        return self._page(request, account.permissions(self.rules))

    async def _usages(self, request: web.Request, _: Json) -> web.Response:
        return self._page(request, account.usages(self.rules))

    async def _skus(self, request: web.Request, _: Json) -> web.Response:
        return self._page(request, account.skus(self.rules, self.pools.location))

    async def _get(self, request: web.Request, _: Json) -> web.Response:
        pool = self.pools.pools.get(request.match_info["pool"])
        # AKS writes this one without ARM's envelope.
        return _no_pool() if pool is None else web.json_response(pool)

    async def _put(self, request: web.Request, body: Json) -> web.Response:
        name = request.match_info["pool"]
        exists = name in self.pools.pools
        if exists and request.headers.get("If-None-Match") == "*" and self.rules.honours_if_none_match:
            return _refusal(Answer(412, "PreconditionFailed", f"The agent pool {name} exists."))
        if refused := self._busy():
            return refused
        sku = str((body.get("properties") or {}).get("vmSize"))
        operation = self._start("create", name, body, sku)
        return web.json_response(
            self.pools.pools[name], status=200 if exists else 201, headers=self._headers(operation)
        )

    async def _delete(self, request: web.Request, _: Json) -> web.Response:
        name = request.match_info["pool"]
        if name not in self.pools.pools:
            return _no_pool()
        if refused := self._busy():
            return refused
        operation = self._start("delete", name, {}, self._sku_of(name, {}))
        headers = self._headers(operation)
        return web.Response(status=202, headers={**headers, "Location": headers["Azure-AsyncOperation"]})

    async def _poll(self, request: web.Request, _: Json) -> web.Response:
        operation = self.pools.operations.get(request.match_info["id"])
        if operation is None:
            return _refusal(Answer(404, "NotFound", "The operation was not found."))
        waiting = operation.status == "InProgress" and self.rules.retry_after
        headers = {"Retry-After": str(self.rules.retry_after)} if waiting else {}
        return web.json_response(operation.body(), headers=headers)

    # ------------------------------------------------------------------ operations

    def _busy(self) -> web.Response | None:
        allowed = self.rules.max_operations
        busy = bool(allowed) and len(self.pools.under_way()) >= allowed
        return _refusal(ANSWERS["in-progress"], body="flat") if busy else None

    def _start(self, verb: str, pool: str, body: Json, sku: str) -> Operation:
        operation = self.pools.start(verb, pool, body, self._now())
        ending: Verb = "create-operation" if verb == "create" else "delete-operation"
        seconds = self._seconds(operation)
        for fault in self.rules.take(ending, pool, sku):
            operation.error = fault.refusal
            operation.outcome = fault.outcome
            seconds = None if seconds is None else seconds + fault.delay
        self._time(operation, seconds)
        return operation

    def _seconds(self, operation: Operation) -> float | None:
        return self.rules.create_seconds if operation.verb == "create" else self.rules.delete_seconds

    def _time(self, operation: Operation, seconds: float | None) -> None:
        if seconds is not None:
            loop = asyncio.get_running_loop()
            self._timers[operation.id] = loop.call_later(seconds, self._end, operation)

    def _end(self, operation: Operation) -> None:
        del self._timers[operation.id]
        task = asyncio.get_running_loop().create_task(self.pools.end(operation), name=f"end {operation.id}")
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    def _headers(self, operation: Operation) -> dict[str, str]:
        path = _OPERATIONS.format(subscription=self.pools.subscription, location=self.pools.location)
        headers = {
            "Azure-AsyncOperation": f"{self.url}{path}/{operation.id}?api-version={_OPERATIONS_VERSION}",
        }
        if self.rules.retry_after:
            headers["Retry-After"] = str(self.rules.retry_after)
        return headers

    # ------------------------------------------------------------------ what is known of a request

    def _pool_of(self, verb: Verb, request: web.Request) -> str:
        if verb == "poll":
            operation = self.pools.operations.get(request.match_info["id"])
            return operation.pool if operation else ""
        return request.match_info.get("pool", "")

    def _sku_of(self, pool: str, body: Json) -> str:
        properties = (body or self.pools.pools.get(pool) or {}).get("properties") or {}
        return str(properties.get("vmSize") or "")

    def _note(
        self, verb: Verb, request: web.Request, body: Json, at: float, status: int, reply: web.Response
    ) -> None:
        headers = {key.lower(): value for key, value in request.headers.items()}
        headers["authorization"] = headers.get("authorization", "").partition(" ")[0]
        self.journal.add(
            Exchange(
                at,
                verb,
                request.method,
                request.path,
                dict(request.query),
                headers,
                body or None,
                self._pool_of(verb, request),
                status,
                dict(reply.headers),
            )
        )


async def _healthy(request: web.Request) -> web.Response:
    return web.Response(text="ok")


def _no_pool() -> web.Response:
    return _refusal(ANSWERS["no-pool"], body="flat")


def _refusal(
    answer: Answer, fault: Fault | None = None, *, body: str = "", retry_after: int | None = None
) -> web.Response:
    style = body or (fault.body if fault is not None else "wrapped")
    after = retry_after if fault is None else fault.retry_after
    headers = {} if after is None else {"Retry-After": str(after)}
    match style:
        case "text":
            return web.Response(status=answer.status, text=answer.message, headers=headers)
        case "empty":
            return web.Response(status=answer.status, headers=headers)
    detail: Json = {"code": answer.code, "message": answer.message}
    content = {**detail, "details": None, "subcode": ""} if style == "flat" else {"error": detail}
    return web.json_response(content, status=answer.status, headers=headers)
