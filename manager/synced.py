"""Waiting until several things have caught up with the server, and naming those that have not."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Protocol

from manager.errors import CacheNotSynced


class Synced(Protocol):
    """An informer, or the registration of a handler."""

    @property
    def name(self) -> str:
        """For messages."""
        ...

    @property
    def has_synced(self) -> bool:
        """Whether it has caught up; never goes back."""
        ...

    async def wait_synced(self) -> None:
        """Wait for it. Raises ``InformerStopped`` when that can no longer come."""


async def wait_for_sync(what: Iterable[Synced], timeout: float | None) -> None:
    """Until all have synced; cancelling it harms nothing.

    Raises:
        CacheNotSynced: not within ``timeout`` seconds; names those that are missing.
        InformerStopped: one of them never will.
    """
    waited = [*what]
    try:
        async with asyncio.timeout(timeout):
            for one in waited:
                await one.wait_synced()
    except TimeoutError:
        missing = sorted(one.name for one in waited if not one.has_synced)
        raise CacheNotSynced(
            f"could not list {', '.join(missing)} within {timeout:.0f} s; "
            "does the server know the kind, and may this account list and watch it?"
        ) from None
