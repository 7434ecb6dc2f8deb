"""The client that controllers use: reads from the cache, writes to the server, and reads that know of the writes.

In: the direct client and a cache. Out: the same client, with the same connections and identity, but for ``get``
and ``list``. Kinds that are not worth a watch can be left out (``uncached``); they are read from the server. A
read for which a cache has no answer (another resource version) goes to the server too. Semantics:
controller-runtime's client, with read-your-writes on by default.
"""

from __future__ import annotations

from collections.abc import Iterable

from manager.cache import Cache
from manager.client import Client, ObjectList
from manager.types import Obj, Resource


class CachedClient(Client):
    """See the module.

    Args:
        live: makes all requests; closing either closes both.
        uncached: kinds to read from the server, whatever their version.
    """

    def __init__(self, live: Client, cache: Cache, *, uncached: Iterable[Resource] = ()) -> None:
        # Not a second client: the same transport, credentials and observers under another way to read. Whatever
        # the direct client learns to do, this one does.
        self.__dict__.update(live.__dict__)
        self.live = live
        self.cache = cache
        self._uncached = frozenset((resource.group, resource.plural) for resource in uncached)

    def __repr__(self) -> str:
        return f"<CachedClient of {self.live!r}>"

    def is_cached(self, resource: Resource) -> bool:
        """Whether reads of this kind come from the cache."""
        return (resource.group, resource.plural) not in self._uncached

    async def get(
        self,
        resource: Resource,
        name: str,
        namespace: str | None = None,
        *,
        resource_version: str | None = None,
        subresource: str | None = None,
        copy: bool = False,
        consistent: bool = True,
    ) -> Obj:
        """As ``Cache.get``; a kind that is not cached, a subresource, or a version is the server's."""
        if resource_version is not None or subresource is not None or not self.is_cached(resource):
            return await super().get(
                resource, name, namespace, resource_version=resource_version, subresource=subresource
            )
        if self._namespace is not None:
            namespace = self._confined(resource, namespace)
        return await self.cache.get(
            resource, name, namespace, metadata_only=self._metadata_only, copy=copy, consistent=consistent
        )

    async def list(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        label_selector: str | None = None,
        field_selector: str | None = None,
        limit: int | None = None,
        resource_version: str | None = None,
        resource_version_match: str | None = None,
        copy: bool = False,
        consistent: bool = True,
    ) -> ObjectList:
        """As ``Cache.list``; a kind that is not cached, or a given version, is read from the server.

        ``limit`` is the most that a cached list gives; of the direct client it is the size of a page.
        """
        if resource_version is not None or not self.is_cached(resource):
            return await super().list(
                resource,
                namespace,
                label_selector=label_selector,
                field_selector=field_selector,
                limit=limit,
                resource_version=resource_version,
                resource_version_match=resource_version_match,
            )
        if self._namespace is not None:
            namespace = self._confined(resource, namespace)
        return await self.cache.list(
            resource,
            namespace,
            metadata_only=self._metadata_only,
            label_selector=label_selector,
            field_selector=field_selector,
            limit=limit,
            copy=copy,
            consistent=consistent,
        )
