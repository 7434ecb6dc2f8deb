"""What a tuning pod answers while it works: progress, metrics, health.

In: the board. Out: an aiohttp application and its listener. It runs on the event loop, training in a thread: it
answers at any time, though not at once while the interpreter is busy elsewhere. ``/metrics`` is Prometheus' text;
who asks for JSON, as the seed era's clients did, gets that era's report on GPU and CPU.
"""

from __future__ import annotations

import errno
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from api.progress import PROGRESS_PATH, TuneStage
from inference_server.replies import json_reply
from inference_server.tuning.board import Board
from inference_server.tuning.hardware import Hardware
from inference_server.tuning.settings import unusable


def make_app(board: Board, hardware: Hardware) -> web.Application:
    """The routes."""

    async def root(_: web.Request) -> web.StreamResponse:
        return json_reply({"message": "Tuning is running"})

    async def health(_: web.Request) -> web.StreamResponse:
        if board.now.stage is TuneStage.FAILED:
            return json_reply({"detail": board.now.message}, status=500)
        return json_reply({"status": "Healthy"})

    async def progress(_: web.Request) -> web.StreamResponse:
        body = board.now.model_dump_json(by_alias=True, exclude_none=True)
        return web.Response(text=body, content_type="application/json")

    async def metrics(request: web.Request) -> web.StreamResponse:
        if "application/json" in request.headers.get("Accept", ""):
            try:
                return json_reply(hardware.report())
            except (OSError, ValueError, RuntimeError) as error:
                return json_reply({"detail": str(error)}, status=500)
        return web.Response(body=generate_latest(board.registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    app = web.Application()
    app.add_routes(
        [
            web.get("/", root),
            web.get("/health", health),
            web.get("/healthz", health),
            web.get("/metrics", metrics),
            web.get(PROGRESS_PATH, progress),
        ]
    )
    return app


@asynccontextmanager
async def serving(board: Board, host: str, port: int | None) -> AsyncIterator[int | None]:
    """Listens while the body runs; gives the port. Raises TuneError where nothing can listen there."""
    if port is None:
        yield None
        return
    runner = web.AppRunner(make_app(board, Hardware()), access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port)
        try:
            await site.start()
        except OSError as error:
            what = (
                "another program listens there"
                if error.errno == errno.EADDRINUSE
                else os.strerror(error.errno or 0)
            )
            raise unusable(f"cannot listen on {host}:{port}: {what}", "choose another --metrics-port") from error
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()
