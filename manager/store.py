"""The local copy of one collection: objects by key, with secondary indexes.

Writes come from one informer only; everybody else reads. Objects are shared and read-only. ``resource_version``
is how far the copy has come: it also moves on bookmarks and deletes, so that it tells whether a write of ours has
been seen. Semantics: client-go's thread-safe store, less the threads.
"""

from __future__ import annotations

import builtins
from collections.abc import Callable, Iterable

from manager.meta import key as key_of
from manager.meta import labels
from manager.selectors import LabelSelector
from manager.types import Obj

IndexFunction = Callable[[Obj], Iterable[str]]
_NAMESPACE = "namespace"


class Store:
    """See the module."""

    def __init__(self) -> None:
        self.resource_version = ""
        self._items: dict[str, Obj] = {}
        self._functions: dict[str, IndexFunction] = {}
        # Keys of an index value in order of arrival: what iterates over a set of strings differs between runs.
        self._indexes: dict[str, dict[str, dict[str, None]]] = {}
        self.add_index(_NAMESPACE, lambda obj: [str(obj["metadata"].get("namespace") or "")])

    def __len__(self) -> int:
        return len(self._items)

    def __repr__(self) -> str:
        return f"<Store {len(self._items)} objects at {self.resource_version or 'nothing yet'}>"

    # ------------------------------------------------------------------ reading

    def get(self, name: str, namespace: str | None = None) -> Obj | None:
        """One object, or None."""
        return self._items.get(f"{namespace}/{name}" if namespace else name)

    def get_by_key(self, key: str) -> Obj | None:
        """One object by ``namespace/name`` or ``name``, or None."""
        return self._items.get(key)

    def list(self, namespace: str | None = None, selector: LabelSelector | None = None) -> builtins.list[Obj]:
        """Objects of a namespace (None: of all) that match the selector (None: every one), oldest change first."""
        found: Iterable[Obj] = self._items.values() if namespace is None else self.by_index(_NAMESPACE, namespace)
        if selector is None:
            return [*found]
        return [obj for obj in found if selector.matches(labels(obj))]

    def keys(self) -> builtins.list[str]:
        """The keys of all objects, in the order of their last change."""
        return [*self._items]

    def by_index(self, name: str, value: str) -> builtins.list[Obj]:
        """The objects for which the index function gave this value."""
        return [self._items[key] for key in self._indexes[name].get(value, ())]

    def add_index(self, name: str, function: IndexFunction) -> None:
        """Add an index; objects that are here already are indexed at once.

        Raises:
            ValueError: there is one of this name.
        """
        if name in self._functions:
            raise ValueError(f"there is an index '{name}' already")
        self._functions[name] = function
        self._indexes[name] = {}
        for key, obj in self._items.items():
            self._index(name, key, obj)

    def has_index(self, name: str) -> bool:
        """Whether there is an index of this name."""
        return name in self._functions

    # ------------------------------------------------------------------ writing, by the informer

    def put(self, obj: Obj) -> Obj | None:
        """Add or update one object; returns what was there."""
        key = key_of(obj)
        old = self.discard(key)
        self._items[key] = obj
        for name in self._functions:
            self._index(name, key, obj)
        return old

    def discard(self, key: str) -> Obj | None:
        """Remove one object; returns what was there."""
        old = self._items.pop(key, None)
        if old is not None:
            for name, function in self._functions.items():
                index = self._indexes[name]
                for value in function(old):
                    keys = index.get(value)
                    if keys is not None:
                        keys.pop(key, None)
                        if not keys:
                            del index[value]  # an index over short-lived values must not grow for ever
        return old

    def _index(self, name: str, key: str, obj: Obj) -> None:
        for value in self._functions[name](obj):
            self._indexes[name].setdefault(value, {})[key] = None
