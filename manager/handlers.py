"""From a change to the keys that must be looked at.

A handler gets each change that its source lets through and puts keys into the controller's queue. On updates the
old state counts as well as the new one, because an object that moves from one owner to another concerns both; no
key is added twice for one change. Changes that say nothing new get a low priority. What has no object, or an
object without a name, is a source's mistake: it is logged and makes no work. Semantics: controller-runtime's
handlers.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from manager.changes import Change, Generic, is_old_news
from manager.informer import Added, Deleted, Updated
from manager.meta import group_of
from manager.queue import LOW_PRIORITY, PriorityQueue
from manager.types import Obj, Request, Resource

log = logging.getLogger("kaito.manager.handlers")

Queue = PriorityQueue[Request]
Handler = Callable[[Change, Queue], None]
MapFunction = Callable[[Obj], Iterable[Request]]

_NOTHING: Obj = {}


def enqueue_self(change: Change, queue: Queue) -> None:
    """The object's own key."""
    obj = (change.new or change.old) if isinstance(change, Updated) else change.obj
    metadata = (obj.get("metadata") if obj else None) or _NOTHING
    name = metadata.get("name")
    if not name:
        log.error("change without a named object ignored change=%s", type(change).__name__)
        return
    request = Request(metadata.get("namespace") or "", name)
    queue.add(request, priority=LOW_PRIORITY if is_old_news(change) else None)


def enqueue_mapped(mapping: MapFunction) -> Handler:
    """The keys that a function gives for the object; on updates, for its old and its new state."""

    def handle(change: Change, queue: Queue) -> None:
        states = (change.old, change.new) if isinstance(change, Updated) else (change.obj,)
        requests: dict[Request, None] = {}
        if not any(states):
            log.error("change without an object ignored change=%s", type(change).__name__)
            return
        for state in states:
            if state:
                requests |= dict.fromkeys(mapping(state))
        if requests:
            queue.add_all(requests, priority=LOW_PRIORITY if is_old_news(change) else None)

    return handle


def enqueue_owner(resource: Resource, *, controller_only: bool = False) -> Handler:
    """The keys of the owners of this kind, whatever the version they are named with.

    Args:
        resource: the owners' kind.
        controller_only: only of the one owner reference with ``controller: true``.
    """
    return enqueue_mapped(owners(resource, controller_only=controller_only))


def owners(resource: Resource, *, controller_only: bool = False) -> MapFunction:
    """The function behind :func:`enqueue_owner`."""
    group, kind, namespaced = resource.group, resource.kind, resource.namespaced

    def requests(obj: Obj) -> list[Request]:
        metadata = obj.get("metadata") or {}
        found = []
        for reference in metadata.get("ownerReferences") or ():
            if controller_only and not reference.get("controller"):
                continue
            # A reference whose apiVersion is no group and version matches no group, and is ignored thus.
            if reference.get("kind") == kind and group_of(str(reference.get("apiVersion") or "")) == group:
                found.append(
                    Request(metadata.get("namespace") or "" if namespaced else "", str(reference.get("name")))
                )
        return found

    return requests


@dataclass(frozen=True, slots=True, kw_only=True)
class Funcs:
    """A handler made of one function per sort of change; what is None is ignored."""

    added: Callable[[Added, Queue], None] | None = None
    updated: Callable[[Updated, Queue], None] | None = None
    deleted: Callable[[Deleted, Queue], None] | None = None
    generic: Callable[[Generic, Queue], None] | None = None

    def __call__(self, change: Change, queue: Queue) -> None:
        match change:
            case Added():
                if self.added:
                    self.added(change, queue)
            case Updated():
                if self.updated:
                    self.updated(change, queue)
            case Deleted():
                if self.deleted:
                    self.deleted(change, queue)
            case _:
                if self.generic:
                    self.generic(change, queue)
