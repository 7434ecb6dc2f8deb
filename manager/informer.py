"""One watched collection, its local copy, and everybody who wants to hear of changes.

The reflector writes; the store is updated first, then every handler's own stream gets the event. Each stream
is ordered, unbounded and independent: a slow handler delays nobody. A handler that comes late hears of everything
that is there as additions of its initial list, and misses and doubles nothing. A handler must be quick and
synchronous: handlers of controllers only put keys into queues. Semantics: client-go's shared informer.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable
from dataclasses import dataclass

from manager.client import Client
from manager.meta import key as key_of
from manager.reflector import Reflector
from manager.screen import Transform
from manager.store import Store
from manager.types import Obj, Resource
from manager.watch import WatchEvent

log = logging.getLogger("kaito.manager.informer")

_BURST = 100  # events that one handler gets before the rest of the process has its turn


@dataclass(frozen=True, slots=True)
class Added:
    """An object that was not there before. ``initial``: it is part of the handler's first picture."""

    obj: Obj
    initial: bool = False


@dataclass(frozen=True, slots=True)
class Updated:
    """An object that changed. Equal resource versions mean that a new list found it as it was; the uids differ
    when it was deleted and created anew while nobody watched."""

    old: Obj
    new: Obj


@dataclass(frozen=True, slots=True)
class Deleted:
    """An object that is gone. ``stale``: its deletion was not seen, and ``obj`` is the last known state."""

    obj: Obj
    stale: bool = False


Event = Added | Updated | Deleted
EventHandler = Callable[[Event], None]


def strip_managed_fields(obj: Obj) -> Obj:
    """The default transform: drops what is most of an object's memory and is of no use to controllers."""
    metadata = obj.get("metadata")
    if isinstance(metadata, dict):
        metadata.pop("managedFields", None)
        annotations = metadata.get("annotations")
        if isinstance(annotations, dict):
            annotations.pop("kubectl.kubernetes.io/last-applied-configuration", None)
    return obj


class Registration:
    """One handler's stream. ``has_synced`` is True once the handler has dealt with its whole initial list."""

    def __init__(self, handler: EventHandler, name: str) -> None:
        self._handler = handler
        self._name = name
        self._stream: asyncio.Queue[Event | None] = asyncio.Queue()  # None marks the end of the initial list
        self._synced = asyncio.Event()

    def __repr__(self) -> str:
        return f"<Registration {self._name} synced={self.has_synced} queued={self._stream.qsize()}>"

    @property
    def has_synced(self) -> bool:
        """Whether the initial list has been processed, not merely delivered."""
        return self._synced.is_set()

    async def wait_synced(self) -> None:
        """Wait for :attr:`has_synced`."""
        await self._synced.wait()

    def send(self, event: Event | None) -> None:
        """Append to the stream; the informer's."""
        self._stream.put_nowait(event)

    async def run(self) -> None:
        """Deliver until cancelled. An event whose handler raises is skipped and logged."""
        for number in itertools.count(1):
            event = await self._stream.get()
            if number % _BURST == 0:
                await asyncio.sleep(0)  # get() does not let others run while there is something to get
            if event is None:
                self._synced.set()
                continue
            try:
                self._handler(event)
            except Exception:
                log.exception("event handler failed, event skipped informer=%s", self._name)


class Informer:
    """See the module. Made by ``Cache.informer``."""

    def __init__(
        self,
        client: Client,
        resource: Resource,
        *,
        namespace: str | None = None,
        label_selector: str | None = None,
        field_selector: str | None = None,
        transform: Transform = strip_managed_fields,
    ) -> None:
        self.resource = resource
        self.store = Store()
        self._registrations: list[Registration] = []
        self._filled = asyncio.Event()
        self._tasks: asyncio.TaskGroup | None = None
        self._reflector = Reflector(
            client,
            resource,
            self,
            namespace=namespace,
            label_selector=label_selector,
            field_selector=field_selector,
            transform=transform,
        )

    def __repr__(self) -> str:
        return f"<Informer {self.resource.plural} {self.store!r} handlers={len(self._registrations)}>"

    @property
    def has_synced(self) -> bool:
        """Whether the store holds a whole list. For a handler's own progress see ``Registration.has_synced``."""
        return self._filled.is_set()

    async def wait_synced(self) -> None:
        """Wait for :attr:`has_synced`."""
        await self._filled.wait()

    def add_handler(self, handler: EventHandler) -> Registration:
        """Hear of every change from now on, after everything that is there already."""
        registration = Registration(handler, self.resource.plural)
        self._registrations.append(registration)
        if self.has_synced:
            for obj in self.store.list():
                registration.send(Added(obj, initial=True))
            registration.send(None)
        if self._tasks is not None:
            self._tasks.create_task(registration.run(), name=f"handler-{self.resource.plural}")
        return registration

    async def run(self) -> None:
        """Keep the copy and the handlers going until cancelled."""
        async with asyncio.TaskGroup() as group:
            self._tasks = group
            for registration in self._registrations:
                group.create_task(registration.run(), name=f"handler-{self.resource.plural}")
            group.create_task(self._reflector.run(), name=f"reflector-{self.resource.plural}")

    # ------------------------------------------------------------------ the reflector's sink

    def replace(self, items: list[Obj], version: str) -> None:
        """A whole list: what vanished is told as stale deletions, then every item in the list's order."""
        initial = not self.has_synced
        listed = {key_of(item): item for item in items}
        known = self.store.keys()
        for key in known:
            if key not in listed and (gone := self.store.discard(key)) is not None:
                self._send(Deleted(gone, stale=True))
        for obj in listed.values():
            old = self.store.put(obj)
            self._send(Added(obj, initial=initial) if old is None else Updated(old, obj))
        self.store.resource_version = version
        if initial:
            self._filled.set()
            self._send(None)

    def apply(self, events: list[WatchEvent]) -> None:
        """Changes of a watch."""
        for event in events:
            obj = event.object
            self.store.resource_version = str(obj["metadata"].get("resourceVersion", self.store.resource_version))
            if event.type == "DELETED":
                self.store.discard(key_of(obj))
                self._send(Deleted(obj))
                continue
            old = self.store.put(obj)
            self._send(Added(obj) if old is None else Updated(old, obj))

    def bookmark(self, version: str) -> None:
        """Progress without a change."""
        self.store.resource_version = version

    def resync(self) -> None:
        """Tell every handler of every object once more, as an update to itself."""
        for obj in self.store.list():
            self._send(Updated(obj, obj))

    def _send(self, event: Event | None) -> None:
        for registration in self._registrations:
            registration.send(event)
