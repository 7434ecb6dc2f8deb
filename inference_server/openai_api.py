"""OpenAI's API on the same port: an allow-list of paths, each handed to the engine's own implementation.

In: HTTP requests. Out: what vLLM's serving classes make of their bodies; no path of the engine's HTTP server
exists here unless it stands in `PATHS`. `model` picks the base model or an adapter. Errors have OpenAI's body.
"""

from __future__ import annotations

import re
from typing import Any

import orjson
from aiohttp import web

from inference_server.answering import in_time, send_stream
from inference_server.guard import read_body, ready_or_refuse, time_limit
from inference_server.protocol import Whole
from inference_server.replies import Refusal, json_reply, openai_error
from inference_server.shim import Shim

PATHS = (
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/embeddings",
    "/v1/score",
    "/v1/rerank",
    "/tokenize",
    "/detokenize",
    "/pooling",
    "/score",
    "/rerank",
)
_LIGHT = ("/tokenize", "/detokenize")  # these never reach the engine's process
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")


def routes(shim: Shim) -> list[web.RouteDef]:
    """The routes for an application."""

    async def answer(request: web.Request) -> web.StreamResponse:
        ready_or_refuse(shim)
        openai = shim.engine.openai
        if openai is None:
            raise Refusal(503, "Model not initialized", retry_after=shim.health.retry_after())
        seconds = time_limit(request, shim)
        body = _decode(await read_body(request, shim))
        weight = 0 if request.path in _LIGHT else _weight(body, shim.limits.sequences)
        asked = request.headers.get("X-Request-Id")
        request_id = asked if asked and _REQUEST_ID.fullmatch(asked) else None
        with shim.gate.admit(weight), shim.choose_by_model(body.get("model")) as adapter:
            made = await in_time(
                shim, seconds, openai.answer(request.path, body, adapter=adapter, request_id=request_id)
            )
            if isinstance(made, Whole):
                return web.Response(body=made.body, status=made.status, content_type=made.content_type)
            return await send_stream(request, shim, made, failed=_failed, seconds=seconds)

    async def models(_: web.Request) -> web.StreamResponse:
        return json_reply({"object": "list", "data": _models(shim)})

    async def model(request: web.Request) -> web.StreamResponse:
        name = request.match_info["name"]
        for item in _models(shim):
            if item["id"] == name:
                return json_reply(item)
        raise Refusal(
            404, f"The model {name[:200]!r} does not exist; GET /v1/models lists those that do", param="model"
        )

    return [
        web.get("/v1/models", models),
        web.get("/v1/models/{name:.+}", model),
        *(web.post(path, answer) for path in PATHS),
    ]


def _models(shim: Shim) -> list[dict[str, Any]]:
    info = shim.engine.info
    if info is None:
        ready_or_refuse(shim)
        raise Refusal(503, "Model not initialized", retry_after=5)
    common = {
        "object": "model",
        "created": int(shim.started_at),
        "owned_by": "kaito",
        "max_model_len": info.max_model_len,
    }
    base = shim.base_names
    return [
        *({"id": name, **common, "root": base[0], "parent": None} for name in base),
        *({"id": name, **common, "root": name, "parent": base[0]} for name in shim.adapters.names()),
    ]


def _decode(raw: bytes) -> dict[str, Any]:
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise Refusal(400, f"The body is not JSON: {error.msg} at byte {error.pos}") from None
    if not isinstance(body, dict):
        raise Refusal(400, "The body must be a JSON object")
    return body


def _weight(body: dict[str, Any], most: int) -> int:
    """How many sequences the engine will run for this body. Raises Refusal 400 for too many."""
    prompts = body.get("prompt", body.get("input"))
    count = len(prompts) if isinstance(prompts, list) and prompts and not isinstance(prompts[0], int) else 1
    for name in ("n", "best_of"):
        value = body.get(name)
        if isinstance(value, int) and value > 1:
            count *= value
            break
    if count > most:
        raise Refusal(
            400, f"The request asks for {count} sequences; at most {most} are answered at once", param="n"
        )
    return count


def _failed(status: int, message: str) -> bytes:
    return b"data: " + orjson.dumps(openai_error(status, message)) + b"\n\n"
