"""A sink that is only a copy, for tests of what fills and follows a collection.

In: a reflector's calls. Out: the objects by key, the version, and a record of the calls. It checks what every sink
may rely on: batches are not empty and hold nothing but changes.
"""

from __future__ import annotations

import random

from manager.meta import key, resource_version
from manager.types import Obj
from manager.watch import WatchEvent


class Mirror:
    """See the module.

    Attributes:
        objects: the copy.
        version: the last that was told.
        calls: what was called, in order: ``("replace", keys)``, ``("ADDED", key)`` and so on, ``("BOOKMARK",
            version)``, ``("resync", "")``.
    """

    def __init__(self) -> None:
        self.objects: dict[str, Obj] = {}
        self.version = ""
        self.calls: list[tuple[str, str]] = []

    @property
    def names(self) -> set[str]:
        """The names of the objects."""
        return {str(obj["metadata"]["name"]) for obj in self.objects.values()}

    def replace(self, items: list[Obj], version: str) -> None:
        self.objects = {key(item): item for item in items}
        self.version = version
        self.calls.append(("replace", " ".join(self.objects)))

    def apply(self, events: list[WatchEvent]) -> None:
        if not events:
            raise ValueError("an empty batch")
        for event in events:
            if event.type not in ("ADDED", "MODIFIED", "DELETED"):
                raise ValueError(f"{event.type} is no change")
            name = key(event.object)
            if event.type == "DELETED":
                self.objects.pop(name, None)
            else:
                self.objects[name] = event.object
            self.version = resource_version(event.object)
            self.calls.append((event.type, name))

    def bookmark(self, version: str) -> None:
        self.version = version
        self.calls.append(("BOOKMARK", version))

    def resync(self) -> None:
        self.calls.append(("resync", ""))


class Even(random.Random):
    """Random numbers without jitter: ``random()`` is 0, so that a back-off takes its shortest time; whole numbers
    are as random as ever."""

    def random(self) -> float:
        return 0.0

    def getrandbits(self, k: int, /) -> int:
        return super().getrandbits(k)
