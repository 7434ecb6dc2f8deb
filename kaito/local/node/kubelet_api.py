"""The kubelet's HTTPS API: what an API server forwards `kubectl logs`, `exec` and `attach` to.

In: requests with a bearer token or a client certificate of the trusted authority; nothing but `/healthz` is
answered to anybody else (this port runs commands), unless `anonymous` is on for tests. Out: log text,
WebSocket streams, the list of pods. It owns no state; `find` gives it the containers.
"""

from __future__ import annotations

import hmac
import ssl
import time
from collections.abc import Awaitable, Callable

from aiohttp import web

from kaito.local.node.channels import Channels
from kaito.local.node.containers import Container
from kaito.local.node.logs import LogQuery, read_log, since_seconds
from kaito.local.node.pods import PodWorker
from kaito.local.node.streams import StreamOptions, run_attach, run_exec

FindPod = Callable[[str, str], PodWorker | None]
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def kubelet_app(
    find: FindPod, pods: Callable[[], list[PodWorker]], *, token: str, anonymous: bool = False
) -> web.Application:
    """The application. `find(namespace, name)` and `pods()` see the agent's pods."""

    @web.middleware
    async def guard(request: web.Request, handler: _Handler) -> web.StreamResponse:
        if request.path != "/healthz" and not anonymous and not _authenticated(request, token):
            raise web.HTTPUnauthorized(text="Unauthorized")
        return await handler(request)

    def container_of(request: web.Request) -> Container:
        info = request.match_info
        worker = find(info["namespace"], info["pod"])
        if worker is None:
            raise web.HTTPNotFound(text=f'pod "{info["pod"]}" is not on this node')
        container = worker.find(info["container"])
        if container is None:
            raise web.HTTPNotFound(text=f'container "{info["container"]}" not found in pod "{info["pod"]}"')
        return container

    async def health(_request: web.Request) -> web.Response:
        return web.Response(text="ok")

    async def list_pods(_request: web.Request) -> web.Response:
        return web.json_response({"apiVersion": "v1", "kind": "PodList", "items": [w.pod for w in pods()]})

    async def logs(request: web.Request) -> web.StreamResponse:
        container = container_of(request)
        query = _log_query(request)
        previous = _flag(request, "previous")
        path = container.log_of(previous=previous)
        attempt = container.attempt
        if path is None or attempt is None:
            pod, which = request.match_info["pod"], "previous terminated " if previous else ""
            text = f'{which}container "{container.name}" in pod "{pod}" not found'
            if not previous:
                text = f'container "{container.name}" in pod "{pod}" is waiting to start'
            raise web.HTTPBadRequest(text=text)
        response = web.StreamResponse(headers={"Content-Type": "text/plain"})
        await response.prepare(request)
        tally: dict[str, int] = {}
        try:
            async for chunk in read_log(path, query, lambda: previous or not attempt.running, tally):
                await response.write(chunk)
            if not previous and query == LogQuery():
                container.note_read(tally)
            await response.write_eof()
        except ConnectionError:
            pass  # the reader has seen enough
        return response

    async def exec_(request: web.Request) -> web.StreamResponse:
        container, argv = container_of(request), request.query.getall("command", [])
        if not argv:
            raise web.HTTPBadRequest(text="you must specify at least one command")
        channels = await Channels.accept(request)
        await run_exec(channels, container, argv, _options(request))
        return channels.response

    async def attach(request: web.Request) -> web.StreamResponse:
        container = container_of(request)
        channels = await Channels.accept(request)
        await run_attach(channels, container, _options(request))
        return channels.response

    app = web.Application(middlewares=[guard])
    where = "{namespace}/{pod}/{container}"
    app.add_routes(
        [
            web.get("/healthz", health),
            web.get("/pods", list_pods),
            web.get(f"/containerLogs/{where}", logs),
            web.route("*", f"/exec/{where}", exec_),
            web.route("*", "/exec/{namespace}/{pod}/{uid}/{container}", exec_),
            web.route("*", f"/attach/{where}", attach),
            web.route("*", "/attach/{namespace}/{pod}/{uid}/{container}", attach),
        ]
    )
    return app


def _authenticated(request: web.Request, token: str) -> bool:
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), token.encode()):
        return True
    transport = request.transport
    tls = transport.get_extra_info("ssl_object") if transport is not None else None
    # A certificate that is there has been verified against the trusted authority by the handshake.
    return isinstance(tls, ssl.SSLObject) and bool(tls.getpeercert())


def _flag(request: web.Request, *names: str, default: bool = False) -> bool:
    for name in names:
        if name in request.query:
            return request.query[name].lower() in ("1", "true", "t")
    return default


def _options(request: web.Request) -> StreamOptions:
    return StreamOptions(
        stdin=_flag(request, "input", "stdin"),
        stdout=_flag(request, "output", "stdout"),
        stderr=_flag(request, "error", "stderr"),
        tty=_flag(request, "tty"),
    )


def _log_query(request: web.Request) -> LogQuery:
    def number(name: str) -> int | None:
        text = request.query.get(name)
        if text is None:
            return None
        if not text.isdigit():
            raise web.HTTPBadRequest(text=f"invalid {name}: {text!r}")
        return int(text)

    since, seconds = request.query.get("sinceTime"), number("sinceSeconds")
    if seconds is not None:
        since = since_seconds(time.time(), seconds)
    stream = request.query.get("stream")
    return LogQuery(
        follow=_flag(request, "follow"),
        tail_lines=number("tailLines"),
        timestamps=_flag(request, "timestamps"),
        since=since,
        limit_bytes=number("limitBytes"),
        stream=None if stream in (None, "All") else stream,
    )
