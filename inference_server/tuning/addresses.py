"""Which addresses a download may connect to, decided at the moment of the connection.

In: names from URLs and redirects. Out: the addresses to connect to, or ``Refused``. The rule is the webhook's
(api/validation/urls.py), applied to what a name resolves to. The connection is made to the very addresses that
were judged, so a name whose answer changes between the question and the connection gains nothing.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from aiohttp.abc import AbstractResolver, ResolveResult

from api.validation.urls import problem_of_host

Lookup = Callable[[str, int], Awaitable[Sequence[tuple[Any, ...]]]]


class Refused(Exception):
    """An address that may not be fetched from; deliberately no OSError, which a client would retry."""


async def system_lookup(host: str, port: int) -> Sequence[tuple[Any, ...]]:
    """The system's answer, as of ``getaddrinfo``."""
    loop = asyncio.get_running_loop()
    return await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)


class GuardedResolver(AbstractResolver):
    """Resolves names to public addresses only. One private address among the answers is enough to refuse."""

    def __init__(self, lookup: Lookup = system_lookup) -> None:
        self._lookup = lookup

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """The addresses of a name. Raises Refused, and OSError when it has none."""
        found: list[ResolveResult] = []
        for kind, _, protocol, _, address in await self._lookup(host, port):
            if family not in (socket.AF_UNSPEC, kind):
                continue
            problem = problem_of_host(address[0])
            if problem:
                raise Refused(f"{host} resolves to {problem}")
            found.append(
                {
                    "hostname": host,
                    "host": address[0],
                    "port": address[1],
                    "family": kind,
                    "proto": protocol,
                    "flags": socket.AI_NUMERICHOST,
                }
            )
        if not found:
            raise OSError(None, f"{host} has no address")
        return found

    async def close(self) -> None:
        """Nothing is held."""
