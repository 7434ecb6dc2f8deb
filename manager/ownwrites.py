"""Reading one's own writes: a cache lags behind what this process has just written.

In: the answers of creates and patches, and the uids of deletes. Out: :meth:`OwnWrites.view`, which lays them
over what the cache says. An entry lives until the cache has caught up: its resourceVersion has passed that of
the write, or the object that was deleted is gone or marked. Nothing waits, nothing times out, and a
controller can never create a replica twice or delete two for one because it looked too early.

The state belongs to one controller, which asks and tells it from one event loop.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from manager.meta import is_deleting, resource_version, uid
from manager.types import Obj


def version_of(obj: Obj) -> int:
    """The resourceVersion as the number that it is on every server we know; 0 when it is not."""
    text = resource_version(obj)
    return int(text) if text.isdecimal() else 0


class OwnWrites:
    """Writes of one controller to one kind of object, grouped by the owner that they were made for."""

    def __init__(self, cache_version: Callable[[], str]) -> None:
        """``cache_version`` tells the resourceVersion that the cache has reached."""
        self._cache_version = cache_version
        self._written: dict[str, dict[str, Obj]] = {}
        self._deleted: dict[str, dict[str, int]] = {}

    def __repr__(self) -> str:
        written = sum(map(len, self._written.values()))
        return f"OwnWrites(written={written}, deleted={sum(map(len, self._deleted.values()))})"

    def wrote(self, owner: str, obj: Obj) -> None:
        """The server answered a create or patch, made for ``owner``, with ``obj``."""
        self._written.setdefault(owner, {})[uid(obj)] = obj

    def deleted(self, owner: str, obj: Obj) -> None:
        """The server accepted the deletion of ``obj``."""
        self._deleted.setdefault(owner, {})[uid(obj)] = version_of(obj)
        self._written.get(owner, {}).pop(uid(obj), None)

    def forget(self, owner: str) -> None:
        """The owner is gone."""
        self._written.pop(owner, None)
        self._deleted.pop(owner, None)

    def view(self, owner: str, cached: Iterable[Obj]) -> list[Obj]:
        """What the cache says, newer own writes laid over it, own deletions marked as terminating."""
        objects = {uid(obj): obj for obj in cached}
        if owner not in self._written and owner not in self._deleted:
            return list(objects.values())
        text = self._cache_version()
        reached = int(text) if text.isdecimal() else 0
        self._lay_over(owner, objects, reached)
        self._mark_deleted(owner, objects, reached)
        return list(objects.values())

    def newest(self, owner: str, cached: Obj) -> Obj:
        """One object as this process last wrote it, or as the cache has it when that is newer."""
        return next(obj for obj in self.view(owner, [cached]) if uid(obj) == uid(cached))

    def _mark_deleted(self, owner: str, objects: dict[str, Obj], reached: int) -> None:
        deleted = self._deleted.get(owner, {})
        for key, version in list(deleted.items()):
            obj = objects.get(key)
            if obj is None:
                # Absent may also mean that the cache has not even seen its creation yet.
                if reached >= version:
                    del deleted[key]
            elif is_deleting(obj):
                del deleted[key]
            else:
                # The server's mark, which the cache will show in a moment; the time itself decides nothing.
                metadata = {**obj["metadata"], "deletionTimestamp": "1970-01-01T00:00:00Z"}
                objects[key] = {**obj, "metadata": metadata}
        if not deleted:
            self._deleted.pop(owner, None)

    def _lay_over(self, owner: str, objects: dict[str, Obj], reached: int) -> None:
        written = self._written.get(owner, {})
        for key, obj in list(written.items()):
            cached = objects.get(key)
            # Gone from a cache that has passed the write means deleted since; still absent means not seen yet.
            caught_up = version_of(obj) <= (version_of(cached) if cached is not None else reached)
            if caught_up:
                del written[key]
            else:
                objects[key] = obj
        if not written:
            self._written.pop(owner, None)
