"""What passes between the adapter manager, the engine and the request handlers: plain types, no behaviour.

The manager makes an `AdapterSlot` (a folder that the engine can load, at its final strength), has the engine load
it, and only then hands it out as an `AdapterChoice`. A choice is a lease: until it is released, its slot stays
loaded and its files stay on the disk, whatever happens to the wanted list. An id, and a slot's name, are never
used twice in the life of a process: the engine keys its caches of computed prefixes by them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from api.adapters import ObservedAdapters


@dataclass(frozen=True, slots=True)
class AdapterSlot:
    """An adapter, or a combination of several, as the engine loads it: strengths are in the weights."""

    id: int  # from 1
    name: str  # unique, for the engine and its metrics; not the name that users give
    path: Path
    rank: int


def _nothing() -> None:
    pass


@dataclass(slots=True)
class AdapterChoice:
    """What one request is answered with. ``slot`` None is the base model.

    Use it as ``with adapters.choose(name) as choice:`` around the whole answer. Releasing twice does nothing.
    """

    name: str  # as the request named it; "" for none, "*" for all that are configured
    slot: AdapterSlot | None = None
    _release: Callable[[], None] = field(default=_nothing, repr=False)

    def release(self) -> None:
        """The request is over, or will not be made."""
        release, self._release = self._release, _nothing
        release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


class Adapters(Protocol):
    """What the server needs of the adapter manager (`inference_server.adapters.manager.AdapterManager`)."""

    async def start(self) -> None:
        """Follow the wanted list. The engine must have started.

        Returns when the list is in force, or when its first attempt has failed and what was last good serves: the
        server is ready then, and `observed` says the rest. Raises nothing on account of an adapter.
        """
        ...

    async def stop(self) -> None:
        """End all work. Idempotent. Nothing is unloaded: the engine ends too."""
        ...

    def observed(self) -> ObservedAdapters:
        """The answer of ``GET /v1/adapters``."""
        ...

    def choose(self, name: str | None) -> AdapterChoice:
        """What answers a request: None: all configured adapters at their strengths; "": none; a name: that one.

        Raises `inference_server.protocol.UnknownAdapter`, whose text names those that are there.
        """
        ...

    def names(self) -> tuple[str, ...]:
        """The adapters that a request can name now, in the list's order (for ``GET /v1/models``)."""
        ...
