"""All informers of a process: one per collection watched, shared by everybody who asks for the same.

Informers that are asked for before the cache runs start with it; later ones start at once. The cache owns their
tasks: an informer that fails (a programming error; the network cannot make it fail) ends the cache.
"""

from __future__ import annotations

import asyncio

from manager.client import Client
from manager.errors import ManagerError
from manager.informer import Informer
from manager.types import Resource

_Key = tuple[Resource, str | None, str | None, str | None]


class CacheNotSynced(ManagerError):
    """A collection could not be listed in time; the message names it."""


class Cache:
    """See the module."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._informers: dict[_Key, Informer] = {}
        self._tasks: asyncio.TaskGroup | None = None

    def __repr__(self) -> str:
        return f"<Cache {len(self._informers)} informers>"

    def informer(
        self,
        resource: Resource,
        *,
        namespace: str | None = None,
        label_selector: str | None = None,
        field_selector: str | None = None,
    ) -> Informer:
        """The informer of a collection; the same arguments give the same informer."""
        wanted = (resource, namespace, label_selector, field_selector)
        informer = self._informers.get(wanted)
        if informer is None:
            informer = Informer(
                self._client,
                resource,
                namespace=namespace,
                label_selector=label_selector,
                field_selector=field_selector,
            )
            self._informers[wanted] = informer
            if self._tasks is not None:
                self._tasks.create_task(informer.run(), name=f"informer-{resource.plural}")
        return informer

    async def wait_for_sync(self, timeout: float | None = 120.0) -> None:
        """Until every informer has its first list.

        Raises:
            CacheNotSynced: not within ``timeout`` seconds; names those that are missing.
        """
        try:
            async with asyncio.timeout(timeout):
                for informer in list(self._informers.values()):
                    await informer.wait_synced()
        except TimeoutError:
            missing = sorted(i.resource.plural for i in self._informers.values() if not i.has_synced)
            raise CacheNotSynced(
                f"could not list {', '.join(missing)} within {timeout:.0f} s; "
                "does the server know the kind, and may this account list and watch it?"
            ) from None

    async def run(self) -> None:
        """Keep all informers running until cancelled. May be called once."""
        if self._tasks is not None:
            raise ManagerError("the cache runs already")
        async with asyncio.TaskGroup() as group:
            self._tasks = group
            for informer in self._informers.values():
                group.create_task(informer.run(), name=f"informer-{informer.resource.plural}")
            await asyncio.Event().wait()  # a group without tasks would end
