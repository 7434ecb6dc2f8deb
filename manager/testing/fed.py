"""An informer without a server: the test says what the reflector would.

In: ``replace``, ``apply``, ``bookmark`` and ``resync``, called by the test. Out: what any informer gives. For
tests of what comes behind an informer, and of what only a certain sequence of calls can show.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any, cast

from manager.client import Client
from manager.informer import Added, Deleted, Event, Informer, Updated
from manager.meta import resource_version
from manager.types import Obj, Resource
from manager.watch import WatchEvent


class _Idle:
    async def run(self) -> None:
        await asyncio.Event().wait()


class FedInformer(Informer):
    """See the module. Takes the options of :class:`Informer`."""

    def __init__(self, resource: Resource, **options: Any) -> None:
        super().__init__(cast("Client", None), resource, **options)

    def make_reflector(self, part: object) -> _Idle:
        """Nothing comes but what the test says."""
        return _Idle()

    def added(self, *objects: Obj) -> None:
        """One batch of ADDED events."""
        self._said("ADDED", objects)

    def modified(self, *objects: Obj) -> None:
        """One batch of MODIFIED events."""
        self._said("MODIFIED", objects)

    def deleted(self, *objects: Obj) -> None:
        """One batch of DELETED events."""
        self._said("DELETED", objects)

    def listed(self, *objects: Obj, version: str = "") -> None:
        """A whole list, by default at the version of its last object."""
        shape = self.shaping(self.scopes[0].transform)
        self.replace(
            [shape(obj) for obj in objects], version or (resource_version(objects[-1]) if objects else "1")
        )

    def _said(self, kind: str, objects: Iterable[Obj]) -> None:
        shape = self.shaping(self.scopes[0].transform)
        self.apply([WatchEvent(kind, shape(obj)) for obj in objects])

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """It runs while the block does."""
        task = asyncio.create_task(self.run())
        await asyncio.sleep(0)  # run() has begun
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


class Heard:
    """A handler that remembers what it heard: events, and each in a few words, such as ``updated a@1>a@2``."""

    def __init__(self) -> None:
        self.words: list[str] = []
        self.events: list[Event] = []

    def __call__(self, event: Event) -> None:
        self.events.append(event)
        match event:
            case Added(obj, initial):
                word = f"{'initial' if initial else 'added'} {short(obj)}"
            case Updated(old, new):
                word = f"updated {short(old)}>{short(new)}"
            case Deleted(obj, stale):
                word = f"{'vanished' if stale else 'deleted'} {short(obj)}"
        self.words.append(word)


def short(obj: Obj) -> str:
    """``name@resourceVersion``."""
    return f"{obj['metadata']['name']}@{obj['metadata']['resourceVersion']}"
