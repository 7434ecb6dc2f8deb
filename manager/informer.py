"""One watched collection, its local copy, and everybody who wants to hear of changes.

In: what reflectors see, one reflector for each scope; scopes never overlap. Out: a store, and events to handlers.
The store is updated first, then every handler's own stream gets the batch, all of it in one synchronous step: no
handler and no reader ever sees half of a list. A handler that comes late hears of everything that is there as
additions of its initial list, and misses and doubles nothing. The informer owns the store and the streams; nothing
else may write to them. An informer runs once. Semantics: client-go's shared informer and its delta queue.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from manager import debug
from manager.client import Client
from manager.delivery import Added as Added
from manager.delivery import AsyncEventHandler as AsyncEventHandler
from manager.delivery import Deleted as Deleted
from manager.delivery import Event as Event
from manager.delivery import EventHandler as EventHandler
from manager.delivery import Registration as Registration
from manager.delivery import Updated as Updated
from manager.errors import InformerStopped, ManagerError
from manager.frozen import freeze
from manager.meta import key as key_of
from manager.meta import resource_version, uid
from manager.reflector import Reflector
from manager.scope import Scope
from manager.sharing import share
from manager.store import GuardedStore, IndexFunction, Store
from manager.transforms import Transform as Transform
from manager.transforms import strip_managed_fields as strip_managed_fields
from manager.types import Obj, Resource
from manager.versions import oldest
from manager.watch import WatchEvent

log = logging.getLogger("kaito.manager.informer")

_MIN_RESYNC = 1.0  # seconds
_EARLY = 0.1  # a tick that comes a hair before a handler's time must not cost it a whole period

ErrorHandler = Callable[[Exception], None]


class Feeder(Protocol):
    """What fills an informer: a reflector."""

    async def run(self) -> None:
        """Feed it until cancelled."""


class Informer:
    """See the module. Made by ``Cache.informer``; the sink of its reflector where it has one scope.

    Args:
        scopes: several parts of the collection, each with its own list and watch; instead of the four before it.
        metadata_only: objects come without spec and status.
        resync_period: seconds between resyncs, of handlers that ask for no other period; None or 0: never.
        on_error: told of what goes wrong with lists and watches, before they are tried again.
    """

    def __init__(
        self,
        client: Client,
        resource: Resource,
        *,
        namespace: str | None = None,
        label_selector: str | None = None,
        field_selector: str | None = None,
        transform: Transform = strip_managed_fields,
        scopes: Sequence[Scope] | None = None,
        metadata_only: bool = False,
        resync_period: float | None = None,
        on_error: ErrorHandler | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self.resource = resource
        self.metadata_only = metadata_only
        self._client = client
        if scopes is None:
            scopes = [
                Scope(
                    namespace=namespace,
                    label_selector=label_selector,
                    field_selector=field_selector,
                    transform=transform,
                )
            ]
        self._parts = [_Part(self, scope) for scope in scopes]
        self._debug = debug.enabled()
        self.store: Store = GuardedStore(f"{resource.plural}") if self._debug else Store()
        # Kubernetes' own kinds have a schema for every field; what a custom resource holds, its author decides.
        self._exact = "." in resource.group
        self._template: Obj = {}
        self._registrations: list[Registration] = []
        self._resync = max(resync_period, _MIN_RESYNC) if resync_period else 0.0
        self._check_period = self._resync
        self._on_error = on_error
        self._rng = rng
        self._state = "new"
        self._filled = False
        self._settled = asyncio.Event()  # filled or stopped
        self._tasks: asyncio.TaskGroup | None = None
        self._progress: asyncio.Future[None] | None = None
        self._ended = asyncio.Event()

    def __repr__(self) -> str:
        return (
            f"<Informer {self.resource.plural} {self._state} {self.store!r} handlers={len(self._registrations)}>"
        )

    @property
    def name(self) -> str:
        """Of what it watches, for messages."""
        return self.resource.plural

    # ------------------------------------------------------------------ how far it is

    @property
    def scopes(self) -> list[Scope]:
        """What it covers."""
        return [part.scope for part in self._parts]

    @property
    def is_stopped(self) -> bool:
        """Whether it has ended; it never starts again."""
        return self._state == "stopped"

    @property
    def has_synced(self) -> bool:
        """Whether the store holds a whole list. For a handler's own progress see ``Registration.has_synced``."""
        return self._filled

    async def wait_synced(self) -> None:
        """Wait for :attr:`has_synced`.

        Raises:
            InformerStopped: it ended before.
        """
        await self._settled.wait()
        if not self._filled:
            raise InformerStopped(f"the informer of {self.name} ended before its first list")

    async def wait_stopped(self) -> None:
        """Wait for :attr:`is_stopped`; no handler runs any more then."""
        await self._ended.wait()

    def reached(self, namespace: str) -> str | None:
        """The resource version up to which changes in this namespace have been seen; None: they never will be."""
        for part in self._parts:
            if part.scope.covers(namespace):
                return part.version
        return None

    async def progress(self) -> None:
        """Wait for the next change, list or bookmark.

        Raises:
            InformerStopped: there will be none.
        """
        if self._state == "stopped":
            raise InformerStopped(f"the informer of {self.name} has ended")
        if self._progress is None:
            self._progress = asyncio.get_running_loop().create_future()
        await asyncio.shield(self._progress)

    @property
    def is_settled(self) -> bool:
        """Whether every handler has dealt with everything that was sent to it."""
        return self._filled and not any(registration.backlog for registration in self._registrations)

    async def handlers_caught_up(self) -> None:
        """Wait until every handler has dealt with all that the store holds now."""
        for registration in [*self._registrations]:
            await registration.wait_dealt_with()

    # ------------------------------------------------------------------ who listens

    def add_handler(
        self, handler: EventHandler | AsyncEventHandler, *, resync_period: float | None = None
    ) -> Registration:
        """Hear of every change from now on, after everything that is there already.

        Args:
            resync_period: seconds after which the handler hears of all objects again, as updates that change
                nothing; 0: never; None: the informer's. At least 1; once the informer runs, at least the shortest
                that was asked for before.

        Raises:
            InformerStopped: nothing would ever come.
        """
        self._refuse_when_stopped()
        registration = Registration(handler, self.name, self._resync_period(resync_period))
        self._registrations.append(registration)
        if self._filled:
            registration.extend([*(Added(obj, initial=True) for obj in self.store.list()), None])
        if self._tasks is not None:
            self._start(registration)
        return registration

    def remove_handler(self, registration: Registration) -> None:
        """Deliver nothing more to it. A call that runs at this moment is not waited for. Twice does no harm."""
        registration.remove()
        if registration in self._registrations:
            self._registrations.remove(registration)

    async def shut_down_handler(self, registration: Registration) -> None:
        """Remove it, and wait until no call of it runs any more.

        Raises:
            ManagerError: called from within that handler, which cannot wait for itself.
        """
        self.remove_handler(registration)
        await registration.wait_ended()

    def add_index(self, name: str, function: IndexFunction) -> None:
        """Index the store, before or after the start.

        Raises:
            ValueError: there is one of this name.
            InformerStopped: the store does not change any more.
        """
        self._refuse_when_stopped()
        self.store.add_index(name, function)

    def set_error_handler(self, on_error: ErrorHandler) -> None:
        """Replace ``on_error``.

        Raises:
            ManagerError: it runs already.
        """
        if self._state != "new":
            raise ManagerError(f"the informer of {self.name} was started before")
        self._on_error = on_error

    # ------------------------------------------------------------------ life

    async def run(self) -> None:
        """Keep the copy and the handlers going until cancelled.

        Raises:
            ManagerError: it was started before.
        """
        if self._state != "new":
            raise ManagerError(f"the informer of {self.name} was started before")
        self._state = "running"
        try:
            async with asyncio.TaskGroup() as group:
                self._tasks = group
                for registration in self._registrations:
                    self._start(registration)
                for part in self._parts:
                    reflector = self.make_reflector(part)
                    group.create_task(reflector.run(), name=f"reflector-{self.name}")
        finally:
            self._end()

    def stop(self) -> None:
        """End it, if it has not begun; a running one ends with its task."""
        if self._state == "new":
            self._end()

    def _end(self) -> None:
        self._state = "stopped"
        self._tasks = None
        for registration in self._registrations:
            registration.remove()
        self._registrations.clear()
        self._settled.set()
        self._ended.set()
        if self._progress is not None:
            self._progress.set_result(None)
            self._progress = None

    def make_reflector(self, part: _Part) -> Feeder:
        """What fills one scope; asked once, at the start."""
        scope = part.scope
        return Reflector(
            self._client,
            self.resource,
            self if len(self._parts) == 1 else part,
            namespace=scope.query_namespace,
            label_selector=scope.label_selector or None,
            field_selector=scope.query_fields,
            transform=self.shaping(scope.transform),
            metadata_only=self.metadata_only,
            resync_period=self._check_period or None,
            on_error=self._on_error,
            rng=self._rng,
        )

    def shaping(self, transform: Transform) -> Transform:
        """What becomes of an object on its way in: the transform, and then sharing.

        As early as this, because the memory of what a list holds unshared hardly ever goes back to the system.
        """
        if self._debug:
            return transform
        exact, peek = self._exact, self.store.peek

        def shape(obj: Obj) -> Obj:
            obj = transform(obj)
            old = peek(key_of(obj))
            share(obj, self._template if old is None else old, exact=exact)
            self._template = obj
            return obj

        return shape

    def _start(self, registration: Registration) -> None:
        assert self._tasks is not None  # noqa: S101 - only called while it runs
        registration.next_resync = asyncio.get_running_loop().time() + registration.resync_period
        self._tasks.create_task(registration.run(), name=f"handler-{self.name}")

    def _refuse_when_stopped(self) -> None:
        if self._state == "stopped":
            raise InformerStopped(f"the informer of {self.name} has ended")

    def _resync_period(self, wanted: float | None) -> float:
        period = self._resync if wanted is None else wanted
        if period <= 0:
            return 0.0
        period = max(period, _MIN_RESYNC)
        if self._state == "new":
            self._check_period = min(self._check_period or period, period)
        elif not self._check_period:
            log.warning("no resyncs: the informer was started without informer=%s", self.name)
            return 0.0
        return max(period, self._check_period)

    # ------------------------------------------------------------------ the reflector's sink

    def replace(self, items: list[Obj], version: str) -> None:
        """A whole list: what vanished is told as stale deletions, then every item in the list's order."""
        self.replace_part(self._parts[0], items, version)

    def apply(self, events: list[WatchEvent]) -> None:
        """Changes of a watch."""
        self.apply_to_part(self._parts[0], events)

    def bookmark(self, version: str) -> None:
        """Progress without a change."""
        self.moved(self._parts[0], version)

    def resync(self) -> None:
        """Every handler whose time has come hears of every object, as it is in the store at this moment."""
        now = asyncio.get_running_loop().time()
        due = [r for r in self._registrations if r.resync_period and now + _EARLY >= r.next_resync]
        if not due or not self._filled:
            return
        # Behind whatever the streams still hold: a resync can tell nothing older than an update before it.
        events = [Updated(obj, obj) for obj in self.store.list()]
        for registration in due:
            registration.next_resync = now + registration.resync_period
            registration.extend(events)

    def replace_part(self, part: _Part, items: list[Obj], version: str) -> None:
        """A whole list of one scope."""
        initial = not self._filled
        store = self.store
        listed: dict[str, Obj] = {}
        for item in items:
            if key := _key_of(item):
                listed[key] = item
            else:
                log.warning("an item without a name was skipped informer=%s", self.name)
        events: list[Event | None] = []
        vanished = [key for key in self._keys_of(part) if key not in listed]
        events += [Deleted(gone, stale=True) for key in vanished if (gone := store.discard(key)) is not None]
        for key, item in listed.items():
            old = store.peek(key)
            obj = old if old is not None and _is_unchanged(old, item) else self._keep(key, item)
            store.put(obj, key)
            events.append(Added(obj, initial) if old is None else Updated(old, obj))
        self._send(events, part, version)

    def apply_to_part(self, part: _Part, changes: list[WatchEvent]) -> None:
        """Changes of one scope."""
        store = self.store
        events: list[Event | None] = []
        version = part.version
        for change in changes:
            obj = change.object
            if not (key := _key_of(obj)):
                log.warning("an event without a name was skipped informer=%s", self.name)
                continue
            version = resource_version(obj) or version
            old = store.peek(key)
            obj = self._keep(key, obj)
            if change.type == "DELETED":
                store.discard(key)
                events.append(Deleted(obj))
            else:
                store.put(obj, key)
                events.append(Added(obj) if old is None else Updated(old, obj))
        self._send(events, part, version)

    def moved(self, part: _Part, version: str) -> None:
        """A scope has come to this version."""
        part.version = version
        self.store.resource_version = (
            version if len(self._parts) == 1 else oldest(other.version for other in self._parts)
        )
        if self._progress is not None:
            self._progress.set_result(None)
            self._progress = None

    # ------------------------------------------------------------------ within

    def _send(self, events: list[Event | None], part: _Part, version: str) -> None:
        part.filled = True
        if not self._filled and all(other.filled for other in self._parts):
            self._filled = True
            self._settled.set()
            if isinstance(self.store, GuardedStore):
                self.store.complete()
            events.append(None)
        self.moved(part, version)
        for registration in self._registrations:
            registration.extend(events)

    def _keep(self, key: str, obj: Obj) -> Obj:
        """The object as it is kept and told of."""
        return freeze(obj, f"{self.resource.kind} {key}") if self._debug else obj

    def _keys_of(self, part: _Part) -> Iterable[str]:
        if len(self._parts) == 1:
            return self.store.keys()
        covers = part.scope.covers
        return [key for name in self.store.namespaces() if covers(name) for key in self.store.keys(name)]


class _Part:
    """One scope of an informer: the sink of its reflector."""

    __slots__ = ("_informer", "filled", "scope", "version")

    def __init__(self, informer: Informer, scope: Scope) -> None:
        self._informer = informer
        self.scope = scope
        self.version = ""
        self.filled = False

    def replace(self, items: list[Obj], version: str) -> None:
        self._informer.replace_part(self, items, version)

    def apply(self, events: list[WatchEvent]) -> None:
        self._informer.apply_to_part(self, events)

    def bookmark(self, version: str) -> None:
        self._informer.moved(self, version)

    def resync(self) -> None:
        self._informer.resync()  # the handlers' own times see to it that each hears once


def _key_of(obj: Obj) -> str:
    metadata = obj.get("metadata")
    return key_of(obj) if isinstance(metadata, dict) else ""


def _is_unchanged(old: Obj, new: Obj) -> bool:
    version = resource_version(new)
    return bool(version) and version == resource_version(old) and uid(old) == uid(new)
