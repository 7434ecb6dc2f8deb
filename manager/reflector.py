"""Keeps a local copy of one collection true: list, then watch, for ever, whatever the server does.

In: a client and what to watch. Out: calls on a sink, in the server's order: ``replace`` with a whole list,
``apply`` with one change, ``bookmark`` with progress. The reflector owns the resource version that it has reached;
it never goes back in time. Errors never end it, only cancellation does. The table of what leads to what is
client-go's (tools/cache/reflector.go; list and watch semantics: Kubernetes API concepts):

=====================================  ==========================================================
what happened                          what follows
=====================================  ==========================================================
nothing seen yet                       list at ``"0"`` (whatever the watch cache has)
seen something                         list at that version; 410 or "too large" → once more at ``""``
watch refused (connection, 429)        back off, watch from the same version, no list
watch ends normally                    watch on from the last version
watch ends at once with nothing        an error: back off, list
ERROR 410                              back off, list from the last version
ERROR 429                              back off, watch from the same version
connection breaks                      back off, watch on from the last version
silence of 70 s                        watch on from the last version at once
anything else                          back off, list
=====================================  ==========================================================

A server that streams its lists (WatchList) would replace :meth:`Reflector._list`; nothing else depends on how the
copy is first filled.
"""

from __future__ import annotations

import asyncio
import logging
import random
from contextlib import aclosing
from typing import Protocol

from manager.backoff import ExponentialBackoff
from manager.client import Client, ObjectList
from manager.errors import ApiError, ConnectionFailed, ManagerError, StreamSilent
from manager.meta import key, resource_version
from manager.types import Obj, Resource
from manager.watch import WatchEvent

log = logging.getLogger("kaito.manager.reflector")

_PAGE = 500
_WATCH_MIN, _WATCH_MAX = 300, 600  # seconds; spread, so that a restarted server is not met by all at once
_SHORT_WATCH = 1.0  # a watch that ends within this time without an event did not work


class Sink(Protocol):
    """Who keeps the copy."""

    def replace(self, items: list[Obj], version: str) -> None:
        """The whole collection, as of this version."""

    def apply(self, events: list[WatchEvent]) -> None:
        """Changes in the server's order: each ADDED, MODIFIED or DELETED. Never empty."""

    def bookmark(self, version: str) -> None:
        """Everything up to this version has been seen."""


