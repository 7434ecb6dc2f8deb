"""Recording what happened as Events (events.k8s.io/v1), so that ``kubectl describe`` tells the story.

In: :meth:`EventRecorder.event`, from reconcilers. Out: Events on the server. Recording never blocks, slows or
fails a reconcile: an occurrence is counted in memory (``event_series``), what would be too much is combined or
dropped (``event_limits``), and what is to be written waits in a queue of 1000 for eight writers; a full queue
drops. A write that fails is tried again for about two minutes where that can help. All state belongs to one
event loop; other threads may record too. Semantics: client-go's ``tools/events``.

An Event lives in the namespace of its object; one about a cluster-scoped object in ``default``, or in
``kube-system`` where an old server (seen: 1.20) takes it nowhere else.
"""

from __future__ import annotations

import asyncio
import logging
import random
import re
import socket
import time
from dataclasses import replace
from datetime import UTC, datetime
from enum import Enum, auto
from typing import Protocol

from manager.errors import AlreadyExists, ApiError, Forbidden, Invalid, ManagerError, NotFound
from manager.event_limits import COMBINED_NOTE, Aggregator, SpamFilter
from manager.event_series import EventKey, EventSeries, Occurrence, Reference, Series
from manager.meta import now_micro
from manager.resources import EVENTS, EVENTS_V1
from manager.types import Obj, Resource

log = logging.getLogger("kaito.manager.events")

_QUEUE = 1000
_WRITERS = 8
_TRIES = 12
_SLEEP_SECONDS = 10.0
_TICK_SECONDS = 10.0
_DRAIN_SECONDS = 2.0
_NOTE_BYTES = 1024  # this and the next are the API's own limits
_WORD_CHARACTERS = 128
_NAME_CHARACTERS = 253 - 17  # room for the dot and the stamp
_SYSTEM = "kube-system"


class EventSink(Protocol):
    """What is needed of a client."""

    async def create(self, resource: Resource, obj: Obj, *, namespace: str | None = None) -> Obj:
        """As ``Client.create``."""
        ...

    async def patch(self, resource: Resource, name: str, patch: Obj, *, namespace: str | None = None) -> Obj:
        """As ``Client.patch``, with a merge patch."""
        ...


class Verdict(Enum):
    """What a failed write means."""

    RETRY = auto()
    """The server is not there or not well. client-go gives up on any answer; a 503 is worth a second try."""
    REFUSED = auto()
    """It will say the same next time."""
    NOWHERE = auto()
    """The namespace is going or gone, and with it whoever would read the Event: not worth a word."""
    BUG = auto()
    """Not even asked, such as a note that is no text."""


def classify(error: Exception) -> Verdict:
    """What to do about an error of a write."""
    if not isinstance(error, ManagerError):
        return Verdict.BUG
    if not isinstance(error, ApiError) or error.status >= 500 or error.status == 429:
        return Verdict.RETRY
    causes = (error.details or {}).get("causes") or []
    if isinstance(error, NotFound) or any(cause.get("reason") == "NamespaceTerminating" for cause in causes):
        return Verdict.NOWHERE
    return Verdict.REFUSED


