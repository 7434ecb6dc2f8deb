"""Where a controller's changes come from: a watched kind, an informer of one's own, or any function.

A source is started once, with the controller's queue, and must not block in it: it arranges for its handler to be
called. A source with an initial list says when its handler has dealt with all of it; until then no worker runs.
Hints from outside the cluster are in ``manager.channel``. Semantics: controller-runtime's sources.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from manager.cache import Cache
from manager.errors import ManagerError
from manager.handlers import Handler, Queue
from manager.informer import Event, EventHandler
from manager.predicates import Predicate
from manager.types import Resource


class SourceError(ManagerError):
    """A source that cannot work as declared."""


class Source(Protocol):
    """See the module. ``str()`` names it in errors."""

    async def start(self, queue: Queue) -> None:
        """Arrange for the handler to be called, without waiting for anything that may not come."""
        ...

    async def wait_synced(self) -> None:
        """Wait until the handler has dealt with the initial list."""
        ...


class Registered(Protocol):
    """What a source needs of a handler's registration."""

    async def wait_synced(self) -> None:
        """Wait until the handler has dealt with the initial list."""
        ...


class Watched(Protocol):
    """What a source needs of an informer."""

    def add_handler(self, handler: EventHandler, /) -> Registered:
        """Hear of everything that is there, and of every change from now on."""
        ...


class InformerSource:
    """An informer that somebody else made and runs.

    Raises:
        SourceError: there is no informer or no handler.
    """

    def __init__(self, informer: Watched | None, handler: Handler | None, *predicates: Predicate) -> None:
        if informer is None:
            raise SourceError("an informer source needs an informer")
        if handler is None:
            raise SourceError("a source needs a handler")
        self._informer = informer
        self._handler = handler
        self._predicates = predicates
        self._registration: Registered | None = None

    def __str__(self) -> str:
        return repr(self._informer)

    async def start(self, queue: Queue) -> None:
        """See ``Source``."""
        handler, predicates = self._handler, self._predicates

        def deliver(event: Event) -> None:
            for predicate in predicates:
                if not predicate(event):
                    return
            handler(event, queue)

        self._registration = self._informer.add_handler(deliver)

    async def wait_synced(self) -> None:
        """See ``Source``."""
        if self._registration is not None:
            await self._registration.wait_synced()


class KindSource(InformerSource):
    """A kind, watched through the cache's informer, which keeps trying while the kind is not served.

    Args:
        cache: the manager's.
        resource: the kind.
        handler: turns changes into keys.
        predicates: AND-ed; what they refuse makes no work.
        namespace, label_selector, field_selector: watch only these objects.
        metadata_only: the objects carry metadata and nothing else, which saves most of their memory.

    Raises:
        SourceError: the cache, the kind or the handler is missing.
    """

    def __init__(
        self,
        cache: Cache | None,
        resource: Resource | None,
        handler: Handler | None,
        *predicates: Predicate,
        namespace: str | None = None,
        label_selector: str | None = None,
        field_selector: str | None = None,
        metadata_only: bool = False,
    ) -> None:
        if cache is None:
            raise SourceError("a kind source needs a cache")
        if resource is None:
            raise SourceError("a kind source needs a kind")
        scope: dict[str, Any] = {
            "namespace": namespace,
            "label_selector": label_selector,
            "field_selector": field_selector,
            "metadata_only": metadata_only,
        }
        # Asked for now, not at the start, so that the cache has it listed by then.
        informer = cache.informer(resource, **{name: value for name, value in scope.items() if value})
        super().__init__(informer, handler, *predicates)
        self._resource = resource

    def __str__(self) -> str:
        return f"{self._resource.plural} ({self._resource.api_version} {self._resource.kind})"


class FuncSource:
    """A function that is called with the queue when the controller starts, and must not block."""

    def __init__(self, function: Callable[[Queue], Awaitable[None] | None], name: str = "function") -> None:
        self._function, self._name = function, name

    def __str__(self) -> str:
        return self._name

    async def start(self, queue: Queue) -> None:
        """See ``Source``."""
        started = self._function(queue)
        if started is not None:
            await started

    async def wait_synced(self) -> None:
        """At once: a function has no initial list."""
