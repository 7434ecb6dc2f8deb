"""A collection with a history, in memory, and a wire to it that misbehaves: what a reflector needs of a client.

In: creations, changes and deletions, and a list of the ways in which requests go wrong. Out: lists, watches and
streamed lists with the semantics of an API server over etcd: one revision per change, a history that can be
compacted, lists at ``"0"`` that may be old, pages whose token expires. Nothing is random in here: what goes wrong,
and when, is given. For tests in virtual time.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass

from manager.client import ObjectList
from manager.errors import ConnectionFailed, ManagerError, StreamSilent, api_error
from manager.pager import Query
from manager.streamedlist import INITIAL_EVENTS_END
from manager.types import Obj, Resource
from manager.watch import WatchEvent

_REFUSALS: dict[str, tuple[int, str]] = {
    "expired": (410, "Expired"),
    "too-large": (504, "Timeout"),
    "busy": (429, "TooManyRequests"),
    "error": (500, "InternalError"),
    "forbidden": (403, "Forbidden"),
}

LIST_FAULTS = ("", "pages", "pages-expire", "refused", *_REFUSALS)
WATCH_FAULTS = ("", "end", "cut", "silent", "replay", "refused", *_REFUSALS)


@dataclass(frozen=True, slots=True)
class Fault:
    """How one request goes wrong: ``kind`` of the lists above, empty for not at all; ``after`` so many events of a
    watch, or with a list that is so many revisions old."""

    kind: str = ""
    after: int = 0


class Collection:
    """Objects of one kind, and everything that ever happened to them."""

    def __init__(self, resource: Resource) -> None:
        self.resource = resource
        self.revision = 1
        self.compacted = 0
        self.changed = asyncio.Event()
        self._changes: list[tuple[int, str, str, int]] = []  # revision, type, name, which object of that name

    def state(self, revision: int | None = None) -> dict[str, Obj]:
        """What there is, or was at a revision, by name."""
        found: dict[str, Obj] = {}
        for at, kind, name, born in self._changes:
            if revision is not None and at > revision:
                break
            if kind == "DELETED":
                del found[name]
            else:
                found[name] = self._object(name, at, born)
        return found

    def put(self, name: str) -> None:
        """Create or change an object."""
        now = self.state().get(name)
        self._record("ADDED" if now is None else "MODIFIED", name)

    def remove(self, name: str) -> None:
        """Delete an object, if it is there."""
        if name in self.state():
            self._record("DELETED", name)

    def compact(self) -> None:
        """Forget the history: no watch can start before now."""
        self.compacted = self.revision

    def events(self, after: int) -> list[WatchEvent]:
        """What happened after a revision, in objects of the caller's own."""
        return [
            WatchEvent(kind, self._object(name, at, born)) for at, kind, name, born in self._changes if at > after
        ]

    def _record(self, kind: str, name: str) -> None:
        self.revision += 1
        born = self.revision
        if kind != "ADDED":
            born = next(change[3] for change in reversed(self._changes) if change[2] == name)
        self._changes.append((self.revision, kind, name, born))
        self.changed.set()
        self.changed = asyncio.Event()

    def _object(self, name: str, revision: int, born: int) -> Obj:
        metadata = {"name": name, "namespace": "n", "resourceVersion": str(revision), "uid": f"{name}-{born}"}
        return {"apiVersion": self.resource.api_version, "kind": self.resource.kind, "metadata": metadata}


