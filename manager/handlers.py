"""From an event to the keys that must be looked at.

A mapping is a function of one object; on updates it is asked for the old and for the new state, because an object
that moves from one owner to another concerns both. Events of an initial list, and updates that change nothing, get
a low priority. Semantics: controller-runtime's handlers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from manager.informer import Added, Event, EventHandler, Updated
from manager.meta import group_of, name, namespace, resource_version
from manager.predicates import Predicate
from manager.queue import LOW_PRIORITY, PriorityQueue
from manager.types import Obj, Request, Resource

MapFunction = Callable[[Obj], Iterable[Request]]


def itself(obj: Obj) -> list[Request]:
    """The object's own key."""
    return [Request(namespace(obj), name(obj))]


def owner(resource: Resource, *, controller_only: bool = True) -> MapFunction:
    """The owners of this kind, whatever the version they are named with; by default only the controlling one."""

    def requests(obj: Obj) -> list[Request]:
        found = []
        for reference in obj.get("metadata", {}).get("ownerReferences") or []:
            if controller_only and not reference.get("controller"):
                continue
            if (
                reference.get("kind") == resource.kind
                and group_of(reference.get("apiVersion", "")) == resource.group
            ):
                found.append(Request(namespace(obj) if resource.namespaced else "", reference["name"]))
        return found

    return requests


def enqueue(queue: PriorityQueue[Request], mapping: MapFunction, predicates: Iterable[Predicate]) -> EventHandler:
    """The informer's handler that puts the mapped keys into the queue."""
    checks = tuple(predicates)

    def handle(event: Event) -> None:
        if not all(check(event) for check in checks):
            return
        states = [event.old, event.new] if isinstance(event, Updated) else [event.obj]
        priority = LOW_PRIORITY if _is_old_news(event) else 0
        for request in dict.fromkeys(request for state in states for request in mapping(state)):
            queue.add(request, priority=priority)

    return handle


def _is_old_news(event: Event) -> bool:
    if isinstance(event, Added):
        return event.initial
    return isinstance(event, Updated) and resource_version(event.old) == resource_version(event.new)
