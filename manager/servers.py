"""The two small HTTP servers of a manager: probes and metrics.

Probes: ``/healthz`` and ``/readyz``, each with every check or with one (``/readyz/cache``), in the words of
Kubernetes: ``ok``, or one line per check and 500. Metrics: the Prometheus text of one registry. Neither needs
leadership, both start first and stop last. A port in use is an error of this room.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from manager.errors import ManagerError

log = logging.getLogger("kaito.manager.servers")

Check = Callable[[], str | None]
"""None when healthy, else why not. The reason is logged, not shown: probes are not authenticated."""


@dataclass(slots=True)
class Probes:
    """The checks behind ``/healthz`` and ``/readyz``."""

    health: dict[str, Check] = field(default_factory=dict)
    ready: dict[str, Check] = field(default_factory=dict)

    def answer(self, path: str, checks: dict[str, Check], query: dict[str, list[str]]) -> tuple[int, str]:
        """Status and body of a probe; pure but for the checks themselves."""
        checks = checks or {"ping": lambda: None}
        name, _, single = path.strip("/").partition("/")
        excluded = set(query.get("exclude", []))
        if single:
            if single not in checks:
                return 404, "404 page not found\n"
            excluded = set(checks) - {single}
        lines, failed = [], False
        for check_name, check in sorted(checks.items()):
            if check_name in excluded:
                lines.append(f"[+]{check_name} excluded: ok")
                continue
            try:
                problem = check()
            except Exception as error:  # a broken check is a failed one, not a broken probe
                problem = repr(error)
            if problem is None:
                lines.append(f"[+]{check_name} ok")
            else:
                failed = True
                log.info("probe failed probe=%s check=%s reason=%s", name, check_name, problem)
                lines.append(f"[-]{check_name} failed: reason withheld")
        unknown = sorted(excluded - set(checks))
        lines += [f"warn: some health checks cannot be excluded: no matches for {unknown}"] if unknown else []
        if failed:
            return 500, "\n".join([*lines, f"{name} check failed\n"])
        return 200, "\n".join([*lines, f"{name} check passed\n"]) if "verbose" in query else "ok"


class HttpServer:
    """One aiohttp application on one address. ``address`` is (host, port) once started."""

    def __init__(self, bind: str, app: web.Application, what: str) -> None:
        self._bind = bind
        self._what = what
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        self.address: tuple[str, int] | None = None

    async def start(self) -> None:
        """Listen.

        Raises:
            ManagerError: the address cannot be used; the message names it.
        """
        host, _, port = self._bind.rpartition(":")
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, host or None, int(port)).start()
        except (OSError, ValueError, OverflowError) as error:
            await self._runner.cleanup()
            raise ManagerError(
                f"the {self._what} server cannot listen on {self._bind}: {error}; choose another address"
            ) from error
        self.address = self._runner.addresses[0][:2]

    async def stop(self) -> None:
        """Close, waiting at most a second for answers under way."""
        await self._runner.cleanup()


def probe_server(bind: str, probes: Probes) -> HttpServer:
    """The server of the probes."""

    async def serve(request: web.Request) -> web.Response:
        checks = probes.ready if request.path.startswith("/readyz") else probes.health
        query = {key: request.query.getall(key) for key in request.query}
        status, body = probes.answer(request.path, checks, query)
        return web.Response(status=status, text=body, headers={"X-Content-Type-Options": "nosniff"})

    app = web.Application()
    for root in ("/healthz", "/readyz"):
        app.router.add_get(root, serve)
        app.router.add_get(root + "/{check}", serve)
    return HttpServer(bind, app, "health probe")


def metrics_server(bind: str, registry: CollectorRegistry) -> HttpServer:
    """The server of the metrics."""

    async def serve(request: web.Request) -> web.Response:
        encoder, content_type = choose_encoder(request.headers.get("Accept", ""))
        return web.Response(body=encoder(registry), headers={"Content-Type": content_type})

    app = web.Application()
    app.router.add_get("/metrics", serve)
    return HttpServer(bind, app, "metrics")
