"""All informers of a process, one per collection watched and shared by everybody who asks for the same; and reads.

In: what is watched (:meth:`Cache.informer`, or the first read of a kind) and :class:`CacheOptions`. Out:
informers, and reads that wait for the first list and for this process's own writes. Informers that are asked for
before the cache runs start with it; later ones start at once. The cache owns their tasks: an informer that fails
(a programming error; the network cannot make it fail) ends the cache.

Reads give the shared objects themselves, which must not be changed, where controller-runtime copies each: a copy
of a Pod costs 20 us, a list of 10,000 would block the loop for 0.2 s, and hardly a reader changes what it reads.
The debug mode makes a change raise where it happens; ``copy=True`` gives an object of one's own.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import replace

from manager.cache_options import CacheOptions, out_of_scope
from manager.client import Client, ObjectList
from manager.consistency import Consistency
from manager.errors import CacheNotStarted, ManagerError, NotCached, NotFound
from manager.errors import CacheNotSynced as CacheNotSynced
from manager.informer import Informer
from manager.patches import private_copy
from manager.reading import field_index, select
from manager.scope import Scope
from manager.selectors import parse_field_selector, parse_label_selector
from manager.store import IndexFunction
from manager.synced import wait_for_sync
from manager.types import Obj, Resource

_JITTER = 0.1  # of the sync period, either way

WatchErrorHandler = Callable[[Resource, Exception], None]


class _Key:
    """What tells one collection from another."""

    __slots__ = ("_parts", "resource")

    def __init__(
        self,
        resource: Resource,
        namespace: str | None = None,
        label_selector: str | None = None,
        field_selector: str | None = None,
        metadata_only: bool = False,
    ) -> None:
        labels = None if label_selector is None else str(parse_label_selector(label_selector))
        fields = None if field_selector is None else str(parse_field_selector(field_selector))
        self.resource = resource
        self._parts = (resource, namespace, labels, fields, metadata_only)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Key) and self._parts == other._parts

    def __hash__(self) -> int:
        return hash(self._parts)


class Cache:
    """See the module.

    Args:
        client: the direct one. For reads to wait for own writes, it must have ``consistency`` as write observer.
        on_error: told of what goes wrong with lists and watches, before they are tried again.
    """

    def __init__(
        self,
        client: Client,
        options: CacheOptions | None = None,
        *,
        consistency: Consistency | None = None,
        on_error: WatchErrorHandler | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self.options = options or CacheOptions()
        self.consistency = consistency or Consistency()
        self._client = client
        self._on_error = on_error
        self._rng = rng or random.Random()  # noqa: S311 - spreads load, guards nothing
        self._informers: dict[_Key, Informer] = {}
        self._running: dict[Informer, asyncio.Task[None]] = {}
        self._fields: dict[tuple[Resource, bool], dict[str, IndexFunction]] = {}
        self._tasks: asyncio.TaskGroup | None = None
        self._started = False

    def __repr__(self) -> str:
        return f"<Cache {len(self._informers)} informers>"

    # ------------------------------------------------------------------ informers

    def informer(
        self,
        resource: Resource,
        *,
        namespace: str | None = None,
        label_selector: str | None = None,
        field_selector: str | None = None,
        metadata_only: bool = False,
    ) -> Informer:
        """The informer of a collection; the same arguments give the same informer.

        What is None is as the options say for this kind; a selector that is given replaces theirs.

        Raises:
            NotCached: the options leave this namespace out.
        """
        key = _Key(resource, namespace, label_selector, field_selector, metadata_only)
        informer = self._informers.get(key)
        if informer is None:
            informer = self._make(resource, namespace, label_selector, field_selector, metadata_only)
            self._informers[key] = informer
            self.consistency.attach(informer)
            if self._tasks is not None:
                self._start(self._tasks, informer)
        return informer

    def remove_informer(
        self,
        resource: Resource,
        *,
        namespace: str | None = None,
        label_selector: str | None = None,
        field_selector: str | None = None,
        metadata_only: bool = False,
    ) -> None:
        """Stop it for everybody; whoever asks again gets a new one. It is not waited for, and need not exist."""
        key = _Key(resource, namespace, label_selector, field_selector, metadata_only)
        informer = self._informers.pop(key, None)
        if informer is not None:
            self.consistency.detach(informer)
            informer.stop()
            task = self._running.pop(informer, None)
            if task is not None:
                task.cancel()

    def index_field(
        self, resource: Resource, path: str, function: IndexFunction, *, metadata_only: bool = False
    ) -> None:
        """Make a field usable in the field selectors of cached lists of this kind; before or after the start.

        It holds for every informer of the kind, later ones too, starts none, and never waits.

        Raises:
            ValueError: this field is indexed already.
        """
        known = self._fields.setdefault((resource, metadata_only), {})
        if path in known:
            raise ValueError(f"there is an index of {resource.plural} by '{path}' already")
        known[path] = function
        for informer in self._informers.values():
            if informer.resource == resource and informer.metadata_only == metadata_only:
                informer.add_index(field_index(path), function)

    async def wait_for_sync(self, timeout: float | None = 120.0) -> None:
        """Until every informer has its first list.

        Raises:
            CacheNotSynced: not within ``timeout`` seconds; names those that are missing.
        """
        await wait_for_sync([*self._informers.values()], timeout)

    async def run(self) -> None:
        """Keep all informers running until cancelled.

        Raises:
            ManagerError: it was started before.
        """
        if self._started:
            raise ManagerError("the cache was started before")
        self._started = True
        try:
            async with asyncio.TaskGroup() as group:
                self._tasks = group
                for informer in self._informers.values():
                    self._start(group, informer)
                await asyncio.Event().wait()  # a group without tasks would end
        finally:
            self._tasks = None

    # ------------------------------------------------------------------ reads

    async def get(
        self,
        resource: Resource,
        name: str,
        namespace: str | None = None,
        *,
        metadata_only: bool = False,
        copy: bool = False,
        consistent: bool = True,
    ) -> Obj:
        """One object, shared by all readers unless ``copy``.

        Args:
            consistent: wait for this process's writes of the object that began before. A webhook that is asked
                about such a write must not: the write waits for its answer.

        Raises:
            NotFound: it is not there.
            CacheNotStarted: the cache does not run.
            CacheNotSynced: the kind could not be listed in time.
            NotCached: this cache does not hold the kind or the namespace.
            StaleCache: it has not caught up with an own write in time.
        """
        where = namespace if resource.namespaced else None
        informer = self._reader(resource, where, metadata_only)
        if not informer.has_synced:
            await wait_for_sync([informer], self.options.sync_timeout)
        if consistent:
            pending = self.consistency.pending(informer, where, name)
            if pending is not None:
                await self.consistency.catch_up(informer, pending, self.options.stale_timeout)
        obj = informer.store.get(name, where)
        if obj is None:
            kind = f"{resource.plural}.{resource.group}" if resource.group else resource.plural
            raise NotFound(
                404,
                "NotFound",
                f'{kind} "{name}" not found',
                {"name": name, "group": resource.group, "kind": kind},
            )
        return private_copy(obj) if copy else obj

    async def list(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        label_selector: str | None = None,
        field_selector: str | None = None,
        limit: int | None = None,
        continue_token: str | None = None,
        metadata_only: bool = False,
        copy: bool = False,
        consistent: bool = True,
    ) -> ObjectList:
        """The objects that match, in order of arrival; shared by all readers unless ``copy``.

        Args:
            namespace: None: of all namespaces that this cache holds.
            field_selector: by fields with an index, see :meth:`index_field`; for equality only.
            limit: at most so many; a list that ends there says so in its continue token, which leads nowhere.
            consistent: wait for all writes of the kind (in that namespace) that this process began before.

        Raises:
            CacheError: as :meth:`get`; a continue token was given; a field has no index (``IndexMissing``).
            SelectorError: a selector cannot be parsed.
        """
        where = namespace or None if resource.namespaced else None
        informer = self._reader(resource, where, metadata_only)
        if not informer.has_synced:
            await wait_for_sync([informer], self.options.sync_timeout)
        if consistent:
            pending = self.consistency.pending(informer, where, None)
            if pending is not None:
                await self.consistency.catch_up(informer, pending, self.options.stale_timeout)
        found, token = select(
            informer.store,
            resource,
            where,
            label_selector=label_selector,
            field_selector=field_selector,
            limit=limit,
            continue_token=continue_token,
        )
        items = [private_copy(obj) for obj in found] if copy else found
        return ObjectList(items, informer.store.resource_version, token)

    # ------------------------------------------------------------------ within

    def _reader(self, resource: Resource, namespace: str | None, metadata_only: bool) -> Informer:
        """The informer that answers a read: that of the kind, or a narrower one that somebody has already."""
        if self._tasks is None:
            raise CacheNotStarted(f"{resource.plural} cannot be read: the cache does not run")
        informer = self._informers.get(_Key(resource, metadata_only=metadata_only))
        if informer is None and namespace is not None:
            informer = self._informers.get(_Key(resource, namespace, metadata_only=metadata_only))
        if informer is None:
            if self.options.fail_on_missing_informer:
                raise NotCached(f"{resource.plural} are not in this cache: nobody watches them")
            informer = self.informer(resource, metadata_only=metadata_only)
        if namespace is not None and informer.reached(namespace) is None:
            covered = {scope.namespace or "": scope for scope in informer.scopes}
            raise NotCached(out_of_scope(resource, namespace, covered))
        return informer

    def _make(
        self,
        resource: Resource,
        namespace: str | None,
        label_selector: str | None,
        field_selector: str | None,
        metadata_only: bool,
    ) -> Informer:
        options = self.options
        scopes: list[Scope] = (
            options.scopes(resource) if namespace is None else [options.scope_in(resource, namespace)]
        )
        if label_selector is not None:
            scopes = [replace(scope, label_selector=label_selector) for scope in scopes]
        if field_selector is not None:
            scopes = [replace(scope, field_selector=field_selector) for scope in scopes]
        on_error = self._on_error
        informer = Informer(
            self._client,
            resource,
            scopes=scopes,
            metadata_only=metadata_only,
            resync_period=options.sync_period * self._rng.uniform(1 - _JITTER, 1 + _JITTER),
            on_error=None if on_error is None else lambda error: on_error(resource, error),
        )
        for path, function in self._fields.get((resource, metadata_only), {}).items():
            informer.add_index(field_index(path), function)
        return informer

    def _start(self, group: asyncio.TaskGroup, informer: Informer) -> None:
        task = group.create_task(informer.run(), name=f"informer-{informer.name}")
        self._running[informer] = task
        task.add_done_callback(lambda _: self._running.pop(informer, None))
