"""A cluster besides the manager's own: a client of it and a cache, with the manager's life.

For operators that look at one cluster and act in another. Made by ``Manager.add_cluster``; its cache starts with
the manager's, before everything that might read it. Semantics: controller-runtime's ``cluster.Cluster``.
"""

from __future__ import annotations

from manager.cache import Cache
from manager.cache_options import CacheOptions
from manager.cached import CachedClient
from manager.client import Client


class Cluster:
    """See the module. ``live`` is the direct client, ``client`` reads from ``cache``; as a manager's own."""

    def __init__(self, name: str, live: Client, options: CacheOptions | None = None) -> None:
        self.name = name
        self.live = live
        self.cache = Cache(live, options)
        live.write_observer = self.cache.consistency
        self.client: Client = CachedClient(live, self.cache)

    def __repr__(self) -> str:
        return f"<Cluster {self.name} {self.cache!r}>"
