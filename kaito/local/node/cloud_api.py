"""The local cloud's HTTP API: JSON over HTTP on loopback, with a bearer token.

In: requests of the provisioner; `If-None-Match: *` on PUT makes a create exactly-once. Out: calls of
`Cloud`, and its refusals as `{"error": {"code", "message"}}`. `/healthz` needs no token: it says whether
the agent's own node is registered. No state.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Awaitable, Callable

from aiohttp import web

from kaito.local.node.cloud import Cloud, CloudFailure, Fault
from manager.types import Obj

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def cloud_app(cloud: Cloud, token: str, healthy: Callable[[], bool]) -> web.Application:
    """The application that serves `cloud`."""

    @web.middleware
    async def guard(request: web.Request, handler: _Handler) -> web.StreamResponse:
        try:
            if request.path != "/healthz":
                _authenticate(request, token)
            return await handler(request)
        except CloudFailure as err:
            headers = {"Retry-After": str(err.retry_after)} if err.retry_after is not None else {}
            return web.json_response(_error(err.code, err.message), status=err.status, headers=headers)
        except web.HTTPException as err:
            return web.json_response(_error(err.reason.replace(" ", ""), err.reason), status=err.status)

    async def health(_request: web.Request) -> web.Response:
        return web.Response(text="ok") if healthy() else web.Response(text="starting", status=503)

    async def put(request: web.Request) -> web.Response:
        if request.headers.get("If-None-Match") != "*":
            raise CloudFailure(428, "PreconditionRequired", "create an instance with If-None-Match: *")
        return web.json_response(cloud.create(request.match_info["name"], await _body(request)), status=201)

    async def get(request: web.Request) -> web.Response:
        return web.json_response(cloud.get(request.match_info["name"]))

    async def list_(_request: web.Request) -> web.Response:
        return web.json_response({"items": cloud.list()})

    async def delete(request: web.Request) -> web.Response:
        cloud.delete(request.match_info["name"])
        return web.json_response({}, status=202)

    async def fault(request: web.Request) -> web.Response:
        cloud.add_fault(Fault.parse(await _body(request)))
        return web.json_response({})

    async def clear(_request: web.Request) -> web.Response:
        cloud.clear_faults()
        return web.json_response({})

    app = web.Application(middlewares=[guard])
    app.add_routes(
        [
            web.get("/healthz", health),
            web.get("/instances", list_),
            web.put("/instances/{name}", put),
            web.get("/instances/{name}", get),
            web.delete("/instances/{name}", delete),
            web.put("/faults", fault),
            web.delete("/faults", clear),
        ]
    )
    return app


def _authenticate(request: web.Request, token: str) -> None:
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not hmac.compare_digest(given.strip().encode(), token.encode()):
        raise CloudFailure(401, "Unauthorized", "a valid bearer token is needed")


async def _body(request: web.Request) -> Obj:
    try:
        body = json.loads(await request.read() or b"{}")
    except ValueError:
        body = None
    if not isinstance(body, dict):
        raise CloudFailure(400, "BadRequest", "the body must be a JSON object")
    return body


def _error(code: str, message: str) -> Obj:
    return {"error": {"code": code, "message": message}}
