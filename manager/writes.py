"""What a client tells about its writes: the seam through which a cache learns what it must catch up with.

A write is told twice: before it is sent, so that a read that begins meanwhile knows to wait, and when it has
ended. Semantics: controller-runtime's read-your-writes consistency, in which a read waits for the writes that
began before it. The observer is called in the event loop of the client, must be quick and must not raise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from manager.types import Obj, Resource


@dataclass(frozen=True, slots=True)
class Write:
    """One write of one object (not of a collection).

    Attributes:
        verb: ``create``, ``update``, ``patch``, ``apply`` or ``delete``.
        namespace: empty for cluster-scoped objects.
        name: empty while the server is to generate it.
        subresource: such as ``status``, or None. Answers to ``binding``, ``eviction`` and ``token`` are not the
            object and carry no resource version.
        dry_run: nothing will change.
    """

    verb: str
    resource: Resource
    namespace: str
    name: str
    subresource: str | None = None
    dry_run: bool = False


class WriteObserver(Protocol):
    """Told of every write. ``ended`` follows every ``began``, also when the write fails or is cancelled."""

    def began(self, write: Write) -> object:
        """Called before the request is sent; the token is given back to ``ended``."""

    def ended(self, token: object, answer: Obj | None) -> None:
        """``answer`` is what the server sent (for a delete: the object, or a Status), or None when it failed."""
