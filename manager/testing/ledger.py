"""A handler of an informer that keeps the books: is what it is told possible, and does it add up?

In: an informer's events. Out: the objects as the handler knows them, and a list of everything that was told and
cannot be: an addition of what is there, a change of what is not, an old state that was never told, a version that
goes backwards, the same change twice.
"""

from __future__ import annotations

from manager.informer import Added, Deleted, Event, Updated
from manager.meta import key, resource_version, uid
from manager.types import Obj


class Ledger:
    """See the module. Give it to ``add_handler``.

    Attributes:
        objects: what exists, as far as was told.
        problems: what cannot be; empty when all is well.
        same: updates whose old and new versions are equal, which only a new list may bring.
        added, updated, deleted: how many events of each sort came.
    """

    def __init__(self) -> None:
        self.objects: dict[str, Obj] = {}
        self.problems: list[str] = []
        self.same = 0
        self.added = self.updated = self.deleted = 0

    def __call__(self, event: Event) -> None:
        match event:
            case Added(obj=obj):
                self._added(key(obj), obj)
            case Updated(old=old, new=new):
                self._updated(key(new), old, new)
            case Deleted(obj=obj, stale=stale):
                self._deleted(key(obj), obj, stale)

    def versions(self) -> dict[str, str]:
        """The version of every object, by key."""
        return {name: resource_version(obj) for name, obj in self.objects.items()}

    def _added(self, name: str, obj: Obj) -> None:
        self.added += 1
        if name in self.objects:
            self.problems.append(f"{name} added although it is there")
        self.objects[name] = obj

    def _updated(self, name: str, old: Obj, new: Obj) -> None:
        self.updated += 1
        known = self.objects.get(name)
        if known is None:
            self.problems.append(f"{name} changed although it is not there")
        elif known is not old:
            self.problems.append(f"{name} changed from a state that was not told")
        before, after = int(resource_version(old)), int(resource_version(new))
        if after < before:
            self.problems.append(f"{name} changed from version {before} back to {after}")
        if after == before:
            self.same += 1
            if uid(old) != uid(new):
                self.problems.append(f"{name} is another object of the same version {after}")
        self.objects[name] = new

    def _deleted(self, name: str, obj: Obj, stale: bool) -> None:
        self.deleted += 1
        known = self.objects.pop(name, None)
        if known is None:
            self.problems.append(f"{name} deleted although it is not there")
        elif stale and known is not obj:
            self.problems.append(f"{name} vanished in a state that was not told")
        elif int(resource_version(obj)) < int(resource_version(known)):
            self.problems.append(f"{name} deleted at an older version than was told")
