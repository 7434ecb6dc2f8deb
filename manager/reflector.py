"""Keeps a local copy of one collection true: fill it, then follow it, for ever, whatever the server does.

In: a client and what to watch. Out: calls on a sink, in the server's order: ``replace`` with the whole collection,
``apply`` with changes, ``bookmark`` with progress. The reflector owns the resource version that it has reached;
it never goes back in time. Errors never end it, only cancellation does. The copy is filled by a streamed list
(one request that then goes on as the watch) where the server knows it, else by a list and a watch after it. The
table of what leads to what is client-go's (tools/cache/reflector.go):

=====================================  ==========================================================
while it is filled by a stream
connection refused or broken, 429      back off, stream again (broken three times: list)
ends before the mark                   back off, stream again (three times: list)
410, "too large" version               stream at ``""``, at once
400, 405, 422, 501                     list, now and from now on
no mark in time                        list; from now on, if the list shows that the server was there
anything else                          list
while it is filled by a list
nothing seen yet                       list at ``"0"`` (whatever the watch cache has)
something seen                         list at that version; 410 or "too large": once more at ``""``
while it is followed
watch refused (connection, 429)        back off, watch from the same version, no list
watch ends normally                    watch on from the last version, at once
watch ends at once with nothing        an error: back off, fill
ERROR 410                              back off, fill from the last version
ERROR 429                              back off, watch from the same version
ERROR 500 InternalError                the same within a window, if one is configured; else as below
connection breaks                      watch on from the last version; at once if the watch had worked
silence of 70 s                        watch on from the last version, at once
anything else                          back off, fill
=====================================  ==========================================================
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Protocol

from manager.backoff import ExponentialBackoff
from manager.client import ObjectList
from manager.errors import ApiError, ConnectionFailed, Gone, ManagerError, StreamSilent, TooManyRequests
from manager.follower import Follower
from manager.follower import Sink as Sink
from manager.pager import PAGE_SIZE, Listing, Pager, Query
from manager.refusals import NOT_STREAMED, InternalErrors, version_is_unusable
from manager.screen import Screen, Transform
from manager.streamedlist import Contents, Patience
from manager.types import Obj, Resource
from manager.watch import INACTIVITY_SECONDS, WatchEvent

log = logging.getLogger("kaito.manager.reflector")

_WATCH_TIMEOUT = 300.0  # seconds; the least that a watch is asked to last
_SHORT_WATCH = 1.0  # seconds; a watch that ends within this time without an event did not work
_STREAM_TRIES = 3  # streams in a row that broke off before the mark: then something cannot carry them


class Upstream(Protocol):
    """What a reflector needs of a client."""

    async def list_page(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        query: Query | None = None,
        metadata_only: bool = False,
        each: Callable[[Obj], Obj | None],
    ) -> ObjectList:
        """One page of a list; ``each`` shapes its items."""
        ...

    def watch_batches(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        resource_version: str | None = None,
        label_selector: str | None = None,
        field_selector: str | None = None,
        timeout_seconds: int | None = None,
        send_initial_events: bool = False,
        metadata_only: bool = False,
        silence: float | None = None,
    ) -> AsyncGenerator[list[WatchEvent], None]:
        """One watch."""
        ...


class Backoff(Protocol):
    """How long to wait before the next try."""

    def next(self) -> float:
        """Seconds."""
        ...


@dataclass(frozen=True, slots=True)
class Limits:
    """Times of a reflector, all in seconds.

    Attributes:
        watch_timeout: how long a watch is asked to last at least; the server is asked for a random time between
            this and twice this, so that a restarted server is not met by all at once. Less than 300 counts as 300.
        silence: after which the peer of a watch counts as gone; None: never.
        mark_quiet: how long a streamed list may be quiet before its end is not waited for any more.
        mark_total: how long a streamed list may take in all.
        internal_errors: how long a watch that is answered with internal errors is tried again without filling
            anew.
        slow_list: filling takes longer than this: it is logged.
    """

    watch_timeout: float = _WATCH_TIMEOUT
    silence: float | None = INACTIVITY_SECONDS
    mark_quiet: float = 30.0
    mark_total: float = 90.0
    internal_errors: float = 0.0
    slow_list: float = 10.0


@dataclass(slots=True)
class _Stream:
    """A watch request under way, and what it leads to."""

    batches: AsyncGenerator[list[WatchEvent], None]
    began: float
    follower: Follower
    rest: list[WatchEvent] = field(default_factory=list)  # read together with the mark of a streamed list


class Reflector:
    """See the module. Run :meth:`run` as a task.

    Args:
        client: usually a ``Client``.
        page_size: of every list request; None leaves it to the rules of the watch cache.
        transform: applied once to every object before the sink gets it. An object for which it fails is dropped.
        metadata_only: ask for and deliver only metadata; apiVersion and kind are those of the resource.
        watch_list: fill by a streamed list where the server can.
        resync_period: seconds between calls of the sink's ``resync``; None: none.
        backoff: delays between tries; by default 0.8 s doubling to 30 s, each stretched up to twofold.
        on_error: told of every error that led to another try, instead of the log.
    """

    def __init__(
        self,
        client: Upstream,
        resource: Resource,
        sink: Sink,
        *,
        namespace: str | None = None,
        label_selector: str | None = None,
        field_selector: str | None = None,
        page_size: int | None = None,
        transform: Transform | None = None,
        metadata_only: bool = False,
        watch_list: bool = True,
        resync_period: float | None = None,
        backoff: Backoff | None = None,
        on_error: Callable[[ManagerError], None] | None = None,
        rng: random.Random | None = None,
        limits: Limits | None = None,
    ) -> None:
        self._client = client
        self._resource = resource
        self._sink = sink
        self._namespace = namespace
        self._label_selector, self._field_selector = label_selector, field_selector
        self._page_size = page_size
        self._screen = Screen(resource, transform, metadata_only=metadata_only)
        self._metadata_only = metadata_only
        self._streams = watch_list
        self._resync_period = resync_period
        self._rng = rng or random.Random()  # noqa: S311 - spreads load, guards nothing
        self._given_backoff = backoff
        self._on_error = on_error
        self._limits = limits or Limits()
        self._version = ""
        self._version_unavailable = False
        self._cache_is_off = False  # a list at "0" that came in pages shows that there is no watch cache
        self._broken_streams = 0
        self._unmarked: int | None = None  # events of a streamed list whose mark did not come in time
        self.lists = 0
        self.streamed_lists = 0
        self.watches = 0

    def __repr__(self) -> str:
        return (
            f"<Reflector {self._resource.plural} at {self._version or 'nothing yet'}"
            f" lists={self.lists} streamed={self.streamed_lists} watches={self.watches}>"
        )

    @property
    def resource_version(self) -> str:
        """How far the copy has come; empty before it is filled."""
        return self._version

    async def run(self) -> None:
        """Keep the copy true until cancelled."""
        if self._resync_period is None:
            await self._keep()
            return
        async with asyncio.TaskGroup() as group:
            group.create_task(self._resync(self._resync_period), name=f"resync-{self._resource.plural}")
            await self._keep()

    async def _keep(self) -> None:
        self._backoff = self._given_backoff or ExponentialBackoff(asyncio.get_running_loop().time, rng=self._rng)
        while True:
            try:
                stream = await self._fill()
                await self._follow(stream)
            except ManagerError as error:
                await self._pause(error)

    async def _resync(self, period: float) -> None:
        while True:
            await asyncio.sleep(period)
            if self.lists or self.streamed_lists:
                self._sink.resync()

    async def _pause(self, error: ManagerError) -> None:
        """Say what went wrong, and wait before the next try."""
        asked = error.retry_after if isinstance(error, ApiError) else None
        delay = max(self._backoff.next(), asked or 0.0)
        if self._on_error is not None:
            try:
                self._on_error(error)
            except Exception:
                log.exception("error handler failed resource=%s", self._resource.plural)
        else:
            # Expired is what a long quiet time leads to, and no news.
            level = logging.DEBUG if isinstance(error, Gone) else logging.WARNING
            text = "list or watch failed resource=%s retry_in=%.1f error=%s"
            log.log(level, text, self._resource.plural, delay, error)
        await asyncio.sleep(delay)

    # ------------------------------------------------------------------ fill

    async def _fill(self) -> _Stream | None:
        """Make the copy whole. The stream that goes on as the watch, or None after a list."""
        began = asyncio.get_running_loop().time()
        stream = await self._fill_by_stream() if self._streams else None
        if stream is None:
            await self._fill_by_list()
        took = asyncio.get_running_loop().time() - began
        if took > self._limits.slow_list:
            log.warning(
                "slow list resource=%s seconds=%.1f version=%s", self._resource.plural, took, self._version
            )
        return stream

    async def _fill_by_list(self) -> None:
        version = "" if self._version_unavailable else self._version or "0"
        try:
            found = await self._list(version)
        except ApiError as error:
            if version == "" or not version_is_unusable(error):
                raise
            self._version_unavailable = True
            found = await self._list("")
        if version == "0" and found.paginated:
            self._cache_is_off = True
        if self._unmarked is not None:
            # The server answered a list, but not the stream: it ignores the parameter, unless it sent nothing at
            # all where there was something to send; then it was the connection.
            self._streams = not (self._unmarked or not found.items)
            self._unmarked = None
        self._version_unavailable = False
        self._version = found.resource_version
        self.lists += 1
        self._sink.replace(found.items, found.resource_version)

    async def _list(self, version: str) -> Listing:
        """All pages. Versions but ``""`` and ``"0"`` are asked for whole: a limit would bypass the watch cache."""
        if self._page_size is not None:
            size = self._page_size
        elif version in ("", "0") or self._cache_is_off:
            size = PAGE_SIZE
        else:
            size = 0
        query = {
            "labelSelector": self._label_selector,
            "fieldSelector": self._field_selector,
            "resourceVersion": version or None,
        }
        return await Pager(self._page, page_size=size).list(query)

    async def _page(self, query: Query) -> ObjectList:
        return await self._client.list_page(
            self._resource,
            self._namespace,
            query=query,
            metadata_only=self._metadata_only,
            each=self._screen.shape,
        )

    async def _fill_by_stream(self) -> _Stream | None:
        """The stream, past the mark; None: list instead."""
        if self._broken_streams >= _STREAM_TRIES:
            self._broken_streams = 0
            return None
        while True:
            try:
                return await self._stream_list("" if self._version_unavailable else self._version)
            except TooManyRequests:
                raise
            except ApiError as error:
                if version_is_unusable(error) and not self._version_unavailable:
                    self._version_unavailable = True
                    continue
                self._streams = error.status not in NOT_STREAMED
                log.debug("list not streamed, listing resource=%s error=%s", self._resource.plural, error)
                return None
            except TimeoutError:
                log.info("end of a streamed list did not come, listing resource=%s", self._resource.plural)
                return None

    async def _stream_list(self, version: str) -> _Stream:
        """Ask for a streamed list and read it to its mark. ``TimeoutError``: the mark did not come in time."""
        stream = self._open(version, initial=True)
        contents = Contents(self._screen)
        rest: list[WatchEvent] | None = None
        patience = Patience(self._resource.plural, quiet=self._limits.mark_quiet, total=self._limits.mark_total)
        try:
            async with patience:
                async for events in stream.batches:
                    rest = contents.take(events)
                    if rest is not None:
                        break
                    patience.renew()
        except BaseException as error:
            await stream.batches.aclose()
            if isinstance(error, TimeoutError):
                self._unmarked = contents.seen
            elif isinstance(error, ConnectionFailed) and contents.seen:
                self._broken_streams += 1
            raise
        if rest is None:
            self._broken_streams += 1
            raise ConnectionFailed(f"a streamed list of {self._resource.plural} ended before its mark")
        self._broken_streams = 0
        self._version_unavailable = False
        self._version = contents.version
        self.streamed_lists += 1
        stream.follower = Follower(self._screen, self._sink, contents.version)
        stream.follower.seen = contents.seen
        stream.rest = rest
        self._sink.replace(contents.items(), contents.version)
        return stream

    # ------------------------------------------------------------------ follow

    async def _follow(self, stream: _Stream | None) -> None:
        """Watch, and watch again, until only filling anew can help; that is raised."""
        loop = asyncio.get_running_loop()
        window = InternalErrors(self._limits.internal_errors)
        hasty = False  # the watch before ended at once as well
        while True:
            if stream is None:
                stream = self._open(self._version)
            ended, stream = stream, None
            failure: ManagerError | None = None
            try:
                async with aclosing(ended.batches):
                    if ended.rest:
                        self._take(ended.follower, ended.rest)
                    async for events in ended.batches:
                        self._take(ended.follower, events)
            except StreamSilent:
                # Its whole time was up, so this cannot be a tight loop; and servers of 1.20 send idle watches no
                # bookmark within it. Nothing is watched during a pause, so there is none.
                log.debug("watch was silent, opening it anew resource=%s", self._resource.plural)
                continue
            except ConnectionFailed as error:
                failure = error
            except ApiError as error:
                if error.status != 429 and not window.allows(error, loop.time()):
                    raise
                await self._pause(error)
                continue
            short = loop.time() - ended.began < _SHORT_WATCH
            if failure is None and short and not ended.follower.seen:
                raise ConnectionFailed(f"a watch of {self._resource.plural} ended at once without any event")
            if failure is not None and (short or not ended.follower.seen):
                await self._pause(failure)
            elif short and hasty:
                await self._pause(ConnectionFailed(f"watches of {self._resource.plural} end at once"))
            hasty = short

    def _open(self, version: str, *, initial: bool = False) -> _Stream:
        self.watches += 1
        least = int(max(self._limits.watch_timeout, _WATCH_TIMEOUT))
        batches = self._client.watch_batches(
            self._resource,
            self._namespace,
            resource_version=version or None,
            label_selector=self._label_selector,
            field_selector=self._field_selector,
            timeout_seconds=self._rng.randint(least, 2 * least),
            send_initial_events=initial,
            metadata_only=self._metadata_only,
            silence=self._limits.silence,
        )
        return _Stream(batches, asyncio.get_running_loop().time(), Follower(self._screen, self._sink, version))

    def _take(self, follower: Follower, events: list[WatchEvent]) -> None:
        follower.take(events)
        self._version = follower.version
