"""Recording what happened as Events (events.k8s.io/v1), so that ``kubectl describe`` tells the story.

Recording never blocks, fails or slows a reconcile: events go into a bounded queue, and a full one drops. Repeats
of one event (same object, type, reason and action) within six minutes become one Event with a series count, which
is written on the second occurrence and then at most every half minute, so that a loop of failures does not become
a loop of writes. Events live in the namespace of their object, those of cluster-scoped objects in ``default``.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from dataclasses import dataclass
from datetime import UTC, datetime

from manager.client import Client
from manager.errors import ApiError, Invalid, ManagerError, NotFound
from manager.meta import now_micro
from manager.resources import EVENTS_V1
from manager.types import Obj

log = logging.getLogger("kaito.manager.events")

_QUEUE = 1000
_SERIES_SECONDS = 360.0
_REFRESH_SECONDS = 30.0
_TRIES = 5
_NOTE_BYTES = 1024  # the API's own limit
_SYSTEM = "kube-system"
_DRAIN_SECONDS = 2.0

_Key = tuple[str, str, str, str]


@dataclass(frozen=True, slots=True)
class _Record:
    key: _Key
    event: Obj
    when: str


@dataclass(slots=True)
class _Series:
    name: str
    namespace: str
    last: float
    count: int = 1
    written: float = 0.0
    unwritten: _Record | None = None  # the latest repeat that only counted


class EventRecorder:
    """Records events of one component; made by ``Manager.events``."""

    def __init__(self, client: Client, component: str) -> None:
        self.component = component
        self._client = client
        self._instance = f"{component}-{socket.gethostname()}"[:128]
        self._queue: asyncio.Queue[_Record] = asyncio.Queue(_QUEUE)
        self._series: dict[_Key, _Series] = {}
        self._stamped = 0
        self._cluster_namespace = "default"

    def event(self, regarding: Obj, type: str, reason: str, note: str, *, action: str = "Reconcile") -> None:
        """Record that something happened to an object.

        Args:
            regarding: the object; apiVersion, kind and metadata are needed.
            type: ``Normal`` or ``Warning``.
            reason: one word in CamelCase.
            note: a sentence for people; cut at 1 KiB.
            action: what was being done, in CamelCase.
        """
        try:
            self._queue.put_nowait(self._record(regarding, type, reason, note, action))
        except asyncio.QueueFull:
            log.warning("event dropped, queue full reason=%s", reason)
        except Exception:  # a note must never cost a reconcile
            log.exception("event dropped reason=%s", reason)

    def _record(self, regarding: Obj, type: str, reason: str, note: str, action: str) -> _Record:
        meta = regarding.get("metadata") or {}
        namespace = meta.get("namespace") or "default"
        now = datetime.now(UTC)
        event: Obj = {
            "metadata": {"name": f"{meta.get('name')}.{self._stamp():x}", "namespace": namespace},
            "eventTime": now_micro(now),
            "type": type,
            "reason": reason,
            "action": action,
            "note": note.encode()[:_NOTE_BYTES].decode("utf-8", "ignore"),
            "reportingController": self.component,
            "reportingInstance": self._instance,
            "regarding": {
                "apiVersion": regarding.get("apiVersion"),
                "kind": regarding.get("kind"),
                "name": meta.get("name"),
                "uid": meta.get("uid"),
                **({"namespace": meta["namespace"]} if meta.get("namespace") else {}),
            },
        }
        key = (str(meta.get("uid") or f"{namespace}/{meta.get('name')}"), type, reason, action)
        return _Record(key, event, now_micro(now))

    def _stamp(self) -> int:
        """Nanoseconds that rise with every call: names sort by time, which is the order kubectl shows them in."""
        self._stamped = max(time.time_ns(), self._stamped + 1)
        return self._stamped

    async def run(self) -> None:
        """Write until cancelled; what is queued or half written then gets two more seconds."""
        record: _Record | None = None
        try:
            while True:
                record = await self._queue.get()
                await self._write(record)
                record = None
        except asyncio.CancelledError:
            try:
                async with asyncio.timeout(_DRAIN_SECONDS):
                    if record is not None:
                        await self._write(record)  # its name is its own: had it been written, it is refused now
                    while not self._queue.empty():
                        await self._write(self._queue.get_nowait())
                    for series in self._series.values():
                        await self._finish(series)
            except TimeoutError:
                log.warning("events lost at stop count=%d", self._queue.qsize())
            raise

    async def _write(self, record: _Record) -> None:
        now = asyncio.get_running_loop().time()
        await self._forget_old(now)
        series = self._series.get(record.key)
        for attempt in range(_TRIES):
            try:
                if series is None:
                    await self._create(record.event)
                    meta = record.event["metadata"]
                    self._series[record.key] = _Series(meta["name"], meta["namespace"], now)
                else:
                    await self._continue(series, record, now, again=attempt > 0)
                return
            except NotFound:
                if series is None:
                    return  # the namespace is gone
                series = None  # the Event expired: begin a new one
            except ApiError as error:
                if error.status < 500 and error.status != 429:
                    log.info("event refused reason=%s error=%s", record.event["reason"], error)
                    return
                await asyncio.sleep(0.2 * 2**attempt)
            except ManagerError:
                await asyncio.sleep(0.2 * 2**attempt)
            except Exception:  # such as a note that is no text: one event's trouble, not the recorder's end
                log.exception("event dropped reason=%s", record.event["reason"])
                return
        log.warning("event lost reason=%s", record.event["reason"])

    async def _create(self, event: Obj) -> None:
        """Create it; what is about no namespace goes where this server wants it, which differs: old servers
        (seen: 1.20) take such an Event only in kube-system."""
        placed = event["metadata"]["namespace"]
        if not event["regarding"].get("namespace"):
            event["metadata"]["namespace"] = self._cluster_namespace
        try:
            await self._client.create(EVENTS_V1, event)
        except Invalid:
            if event["regarding"].get("namespace") or event["metadata"]["namespace"] == _SYSTEM:
                raise
            event["metadata"]["namespace"] = _SYSTEM
            await self._client.create(EVENTS_V1, event)
            self._cluster_namespace = _SYSTEM
            log.debug("events of cluster-scoped objects go elsewhere from=%s to=%s", placed, _SYSTEM)

    async def _continue(self, series: _Series, record: _Record, now: float, *, again: bool) -> None:
        if not again:
            series.count += 1
        series.last, series.unwritten = now, record
        if series.count > 2 and now - series.written < _REFRESH_SECONDS:
            return
        await self._patch(series, record)
        series.written = now

    async def _patch(self, series: _Series, record: _Record) -> None:
        patch = {
            "series": {"count": series.count, "lastObservedTime": record.when},
            "note": record.event["note"],
        }
        await self._client.patch(EVENTS_V1, series.name, patch, namespace=series.namespace)
        series.unwritten = None

    async def _finish(self, series: _Series) -> None:
        """Write the count that the last refresh left out; once, for the Event may be gone."""
        if series.unwritten is None:
            return
        try:
            await self._patch(series, series.unwritten)
        except ManagerError as error:
            log.info("event series not finished name=%s error=%s", series.name, error)

    async def _forget_old(self, now: float) -> None:
        old = [key for key, series in self._series.items() if now - series.last > _SERIES_SECONDS]
        for key in old:
            await self._finish(self._series.pop(key))
