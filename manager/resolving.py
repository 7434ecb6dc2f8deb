"""A look-up of host names that tells how long it took. Made only where somebody asked for that metric."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver


class TimedResolver(AbstractResolver):
    """aiohttp's resolver with a clock; ``told`` gets the host and the seconds of each look-up."""

    def __init__(self, told: Callable[[str, float], None]) -> None:
        self._told = told
        self._resolver = ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """See ``AbstractResolver``."""
        clock = asyncio.get_running_loop().time
        began = clock()
        try:
            return await self._resolver.resolve(host, port, family)
        finally:
            self._told(host, clock() - began)

    async def close(self) -> None:
        """See ``AbstractResolver``."""
        await self._resolver.close()
