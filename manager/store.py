"""The local copy of one collection: objects by key, with secondary indexes.

Writes come from one informer only; everybody else reads. Objects are shared and read-only. ``resource_version``
is how far the copy has come: it also moves on bookmarks and deletes, so that it tells whether a write of ours has
been seen. An object keeps its place in the order for as long as it exists. Semantics: client-go's thread-safe
store, less the threads: everything here is synchronous, so no reader sees half of a change.
"""

from __future__ import annotations

import builtins
import logging
from collections.abc import Callable, Iterable

from manager.errors import ReadBeforeSync
from manager.meta import key as key_of
from manager.meta import labels, namespace
from manager.selectors import LabelSelector
from manager.types import Obj

log = logging.getLogger("kaito.manager.store")

IndexFunction = Callable[[Obj], Iterable[str]]
_Buckets = dict[str, dict[str, None]]


class Store:
    """See the module."""

    def __init__(self) -> None:
        self.resource_version = ""
        self._items: dict[str, Obj] = {}
        # Keys in order of arrival, not in a set: what iterates over a set of strings differs between runs. An
        # object's namespace is part of its key and cannot change, so this one index costs nothing on updates.
        self._namespaces: _Buckets = {}
        self._functions: dict[str, IndexFunction] = {}
        self._indexes: dict[str, _Buckets] = {}

    def __len__(self) -> int:
        return len(self._items)

    def __repr__(self) -> str:
        return f"<Store {len(self._items)} objects at {self.resource_version or 'nothing yet'}>"

    # ------------------------------------------------------------------ reading

    def get(self, name: str, namespace: str | None = None) -> Obj | None:
        """One object, or None."""
        return self.get_by_key(f"{namespace}/{name}" if namespace else name)

    def get_by_key(self, key: str) -> Obj | None:
        """One object by ``namespace/name`` or ``name``, or None."""
        return self._items.get(key)

    def list(self, namespace: str | None = None, selector: LabelSelector | None = None) -> builtins.list[Obj]:
        """Objects of a namespace (None: of all) that match the selector (None: every one), in order of arrival."""
        items = self._items
        if namespace is None:
            found = [*items.values()]
        else:
            found = [items[key] for key in self._namespaces.get(namespace, ())]
        if selector is None:
            return found
        return [obj for obj in found if selector.matches(labels(obj))]

    def keys(self, namespace: str | None = None) -> builtins.list[str]:
        """The keys of the objects of a namespace (None: of all), in order of arrival."""
        return [*(self._items if namespace is None else self._namespaces.get(namespace, ()))]

    def namespaces(self) -> builtins.list[str]:
        """The namespaces that have objects; that of cluster-scoped ones is empty."""
        return [*self._namespaces]

    def by_index(self, name: str, value: str) -> builtins.list[Obj]:
        """The objects for which the index function gave this value. Raises ``KeyError`` without such an index."""
        items = self._items
        return [items[key] for key in self._indexes[name].get(value, ())]

    def index_values(self, name: str) -> builtins.list[str]:
        """The values that at least one object has in this index."""
        return [*self._indexes[name]]

    def add_index(self, name: str, function: IndexFunction) -> None:
        """Add an index; objects that are here already are indexed at once.

        An object for which the function raises is in the index under no value, and the failure is logged: one
        strange object, which anybody may create, must not stop a whole process.

        Raises:
            ValueError: there is one of this name.
        """
        if name in self._functions:
            raise ValueError(f"there is an index '{name}' already")
        buckets: _Buckets = {}
        for key, obj in self._items.items():
            for value in _values(name, function, obj):
                buckets.setdefault(value, {})[key] = None
        self._functions[name] = function
        self._indexes[name] = buckets

    def has_index(self, name: str) -> bool:
        """Whether there is an index of this name."""
        return name in self._functions

    # ------------------------------------------------------------------ writing, by the informer

    def peek(self, key: str) -> Obj | None:
        """As :meth:`get_by_key`, but never refused: the informer's."""
        return self._items.get(key)

    def put(self, obj: Obj, key: str | None = None) -> Obj | None:
        """Add or update one object; returns what was there. ``key`` spares computing it."""
        if key is None:
            key = key_of(obj)
        old = self._items.get(key)
        self._items[key] = obj
        if old is None:
            self._namespaces.setdefault(namespace(obj), {})[key] = None
        for name, function in self._functions.items():
            after = _values(name, function, obj)
            before = _values(name, function, old) if old is not None else ()
            if after == before:
                continue
            buckets = self._indexes[name]
            for value in before:
                if value not in after:
                    _leave(buckets, value, key)
            for value in after:
                buckets.setdefault(value, {})[key] = None
        return old

    def discard(self, key: str) -> Obj | None:
        """Remove one object; returns what was there."""
        old = self._items.pop(key, None)
        if old is not None:
            _leave(self._namespaces, namespace(old), key)
            for name, function in self._functions.items():
                for value in _values(name, function, old):
                    _leave(self._indexes[name], value, key)
        return old


class GuardedStore(Store):
    """A store that refuses to be read before it is complete: what the debug mode gives to informers.

    Without the guard such a read finds nothing, and "not there" is taken for the truth. The guard is lifted with
    :meth:`complete`.
    """

    def __init__(self, what: str) -> None:
        super().__init__()
        self._what = what
        self._complete = False

    def complete(self) -> None:
        """From now on everything may be read."""
        self._complete = True

    def get_by_key(self, key: str) -> Obj | None:
        self._check()
        return super().get_by_key(key)

    def list(self, namespace: str | None = None, selector: LabelSelector | None = None) -> builtins.list[Obj]:
        self._check()
        return super().list(namespace, selector)

    def by_index(self, name: str, value: str) -> builtins.list[Obj]:
        self._check()
        return super().by_index(name, value)

    def _check(self) -> None:
        if not self._complete:
            raise ReadBeforeSync(
                f"{self._what} were read before their first list had come; wait for the informer, or read through "
                "the cache, which waits"
            )


def _values(name: str, function: IndexFunction, obj: Obj) -> tuple[str, ...]:
    try:
        return tuple(function(obj))
    except Exception:
        log.exception("index function failed, object not indexed index=%s object=%s", name, key_of(obj))
        return ()


def _leave(buckets: _Buckets, value: str, key: str) -> None:
    keys = buckets.get(value)
    if keys is not None:
        keys.pop(key, None)
        if not keys:
            del buckets[value]  # an index over short-lived values must not grow for ever
