"""The probes: ``/healthz`` and ``/readyz``, each with every check or with one (``/readyz/cache``).

In: checks, which may be synchronous or not. Out: ``ok``, or one line per check in the words of Kubernetes, and
500 if any failed. Why it failed goes to the log only, because probes are not authenticated. A check that raises,
or does not answer in time, has failed; it never breaks the probe. An endpoint exists once a check of its sort
was added. Semantics: controller-runtime's healthz.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from aiohttp import web

log = logging.getLogger("kaito.manager.health")

CHECK_SECONDS = 10.0

Check = Callable[[], "str | Awaitable[str | None] | None"]
"""None when healthy, else why not. Asynchronous checks run at once and have ten seconds."""


def ping() -> None:
    """The check that always passes: the process answers."""


@dataclass(slots=True)
class Probes:
    """The checks behind ``/healthz`` and ``/readyz``."""

    health: dict[str, Check] = field(default_factory=dict)
    ready: dict[str, Check] = field(default_factory=dict)

    async def answer(
        self, name: str, checks: Mapping[str, Check], *, single: str = "", excluded: frozenset[str], verbose: bool
    ) -> tuple[int, str]:
        """Status and body. ``single`` runs that check alone; no checks at all count as ``ping``."""
        checks = checks or {"ping": ping}
        if single:
            if single not in checks:
                return 404, "404 page not found\n"
            checks, excluded = {single: checks[single]}, frozenset()
        wanted = [check for check in sorted(checks) if check not in excluded]
        problems = dict(zip(wanted, await asyncio.gather(*(_problem(checks[c]) for c in wanted)), strict=True))
        lines = [_line(check, problems) for check in sorted(checks)]
        if unknown := sorted(excluded - set(checks)):
            quoted = ", ".join(f'"{item}"' for item in unknown)
            lines.append(f"warn: some health checks cannot be excluded: no matches for {quoted}")
        failed = {check: problem for check, problem in problems.items() if problem is not None}
        for check, problem in failed.items():
            log.info("probe failed probe=%s check=%s reason=%s", name, check, problem)
        if failed:
            return 500, "\n".join([*lines, f"{name} check failed\n"])
        return 200, "\n".join([*lines, f"{name} check passed\n"]) if verbose else "ok"


def _line(check: str, problems: Mapping[str, str | None]) -> str:
    if check not in problems:
        return f"[+]{check} excluded: ok"
    return f"[+]{check} ok" if problems[check] is None else f"[-]{check} failed: reason withheld"


async def _problem(check: Check) -> str | None:
    try:
        found = check()
        if inspect.isawaitable(found):
            async with asyncio.timeout(CHECK_SECONDS):
                return await found
        return found
    except TimeoutError:
        return f"no answer within {CHECK_SECONDS:g} s"
    except Exception as error:
        return repr(error)


def probe_app(probes: Probes) -> web.Application:
    """The application of the probes."""

    async def serve(request: web.Request) -> web.Response:
        name, _, single = request.path.strip("/").partition("/")
        checks = probes.ready if name == "readyz" else probes.health
        if not checks:
            raise web.HTTPNotFound(text="404 page not found\n")
        excluded = frozenset(request.query.getall("exclude", ()))
        status, body = await probes.answer(
            name, checks, single=single, excluded=excluded, verbose="verbose" in request.query
        )
        return web.Response(status=status, text=body, headers={"X-Content-Type-Options": "nosniff"})

    app = web.Application()
    for root in ("/healthz", "/readyz"):
        app.router.add_get(root, serve)
        app.router.add_get(root + "/", serve)
        app.router.add_get(root + "/{check:[^/]+}", serve)
        app.router.add_get(root + "/{check:[^/]+}/", serve)
    return app
