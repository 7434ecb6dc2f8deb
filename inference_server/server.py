"""One inference server process, from listening to exit.

In: `ServeSettings` and an `Engine`. Out: an exit code. Order: the port first (so that health answers while
the model loads, and a port in use is known before any work), then the engine, then the start-up report.
SIGTERM and SIGINT turn readiness off, let running requests finish for a bounded time, stop the engine and
exit 0; a second signal skips the wait. A start that fails exits 1 with one line. No process may stay behind.
"""

from __future__ import annotations

import asyncio
import errno
import gc
import logging
import os
import signal
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from aiohttp import web
from prometheus_client import REGISTRY, CollectorRegistry

from api.progress import LoadProgress, LoadStage
from inference_server.adapters.model import Adapters
from inference_server.app import make_app
from inference_server.gate import Gate
from inference_server.health import Health, Watchdog
from inference_server.metrics import Metrics
from inference_server.protocol import Engine, EngineInfo
from inference_server.settings import ServeSettings, weights_bytes
from inference_server.shim import BaseOnly, Limits, Shim

logger = logging.getLogger("kaito.inference_server.server")

_WATCH_SECONDS = 1.0
_LINGER_SECONDS = 2.0  # for the rest of a body that was refused
_COLLECT = (10_000, 20, 20)  # objects, then generations; by default a token's objects are enough for a collection
_CLOSE_SECONDS = 1.0  # for connections after the drain, whose time is over


OnProgress = Callable[[LoadProgress], None]
Fetch = Callable[[OnProgress], Awaitable[Path]]
MakeAdapters = Callable[[Engine, Path | None], Adapters | None]


class ListenError(Exception):
    """The address cannot be listened on. The text says why and what to try."""


def make_shim(
    settings: ServeSettings,
    engine: Engine,
    adapters: Adapters | None = None,
    registry: CollectorRegistry = REGISTRY,
) -> Shim:
    """The parts of one server."""
    metrics = Metrics(registry)
    gate = Gate(metrics, queue=settings.max_queue, limited=settings.rate_limit)
    shim = Shim(
        engine=engine,
        adapters=BaseOnly(),
        gate=gate,
        health=Health(engine, Watchdog(settings.hang_seconds)),
        metrics=metrics,
        model_name=settings.name,
        limits=Limits(
            body_bytes=settings.max_body_bytes,
            body_seconds=settings.body_seconds,
            request_seconds=settings.request_seconds,
            stall_seconds=settings.stall_seconds,
        ),
        api_keys=settings.api_keys,
    )
    metrics.watch(
        active=lambda: gate.active,
        queue=lambda: gate.waiting,
        progress=lambda: shim.health.progress,
        adapters=lambda: shim.adapters.observed(),
    )
    return shim


async def serve(
    settings: ServeSettings,
    engine: Engine,
    *,
    fetch: Fetch | None = None,
    adapters: MakeAdapters | None = None,
    stop: asyncio.Event | None = None,
    registry: CollectorRegistry = REGISTRY,
) -> int:
    """Serve until a signal, or ``stop``. Returns the exit code.

    ``fetch`` brings the model's files here first, ``adapters`` makes their manager once the engine runs. Raises
    ListenError, EngineError, and what ``fetch`` raises.
    """
    began = time.monotonic()
    shim = make_shim(settings, engine, registry=registry)
    # Without handler_cancellation a client that went away would go on costing tokens.
    runner = web.AppRunner(
        make_app(shim),
        access_log=None,
        handler_cancellation=True,
        shutdown_timeout=_CLOSE_SECONDS,
        # Also the limit for a request's head, which aiohttp counts from the connection's start or its last answer.
        keepalive_timeout=settings.idle_seconds,
        lingering_time=_LINGER_SECONDS,
    )
    await runner.setup()
    stop = stop or asyncio.Event()
    hurry = asyncio.Event()
    _watch_signals(stop, hurry)
    watching = asyncio.create_task(_watch_engine(shim), name="kaito-engine-watchdog")
    try:
        await _listen(runner, settings)
        logger.info("listening address=%s:%s model=%s", settings.host, settings.port, settings.model)
        shim.health.starting = True
        info = await _unless_stopped(_start(shim, settings, fetch, adapters), stop)
        if info is not None:
            shim.gate.slots = info.max_num_seqs
            shim.health.starting = False
            shim.health.progress = LoadProgress(stage=LoadStage.READY, message="serving")
            _quiet_collector()
            report(settings, info, time.monotonic() - began)
            await stop.wait()
        shim.health.draining = True
        await _drain(shim.gate, settings.drain_seconds, hurry)
    finally:
        shim.health.draining = True
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        await shim.adapters.stop()
        await engine.stop()
        await runner.cleanup()
    return 0


def loading(settings: ServeSettings) -> LoadProgress:
    """How far a server is whose model's files are here, or come from the hub with the engine's own loader."""
    size = weights_bytes(settings.model) or None
    return LoadProgress(
        stage=LoadStage.LOADING,
        bytes_done=size,
        bytes_total=size,
        message=f"the engine loads {settings.name}",
    )


def _quiet_collector() -> None:
    """What loading left behind lives as long as the process: the collector need not look through it again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_COLLECT)


async def _watch_engine(shim: Shim) -> None:
    """Look often, so that a hang is known by when it began and not by when a probe first came."""
    told = False
    while True:
        problem = shim.health.broken()
        if problem and not told:
            logger.error("unhealthy: %s", problem)
        told = bool(problem)
        await asyncio.sleep(_WATCH_SECONDS)


async def _start(
    shim: Shim, settings: ServeSettings, fetch: Fetch | None, adapters: MakeAdapters | None
) -> EngineInfo:
    def report(progress: LoadProgress) -> None:
        shim.health.progress = progress

    folder = await fetch(report) if fetch is not None else None
    shim.health.progress = loading(settings if folder is None else settings.at(folder))
    info = await shim.engine.start(folder)
    manager = adapters(shim.engine, folder) if adapters is not None else None
    if manager is not None:
        shim.adapters = manager
        await manager.start()
    return info


async def _unless_stopped(start: Awaitable[EngineInfo], stop: asyncio.Event) -> EngineInfo | None:
    """The started engine's facts, or None if stopping was asked for first."""
    starting = asyncio.ensure_future(start)
    stopping = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
        return starting.result() if starting.done() else None
    finally:
        starting.cancel()
        stopping.cancel()
        await asyncio.gather(starting, stopping, return_exceptions=True)


async def _drain(gate: Gate, seconds: float, hurry: asyncio.Event) -> None:
    """Wait until no request is being answered, at most this long, less if a second signal comes."""
    if gate.active == 0:
        return
    logger.info("draining requests=%s seconds=%s", gate.active, seconds)
    waits = {asyncio.ensure_future(gate.idle.wait()), asyncio.ensure_future(hurry.wait())}
    try:
        await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)
    if gate.active:
        logger.warning("stopping with requests unanswered requests=%s", gate.active)


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
