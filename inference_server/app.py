"""The HTTP application: routes, and the one place where failures become status codes.

In: an `Engine` and `ServerState`. Out: an aiohttp application that answers from the first second on: while
the model loads, `/` and `/metrics` answer, health says 500 and `/chat` says 503. The engine's death turns
health to 500 and `/chat` to 503 without a restart of this process; the pod's liveness probe decides what
follows. No traceback and no prompt reaches a client or the log.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, generate_latest

from inference_server.chat import chat
from inference_server.protocol import Engine, EngineDead, EngineError, InvalidRequest
from inference_server.replies import Refusal, json_reply

logger = logging.getLogger("kaito.inference_server.app")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

NOT_INITIALIZED = "Model not initialized"
DEAD = "The inference engine has died; restart this server"
STOPPING = "The server is shutting down"


@dataclass
class ServerState:
    """What the handlers share. ``active`` counts requests being answered; ``idle`` is set when there are none."""

    model_name: str
    draining: bool = False
    active: int = 0
    started_at: float = field(default_factory=time.time)
    idle: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.idle.set()

    @contextmanager
    def working(self) -> Iterator[None]:
        """Counts one request while it is answered."""
        self.active += 1
        self.idle.clear()
        try:
            yield
        finally:
            self.active -= 1
            if self.active == 0:
                self.idle.set()


def make_app(
    engine: Engine, state: ServerState, *, max_body_bytes: int, registry: CollectorRegistry = REGISTRY
) -> web.Application:
    """The application. Starting and stopping the engine is the caller's business."""

    async def root(_: web.Request) -> web.StreamResponse:
        return json_reply({"message": "Server is running"})

    async def health(_: web.Request) -> web.StreamResponse:
        problem = unready(engine, state)
        if problem:
            raise Refusal(500, problem)
        return json_reply({"status": "Healthy"})

    async def metrics(_: web.Request) -> web.StreamResponse:
        return web.Response(body=generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def models(_: web.Request) -> web.StreamResponse:
        info = engine.info
        if info is None:
            raise Refusal(503, NOT_INITIALIZED, retry_after=5)
        model = {
            "id": state.model_name,
            "object": "model",
            "created": int(state.started_at),
            "owned_by": "kaito",
            "max_model_len": info.max_model_len,
        }
        return json_reply({"object": "list", "data": [model]})

    async def chat_route(request: web.Request) -> web.StreamResponse:
        problem = unready(engine, state)
        if problem:
            raise Refusal(503, problem, retry_after=5)
        with state.working():
            return await chat(request, engine)

    app = web.Application(client_max_size=max_body_bytes, middlewares=[failures])
    app.add_routes(
        [
            web.get("/", root),
            web.get("/health", health),
            web.get("/healthz", health),
            web.get("/metrics", metrics),
            web.get("/v1/models", models),
            web.post("/chat", chat_route),
        ]
    )
    return app


def unready(engine: Engine, state: ServerState) -> str | None:
    """Why no request can be answered now, or None."""
    if state.draining:
        return STOPPING
    if engine.info is None:
        return NOT_INITIALIZED
    return DEAD if engine.errored else None


@web.middleware
async def failures(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turns every failure into a JSON reply with a detail."""
    try:
        return await handler(request)
    except Refusal as refusal:
        return refusal.reply()
    except InvalidRequest as error:
        return Refusal(400, str(error)).reply()
    except EngineDead:
        return Refusal(503, DEAD, retry_after=5).reply()
    except EngineError as error:
        logger.error("generation failed error=%s", error)
        return Refusal(500, str(error)).reply()
    except web.HTTPRequestEntityTooLarge:
        limit = request.app._client_max_size
        return Refusal(413, f"The body is larger than {limit} bytes").reply()
    except web.HTTPException as error:
        if error.status < 400:
            raise
        reply = Refusal(error.status, error.reason).reply()
        if "Allow" in error.headers:
            reply.headers["Allow"] = error.headers["Allow"]
        return reply
    except (asyncio.CancelledError, ConnectionError):
        raise  # the client has gone; there is nobody to answer
    except Exception:
        logger.exception("unexpected failure method=%s path=%s", request.method, request.path)
        return Refusal(500, "Internal server error").reply()
