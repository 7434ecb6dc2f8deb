"""Sends one answer, whole or in parts, within its time.

In: what makes the answer. Out: a response. Before the first part a failure is a status; after it, an event in the
stream and no regular end of the text. Whatever ends an answer early (the client, the time limit, a reader that
stopped) cancels what makes it, which aborts the generation in the engine.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from aiohttp import web

from inference_server.health import DEAD
from inference_server.protocol import EngineDead, EngineError, Pushed
from inference_server.replies import Refusal
from inference_server.shim import Shim
from inference_server.streams import EventStream, ReaderGone

T = TypeVar("T")
Failed = Callable[[int, str], bytes]  # the event that tells of a failure


async def in_time(shim: Shim, seconds: float, work: Awaitable[T]) -> T:
    """The result of ``work``. Raises Refusal 504 when its time is over."""
    limit = asyncio.timeout(seconds or None)
    try:
        async with limit:
            return await work
    except TimeoutError:
        if not limit.expired():
            raise
        shim.metrics.expired.inc()
        raise Refusal(504, too_late(seconds)) from None


async def send_stream(
    request: web.Request,
    shim: Shim,
    pushed: Pushed,
    *,
    failed: Failed,
    seconds: float,
    headers: dict[str, str] | None = None,
) -> web.StreamResponse:
    """Send the parts as they come. ``seconds`` counts from now; 0: no limit."""
    events = EventStream(request, shim.metrics, shim.limits.stall_seconds, headers)
    limit = asyncio.timeout(seconds or None)
    try:
        async with limit:
            await pushed.run(events)
    except TimeoutError:
        if not limit.expired():
            raise
        shim.metrics.expired.inc()
        if events.reply is None:
            raise Refusal(504, too_late(seconds)) from None
        await events.end(failed(504, too_late(seconds)))
    except EngineError as error:
        if events.reply is None:
            raise
        await events.end(failed(503, DEAD) if isinstance(error, EngineDead) else failed(500, str(error)))
    if events.reply is None:
        raise ReaderGone
    return events.reply


def too_late(seconds: float) -> str:
    """Why an answer ended early."""
    return f"The answer took longer than the time limit of {seconds:g} s"
