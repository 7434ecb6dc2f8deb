"""The HTTP application: every route that exists on this server.

In: a `Shim`. Out: an aiohttp application that answers from the first second on: while the model loads, `/`,
`/metrics`, `/v1/progress` and the probes answer, and everything else is 503 with the progress and a Retry-After.
What stands here is all that can be reached: no route of the engine's own server comes with it.
"""

from __future__ import annotations

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from api.progress import PROGRESS_PATH
from inference_server import openai_api
from inference_server.chat import chat
from inference_server.guard import api_key_guard, failure_guard
from inference_server.hardware import hardware
from inference_server.replies import Refusal, json_reply
from inference_server.shim import Shim


def make_app(shim: Shim) -> web.Application:
    """The application. Starting and stopping the engine is the caller's business."""

    async def root(_: web.Request) -> web.StreamResponse:
        return json_reply({"message": "Server is running"})

    async def health(_: web.Request) -> web.StreamResponse:
        problem = shim.health.unready()
        if problem:
            raise Refusal(500, problem)
        return json_reply({"status": "Healthy"})

    async def live(_: web.Request) -> web.StreamResponse:
        problem = shim.health.broken()
        if problem:
            raise Refusal(500, problem)
        return json_reply({"status": "Alive"})

    async def ready(_: web.Request) -> web.StreamResponse:
        problem = shim.health.unready()
        if problem:
            raise Refusal(503, problem, retry_after=shim.health.retry_after())
        return json_reply({"status": "Ready"})

    async def progress(_: web.Request) -> web.StreamResponse:
        return _wire(shim.health.progress.model_dump_json(by_alias=True, exclude_none=True))

    async def adapters(_: web.Request) -> web.StreamResponse:
        return _wire(shim.adapters.observed().model_dump_json(by_alias=True, exclude_none=True))

    async def metrics(request: web.Request) -> web.StreamResponse:
        if wants_json(request):
            return json_reply(await hardware())
        return web.Response(
            body=generate_latest(shim.metrics.registry), headers={"Content-Type": CONTENT_TYPE_LATEST}
        )

    async def version(_: web.Request) -> web.StreamResponse:
        return json_reply({"version": shim.engine.info.version if shim.engine.info else None})

    async def chat_route(request: web.Request) -> web.StreamResponse:
        return await chat(request, shim)

    app = web.Application(
        client_max_size=shim.limits.body_bytes, middlewares=[failure_guard(shim), api_key_guard(shim.api_keys)]
    )
    app.add_routes(
        [
            web.get("/", root),
            web.get("/health", health),
            web.get("/healthz", health),
            web.get("/livez", live),
            web.get("/readyz", ready),
            web.get("/metrics", metrics),
            web.get("/version", version),
            web.get(PROGRESS_PATH, progress),
            web.get("/v1/adapters", adapters),
            web.post("/chat", chat_route),
            *openai_api.routes(shim),
        ]
    )
    return app


def wants_json(request: web.Request) -> bool:
    """Whether the seed era's JSON is asked for. A scraper names text formats, also where it takes anything."""
    asked = request.query.get("format")
    if asked:
        return asked == "json"
    accepted = request.headers.get("Accept", "")
    return "application/json" in accepted and "text/" not in accepted and "openmetrics" not in accepted


def _wire(text: str) -> web.Response:
    return web.Response(text=text, content_type="application/json")