class Reflector:
    """See the module. Run :meth:`run` as a task."""

    def __init__(
        self,
        client: Client,
        resource: Resource,
        sink: Sink,
        *,
        namespace: str | None = None,
        label_selector: str | None = None,
        field_selector: str | None = None,
        page_size: int | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self._client = client
        self._resource = resource
        self._sink = sink
        self._namespace = namespace
        self._selectors = {"labelSelector": label_selector, "fieldSelector": field_selector}
        self._page_size = page_size
        self._rng = rng or random.Random()  # noqa: S311 - spreads load, guards nothing
        self._version = ""
        self._version_unavailable = False
        self._cache_is_off = False  # a list at "0" that came in pages shows that there is no watch cache
        self.lists = 0
        self.watches = 0

    def __repr__(self) -> str:
        return f"<Reflector {self._resource.plural} at {self._version or 'nothing yet'} lists={self.lists}>"

    async def run(self) -> None:
        """Keep the copy true until cancelled."""
        backoff = ExponentialBackoff(asyncio.get_running_loop().time, rng=self._rng)
        while True:
            try:
                await self._fill()
                await self._follow(backoff)
                # Expired: as a rule after a long quiet time. A server that says so at once and always is not
                # to be listed in a loop.
                await asyncio.sleep(backoff.next())
            except ManagerError as error:
                delay = backoff.next()
                self._tell(error, delay)
                await asyncio.sleep(delay)

    # ------------------------------------------------------------------ list

    async def _fill(self) -> None:
        try:
            found = await self._list(self._list_version())
        except ApiError as error:
            if not _version_is_unusable(error):
                raise
            self._version_unavailable = True
            found = await self._list("")
        self._version_unavailable = False
        self._version = found.resource_version
        self.lists += 1
        self._sink.replace(found.items, found.resource_version)

    def _list_version(self) -> str:
        if self._version_unavailable:
            return ""
        return self._version or "0"

    async def _list(self, version: str) -> ObjectList:
        """All pages. Versions but ``""`` and ``"0"`` are asked for whole: a limit would bypass the watch cache."""
        if self._page_size is not None:
            limit: int | None = self._page_size
        elif version == "" or (version == "0" and self._cache_is_off):
            limit = _PAGE
        else:
            limit = None if version != "0" else _PAGE
        query: dict[str, str | int | bool | None] = {
            **self._selectors,
            "limit": limit,
            "resourceVersion": version or None,
        }
        items: list[Obj] = []
        page = await self._page(query)
        if version == "0" and page.continue_token:
            self._cache_is_off = True
        while page.continue_token:
            items += page.items
            try:
                page = await self._page(
                    {
                        **query,
                        "resourceVersion": None,
                        "resourceVersionMatch": None,
                        "continue": page.continue_token,
                    }
                )
            except ApiError as error:
                if error.status != 410:
                    raise
                return await self._page({**query, "limit": None})  # the token expired: all at once, from the start
        return ObjectList([*items, *page.items], page.resource_version)

    async def _page(self, query: dict[str, str | int | bool | None]) -> ObjectList:
        return await self._client.list_page(self._resource, self._namespace, query=query)

    # ------------------------------------------------------------------ watch

    async def _follow(self, backoff: ExponentialBackoff) -> None:
        """Watch, and watch again, until only a new list can help."""
        loop = asyncio.get_running_loop()
        while True:
            began, seen = loop.time(), 0
            try:
                self.watches += 1
                batches = self._client.watch_batches(
                    self._resource,
                    self._namespace,
                    resource_version=self._version,
                    label_selector=self._selectors["labelSelector"],
                    field_selector=self._selectors["fieldSelector"],
                    timeout_seconds=self._rng.randint(_WATCH_MIN, _WATCH_MAX),
                )
                async with aclosing(batches):
                    async for events in batches:
                        seen += len(events)
                        self._take(events)
            except StreamSilent:
                # Its whole time was up, so this cannot be a tight loop; and servers of 1.20 send idle watches no
                # bookmark within it. Nothing is watched during a pause, so there is none.
                log.debug("watch was silent, opening it anew resource=%s", self._resource.plural)
                continue
            except ConnectionFailed as error:
                # Broken while it ran: carry on from where it was. Refused: the same, after a pause.
                delay = backoff.next()
                self._tell(error, delay)
                await asyncio.sleep(delay)
                continue
            except ApiError as error:
                if error.status == 410:
                    log.debug("watch expired, listing resource=%s", self._resource.plural)
                    return
                if error.status != 429:
                    raise
                delay = max(backoff.next(), error.retry_after or 0.0)
                self._tell(error, delay)
                await asyncio.sleep(delay)
                continue
            if seen == 0 and loop.time() - began < _SHORT_WATCH:
                raise ConnectionFailed(f"a watch of {self._resource.plural} ended at once without any event")

    def _take(self, events: list[WatchEvent]) -> None:
        changes: list[WatchEvent] = []
        for event in events:
            version = resource_version(event.object)
            if event.type == "BOOKMARK":
                if changes:
                    self._sink.apply(changes)
                    changes = []
                if version:
                    self._sink.bookmark(version)
            elif (
                event.object.get("kind") != self._resource.kind
                or event.type not in ("ADDED", "MODIFIED", "DELETED")
                or not key(event.object)
            ):
                log.warning("unexpected event skipped resource=%s type=%s", self._resource.plural, event.type)
                continue
            else:
                changes.append(event)
            self._version = version or self._version
        if changes:
            self._sink.apply(changes)

    def _tell(self, error: ManagerError, delay: float) -> None:
        log.warning("list or watch failed resource=%s retry_in=%.1f error=%s", self._resource.plural, delay, error)


def _version_is_unusable(error: ApiError) -> bool:
    """410, or "too large resource version" in the shapes that old and new servers give it."""
    if error.status == 410:
        return True
    causes = (error.details or {}).get("causes") or []
    if any(cause.get("reason") == "ResourceVersionTooLarge" for cause in causes):
        return True
    return "Too large resource version" in error.message
