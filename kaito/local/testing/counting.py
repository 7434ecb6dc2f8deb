"""Requests to an API server, counted by verb and resource.

In: what a client sends. Out: :attr:`CountingClient.seen`, with the verbs of an audit log: a patch of a status is
``patch workspaces/status``, the opening of a watch is one ``watch``, a question which kinds a group has is
``discover GROUP/VERSION``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, Callable
from typing import Unpack

from manager.client import Client, WatchEvent, WatchOptions
from manager.config import RestConfig
from manager.reads import Body, ObjectList
from manager.transport import Query
from manager.types import Obj, Resource

_VERBS = {"GET": "get", "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}


class CountingClient(Client):
    """See the module."""

    def __init__(self, config: RestConfig) -> None:
        super().__init__(config)
        self.seen: Counter[str] = Counter()

    def since(self, before: Counter[str]) -> dict[str, int]:
        """What was sent since ``before``, a copy of :attr:`seen`; sorted."""
        return dict(sorted((self.seen - before).items()))

    async def send(self, method: str, target: str, body: Body | None, headers: bytes) -> Obj:
        """See ``Client``."""
        self.seen[_described(method, target)] += 1
        return await super().send(method, target, body, headers)

    async def list_page(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        query: Query | None = None,
        metadata_only: bool = False,
        each: Callable[[Obj], Obj | None] = lambda item: item,
    ) -> ObjectList:
        """See ``Client``."""
        self.seen[f"list {resource.plural}"] += 1
        return await super().list_page(resource, namespace, query=query, metadata_only=metadata_only, each=each)

    def watch_batches(
        self, resource: Resource, namespace: str | None = None, **options: Unpack[WatchOptions]
    ) -> AsyncGenerator[list[WatchEvent], None]:
        """See ``Client``."""
        self.seen[f"watch {resource.plural}"] += 1
        return super().watch_batches(resource, namespace, **options)


def _described(method: str, target: str) -> str:
    parts = target.partition("?")[0].strip("/").split("/")
    group, rest = (parts[1:3], parts[3:]) if parts[0] == "apis" else (parts[1:2], parts[2:])
    if not rest:
        return f"discover {'/'.join(group)}"
    if rest[0] == "namespaces" and len(rest) > 2:
        rest = rest[2:]
    return f"{_VERBS.get(method, method)} {'/'.join((rest[0], *rest[2:]))}"