class Wire:
    """A reflector's client for a :class:`Collection`.

    Args:
        lists, watches: how the next requests of each sort go wrong, used up in order.
        streams: ``yes``, ``refused`` as by an old server, or ``ignored`` as by a very old one.
    """

    def __init__(self, collection: Collection, lists: list[Fault], watches: list[Fault], streams: str) -> None:
        self._collection = collection
        self._lists, self._watches, self._streams = lists, watches, streams
        self.requests = 0

    async def list_page(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        query: Query | None = None,
        metadata_only: bool = False,
        each: Callable[[Obj], Obj | None],
    ) -> ObjectList:
        page = await self._page(query or {})
        items = [kept for item in page.items if (kept := each(item)) is not None]
        return ObjectList(items, page.resource_version, page.continue_token)

    async def _page(self, query: Query) -> ObjectList:
        self.requests += 1
        await asyncio.sleep(0.001)
        if token := query.get("continue"):
            how, at, start = str(token).split("/")
            if how == "pages-expire":
                raise api_error(410, {"reason": "Expired"})
            items = [*self._collection.state(int(at)).values()]
            return ObjectList(items[int(start) :], at)
        fault = self._lists.pop(0) if self._lists else Fault()
        self._refuse(fault)
        asked = int(str(query.get("resourceVersion") or self._collection.revision))
        revision = max(asked, self._collection.revision - fault.after, 1)
        items = [*self._collection.state(revision).values()]
        if fault.kind.startswith("pages") and query.get("limit") and len(items) > 1:
            return ObjectList(items[:1], str(revision), f"{fault.kind}/{revision}/1")
        return ObjectList(items, str(revision))

    async def watch_batches(
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
        self.requests += 1
        await asyncio.sleep(0.001)
        collection = self._collection
        if send_initial_events and self._streams == "refused":
            raise api_error(422, {"reason": "Invalid"})
        fault = self._watches.pop(0) if self._watches else Fault()
        if fault.after == 0:
            self._refuse(fault)
        left = fault.after if fault.kind else -1
        reached = int(resource_version or 0)
        if send_initial_events or not reached:
            reached = collection.revision
            pending = [WatchEvent("ADDED", obj) for obj in collection.state().values()]
            if send_initial_events and self._streams == "yes":
                pending.append(self._bookmark(reached, end=True))
        elif reached < collection.compacted:
            raise api_error(410, {"reason": "Expired"})
        else:
            start = max(reached - fault.after, collection.compacted) if fault.kind == "replay" else reached
            pending, reached = collection.events(start), collection.revision
        end = asyncio.get_running_loop().time() + (timeout_seconds or 300)
        size = fault.after % 3 + 1
        while True:
            batch, pending = pending[:size], pending[size:]
            if fault.kind != "replay" and 0 <= left < len(batch):
                if batch[:left]:
                    yield batch[:left]
                await self._break(fault, silence)
                return
            if batch:
                left -= len(batch)
                yield batch
                continue
            changed = collection.changed
            fresh = collection.events(reached)
            reached = collection.revision
            if fresh:
                pending = fresh
                continue
            try:
                async with asyncio.timeout_at(min(end, asyncio.get_running_loop().time() + 60)):
                    await changed.wait()
            except TimeoutError:
                if asyncio.get_running_loop().time() >= end - 0.001:  # timers may fire early by the clock's grain
                    return
                pending = [self._bookmark(reached)]

    def _refuse(self, fault: Fault) -> None:
        if fault.kind == "refused":
            raise ConnectionFailed("refused")
        if fault.kind in _REFUSALS:
            raise self._refusal(fault.kind)

    def _refusal(self, kind: str) -> ManagerError:
        status, reason = _REFUSALS[kind]
        message = "Too large resource version" if kind == "too-large" else kind
        return api_error(status, {"reason": reason, "message": message})

    async def _break(self, fault: Fault, silence: float | None) -> None:
        """What happens to a watch after its events; returning is a normal end."""
        if fault.kind in _REFUSALS:
            raise self._refusal(fault.kind)
        if fault.kind == "silent":
            await asyncio.sleep(silence or 3600)
            raise StreamSilent("silent")
        if fault.kind in ("cut", "refused"):
            raise ConnectionFailed("cut")

    def _bookmark(self, revision: int, *, end: bool = False) -> WatchEvent:
        resource = self._collection.resource
        metadata: Obj = {"resourceVersion": str(revision)}
        if end:
            metadata["annotations"] = {INITIAL_EVENTS_END: "true"}
        return WatchEvent(
            "BOOKMARK", {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": metadata}
        )
