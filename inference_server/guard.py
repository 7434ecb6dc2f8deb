"""What every request passes: the API key, the limits of its body and its time, and the translation of failures.

In: requests as they come. Out: requests that may go on, or a status with words. The key is compared in constant
time and asked for on every route but the probes and the loading progress, which tell nothing of anybody's. A
failure of ours is logged by kind and place, not by message: a message may quote a prompt.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import math
import time
import traceback

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from api.progress import PROGRESS_PATH
from inference_server.health import DEAD, NOT_INITIALIZED
from inference_server.protocol import EngineDead, EngineError, InvalidRequest, UnknownAdapter
from inference_server.replies import Refusal
from inference_server.shim import Shim

logger = logging.getLogger("kaito.inference_server.guard")

OPEN_PATHS = frozenset({"/health", "/healthz", "/livez", "/readyz", PROGRESS_PATH})
TIMEOUT_HEADER = "X-Request-Timeout"
_OWN_V1 = ("/v1/adapters", PROGRESS_PATH)
_OPENAI_ROOTS = ("/tokenize", "/detokenize", "/pooling", "/score", "/rerank")


def speaks_openai(path: str) -> bool:
    """Whether clients of this path expect OpenAI's error body."""
    return (path.startswith("/v1/") and path not in _OWN_V1) or path in _OPENAI_ROOTS


def api_key_guard(keys: frozenset[str]) -> Middleware:
    """The middleware that asks for one of the keys."""
    digests = [_digest(key) for key in sorted(keys)]

    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        if digests and request.path not in OPEN_PATHS:
            shown = _digest(_shown_key(request))
            # No early exit: how long this takes says nothing about which key came near.
            if not max([hmac.compare_digest(shown, digest) for digest in digests]):
                raise Refusal(
                    401,
                    "a valid API key is needed: send it as 'Authorization: Bearer <key>'",
                    headers={"WWW-Authenticate": "Bearer"},
                )
        return await handler(request)

    return guard


def failure_guard(shim: Shim) -> Middleware:
    """The middleware that turns every failure into a JSON reply."""

    @web.middleware
    async def failures(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            reply = await handler(request)
        except (asyncio.CancelledError, ConnectionError):
            count(request, 499)  # the client has gone; there is nobody to answer
            raise
        except Exception as error:
            refusal = refusal_of(error, request, shim)
            if refusal is None:
                raise
            reply = refusal.reply(openai=speaks_openai(request.path))
        count(request, reply.status)
        return reply

    def count(request: web.Request, code: int) -> None:
        if request.method == "POST" and request.match_info.http_exception is None:  # our own paths only
            shim.metrics.requests.labels(request.path, str(code)).inc()

    return failures


def refusal_of(error: Exception, request: web.Request, shim: Shim) -> Refusal | None:
    """The failure in words and a status; None for an answer that aiohttp makes itself."""
    match error:
        case Refusal():
            return error
        case UnknownAdapter() if speaks_openai(request.path):
            return Refusal(404, str(error), param="model")
        case InvalidRequest():
            return Refusal(400, str(error))
        case EngineDead():
            return Refusal(503, DEAD, retry_after=5)
        case EngineError():
            logger.error("generation failed path=%s error=%s", request.path, error)
            return Refusal(500, str(error))
        case web.HTTPRequestEntityTooLarge():
            return Refusal(413, f"The body is larger than {shim.limits.body_bytes} bytes")
        case web.HTTPException() if error.status < 400:
            return None
        case web.HTTPException():
            allow = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else {}
            return Refusal(error.status, error.reason, headers=allow)
    places = [f"{frame.name}:{frame.lineno}" for frame in traceback.extract_tb(error.__traceback__)[-4:]]
    logger.error(
        "unexpected failure method=%s path=%s error=%s at=%s",
        request.method,
        request.path,
        type(error).__name__,
        " ".join(places),
    )
    logger.debug("unexpected failure", exc_info=error)
    return Refusal(500, "Internal server error")


async def read_body(request: web.Request, shim: Shim) -> bytes:
    """The body, within its limits. Raises Refusal 408 if it does not arrive in time."""
    try:
        async with asyncio.timeout(shim.limits.body_seconds or None):
            return await request.read()
    except TimeoutError:
        raise Refusal(
            408,
            f"The body did not arrive within {shim.limits.body_seconds:g} s",
            close=True,
        ) from None


def time_limit(request: web.Request, shim: Shim) -> float:
    """Seconds for this answer: the header's, at most the server's own; 0: no limit. Raises Refusal 400."""
    ours = shim.limits.request_seconds
    text = request.headers.get(TIMEOUT_HEADER)
    if text is None:
        return ours
    try:
        asked = float(text)
    except ValueError:
        asked = math.nan
    if not 0 < asked < math.inf:
        raise Refusal(400, f"{TIMEOUT_HEADER}: expected seconds above 0")
    return min(asked, ours) if ours else asked


def ready_or_refuse(shim: Shim) -> None:
    """Raises Refusal 503, with the loading progress, while no request can be answered."""
    problem = shim.health.unready()
    info = shim.engine.info
    if problem is None and info is not None and info.leader is not None:
        raise Refusal(503, f"This node computes a part of the model; {info.leader} answers")
    if problem is None:
        return
    extra = {}
    if problem == NOT_INITIALIZED:
        extra["progress"] = shim.health.progress.model_dump(mode="json", by_alias=True, exclude_none=True)
    raise Refusal(503, problem, retry_after=shim.health.retry_after(), extra=extra)


def now() -> float:
    """Seconds for durations."""
    return time.perf_counter()


def _shown_key(request: web.Request) -> str:
    scheme, _, value = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return value.strip()
    return request.headers.get("X-API-Key", "").strip()


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
