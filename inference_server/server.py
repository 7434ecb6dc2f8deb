"""One inference server process, from listening to exit.

In: `ServeSettings` and an `Engine`. Out: an exit code. Order: the port first (so that health answers while
the model loads, and a port in use is known before any work), then the engine, then the start-up report.
SIGTERM and SIGINT turn readiness off, let running requests finish for a bounded time, stop the engine and
exit 0; a second signal skips the wait. A start that fails exits 1 with one line. No process may stay behind.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import signal
import time

from aiohttp import web

from inference_server.app import ServerState, make_app
from inference_server.protocol import Engine, EngineInfo
from inference_server.settings import ServeSettings

logger = logging.getLogger("kaito.inference_server.server")

_CLOSE_SECONDS = 1.0  # for connections after the drain, whose time is over


class ListenError(Exception):
    """The address cannot be listened on. The text says why and what to try."""


async def serve(settings: ServeSettings, engine: Engine, *, stop: asyncio.Event | None = None) -> int:
    """Serve until a signal, or ``stop``. Returns the exit code. Raises ListenError or EngineError."""
    began = time.monotonic()
    state = ServerState(model_name=settings.name)
    app = make_app(engine, state, max_body_bytes=settings.max_body_bytes)
    # Without handler_cancellation a client that went away would go on costing tokens.
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=_CLOSE_SECONDS)
    await runner.setup()
    stop = stop or asyncio.Event()
    hurry = asyncio.Event()
    _watch_signals(stop, hurry)
    try:
        await _listen(runner, settings)
        logger.info("listening address=%s:%s model=%s", settings.host, settings.port, settings.model)
        info = await _start_unless_stopped(engine, stop)
        if info is not None:
            report(settings, info, time.monotonic() - began)
            await stop.wait()
        state.draining = True
        await _drain(state, settings.drain_seconds, hurry)
    finally:
        state.draining = True
        await engine.stop()
        await runner.cleanup()
    return 0


async def _start_unless_stopped(engine: Engine, stop: asyncio.Event) -> EngineInfo | None:
    """The started engine's facts, or None if stopping was asked for first."""
    starting = asyncio.ensure_future(engine.start())
    stopping = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
        return starting.result() if starting.done() else None
    finally:
        starting.cancel()
        stopping.cancel()
        await asyncio.gather(starting, stopping, return_exceptions=True)


async def _drain(state: ServerState, seconds: float, hurry: asyncio.Event) -> None:
    """Wait until no request is being answered, at most this long, less if a second signal comes."""
    if state.active == 0:
        return
    logger.info("draining requests=%s seconds=%s", state.active, seconds)
    waits = {asyncio.ensure_future(state.idle.wait()), asyncio.ensure_future(hurry.wait())}
    try:
        await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)
    if state.active:
        logger.warning("stopping with requests unanswered requests=%s", state.active)


async def _listen(runner: web.AppRunner, settings: ServeSettings) -> None:
    try:
        await web.TCPSite(runner, settings.host, settings.port, backlog=1024).start()
    except OSError as error:
        where = f"{settings.host}:{settings.port}"
        if error.errno == errno.EADDRINUSE:
            hint = "another program listens there; stop it, or choose another --port"
        elif error.errno in (errno.EACCES, errno.EPERM):
            hint = "ports below 1024 need a privilege; choose another --port"
        elif error.errno == errno.EADDRNOTAVAIL:
            hint = "this machine has no such address; choose another --host"
        else:
            hint = os.strerror(error.errno) if error.errno else str(error)
        raise ListenError(f"cannot listen on {where}: {hint}") from error


def _watch_signals(stop: asyncio.Event, hurry: asyncio.Event) -> None:
    def on_signal() -> None:
        if stop.is_set():
            hurry.set()
        stop.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        try:
            loop.add_signal_handler(number, on_signal)
        except (RuntimeError, ValueError):
            return  # not the main thread: the caller stops us through the event


def report(settings: ServeSettings, info: EngineInfo, seconds: float) -> None:
    """One block that says what was chosen and why."""
    lines = {"model": settings.model, "served as": settings.name}
    if settings.preset:
        lines["preset"] = settings.preset
    lines |= dict(info.facts)
    lines["chat template"] = "yes" if info.has_chat_template else "none: prompts are continued as they are"
    lines["address"] = f"http://{settings.host}:{settings.port}/chat"
    block = "\n".join(f"  {name:<14} {value}" for name, value in lines.items())
    logger.info("ready after %.1f s\n%s", seconds, block)