class EventRecorder:
    """Records events of one component; made by ``Manager.events``.

    Args:
        client: writes the Events; creates and patches ``events`` in ``events.k8s.io``, and patches them in the
        core
            group where it may (see ``_patch``).
        component: the reporting controller, a qualified name such as ``example.com/website`` or ``website``.
        rng: spreads the retries of many recorders.
    """

    def __init__(self, client: EventSink, component: str, *, rng: random.Random | None = None) -> None:
        self.component = component
        self._client = client
        self._rng = rng or random.Random()  # noqa: S311 - spreads load, guards nothing
        self._instance = f"{component}-{socket.gethostname()}"[:_WORD_CHARACTERS]
        self._series = EventSeries()
        self._similar = Aggregator()
        self._spam = SpamFilter()
        self._pending: asyncio.Queue[Series] = asyncio.Queue(_QUEUE)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stamped = 0
        self._dropped = 0
        self._cluster_namespace = "default"
        self._notes_are_fixed = False

    def __repr__(self) -> str:
        return f"<EventRecorder {self.component} {self._series!r} pending={self._pending.qsize()}>"

    def event(
        self,
        regarding: Obj,
        type: str,
        reason: str,
        note: str,
        *,
        action: str = "Reconcile",
        related: Obj | None = None,
    ) -> None:
        """Record that something happened to an object. Never raises, never waits; may be called from any thread.

        Args:
            regarding: the object; apiVersion, kind and metadata are needed.
            type: ``Normal`` or ``Warning``.
            reason: one word in CamelCase; at most 128 characters.
            note: a sentence for people; cut at 1 KiB. Events that differ in their notes alone count as one, which
                shows the newest.
            action: what was being done, in CamelCase; at most 128 characters.
            related: a second object that had a part in it.
        """
        try:
            key = EventKey(
                type,
                (action or "Reconcile")[:_WORD_CHARACTERS],
                reason[:_WORD_CHARACTERS],
                self.component,
                self._instance,
                _reference(regarding),
                None if related is None else _reference(related),
            )
            self._hand_over(Occurrence(key, _cut(note), now_micro(datetime.now(UTC))))
        except Exception:  # a note must never cost a reconcile
            log.exception("event dropped reason=%s", reason)

    async def run(self) -> None:
        """Write until cancelled; what the server does not know yet then gets two more seconds. May be called
        once."""
        self._loop = asyncio.get_running_loop()
        try:
            async with asyncio.TaskGroup() as group:
                for number in range(_WRITERS):
                    group.create_task(self._write_all(), name=f"events-{self.component}-{number}")
                while True:
                    await asyncio.sleep(_TICK_SECONDS)
                    self._tick(self._loop.time())
        except asyncio.CancelledError:
            await self._drain()
            raise

    # ------------------------------------------------------------------ taking

    def _hand_over(self, seen: Occurrence) -> None:
        try:
            here = asyncio.get_running_loop()
        except RuntimeError:
            here = None
        loop = self._loop or here
        if loop is None:
            raise ManagerError("an event was recorded outside of the event loop, before the recorder runs")
        if loop is here:
            self._take(seen, loop.time())
        else:
            loop.call_soon_threadsafe(self._take, seen, loop.time())

    def _take(self, seen: Occurrence, now: float) -> None:
        key = self._similar.key(seen.key, now)
        if key is not seen.key:
            seen = replace(seen, key=key, note=_cut(COMBINED_NOTE + seen.note))
        name = ""
        if key not in self._series:
            if not self._spam.admits((key.controller, key.instance, key.regarding), now):
                self._drop("too many about its object", key)
                return
            name = self._name(key.regarding.name)
        series = self._series.observe(seen, now, name=name)
        if series is None:
            return
        try:
            self._pending.put_nowait(series)
        except asyncio.QueueFull:
            self._series.failed(series, now)
            self._drop("queue full", key)

    def _drop(self, why: str, key: EventKey) -> None:
        if not self._dropped:  # the rest is told as a number, for a flood of events must not flood the log
            log.warning("event dropped, %s reason=%s object=%s", why, key.reason, key.regarding.name)
        self._dropped += 1

    def _tick(self, now: float) -> None:
        if self._dropped:
            log.warning("events dropped component=%s count=%d", self.component, self._dropped)
            self._dropped = 0
        for series in self._series.due(now):
            try:
                self._pending.put_nowait(series)
            except asyncio.QueueFull:
                self._series.put_back(series)

    def _name(self, regarding: str) -> str:
        """Its object's name and the nanoseconds, which rise with every call: names sort by time, which is the
        order kubectl shows them in. What no name may hold (RBAC's colons) is replaced."""
        self._stamped = max(time.time_ns(), self._stamped + 1)
        prefix = re.sub(r"[^a-z0-9.-]", "-", regarding.lower())[:_NAME_CHARACTERS].strip("-.") or "event"
        return f"{prefix}.{self._stamped:x}"

    # ------------------------------------------------------------------ writing

    async def _write_all(self) -> None:
        while True:
            await self._write(await self._pending.get())

    async def _write(self, series: Series) -> None:
        loop = asyncio.get_running_loop()
        tries = 0
        while True:
            count = series.count
            verdict = await self._try(series)
            if verdict is None:
                tries = 0
                if not self._series.wrote(series, count, loop.time()):
                    return
                continue
            tries += 1
            if verdict is not Verdict.RETRY or tries >= _TRIES:
                if verdict is Verdict.RETRY:
                    log.warning("event lost reason=%s object=%s", series.key.reason, series.key.regarding.name)
                self._series.failed(series, loop.time())
                return
            await asyncio.sleep(_SLEEP_SECONDS * (1 + 0.25 * self._rng.random()))

    async def _try(self, series: Series) -> Verdict | None:
        """Write it once; what the failure means, or None."""
        try:
            await self._send(series)
        except Exception as error:
            verdict = classify(error)
            words = "reason=%s object=%s error=%s"
            facts = (series.key.reason, series.key.regarding.name, error)
            if verdict is Verdict.BUG:
                log.exception("event dropped " + words, *facts)
            elif verdict is Verdict.REFUSED:
                log.warning("event refused " + words, *facts)
            else:
                log.debug("event not written " + words, *facts)
            return verdict
        return None

    async def _send(self, series: Series) -> None:
        if series.told:
            try:
                await self._patch(series)
                return
            except NotFound:
                series.told = 0  # it has expired, or somebody deleted it: told anew, with its whole count
        try:
            await self._create(series)
        except AlreadyExists:
            # The name is ours alone: an earlier try arrived, and only its answer was lost.
            if series.count > 1:
                await self._patch(series)

    async def _create(self, series: Series) -> None:
        series.namespace = series.key.regarding.namespace or self._cluster_namespace
        note = series.note
        try:
            await self._client.create(EVENTS_V1, series.body(series.namespace))
        except Invalid:
            if series.key.regarding.namespace or series.namespace == _SYSTEM:
                raise
            series.namespace = _SYSTEM
            await self._client.create(EVENTS_V1, series.body(_SYSTEM))
            self._cluster_namespace = _SYSTEM
            log.debug("events of cluster-scoped objects go elsewhere to=%s", _SYSTEM)
        series.told_note = note

    async def _patch(self, series: Series) -> None:
        """Tell the count, and the note if it is another one: that is refused in events.k8s.io (but not yet by
        1.20) and taken in the core group. Where this account may not patch there, the first note stays."""
        note = series.note
        if note != series.told_note and not self._notes_are_fixed:
            patch = {**series.patch(), "message": note}
            try:
                await self._client.patch(EVENTS, series.name, patch, namespace=series.namespace)
            except Forbidden as error:
                log.info("events keep their first note, for core events may not be patched error=%s", error)
                self._notes_are_fixed = True
            else:
                series.told_note = note
                return
        await self._client.patch(EVENTS_V1, series.name, series.patch(), namespace=series.namespace)

    async def _drain(self) -> None:
        left = list(self._series.unsaid())
        unsaid = len(left)

        async def write() -> None:
            nonlocal unsaid
            while left:
                await self._try(left.pop())
                unsaid -= 1

        try:
            async with asyncio.timeout(_DRAIN_SECONDS), asyncio.TaskGroup() as group:
                for _ in range(min(_WRITERS, len(left))):
                    group.create_task(write())
        except TimeoutError:
            log.warning("events lost at stop component=%s count=%d", self.component, unsaid)


def _reference(obj: Obj) -> Reference:
    meta = obj.get("metadata") or {}
    return Reference(
        str(obj.get("apiVersion") or ""),
        str(obj.get("kind") or ""),
        str(meta.get("namespace") or ""),
        str(meta.get("name") or ""),
        str(meta.get("uid") or ""),
    )


def _cut(note: str) -> str:
    return note.encode()[:_NOTE_BYTES].decode("utf-8", "ignore")
