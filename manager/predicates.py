"""Filters between an informer and a queue: an event that a predicate refuses makes no work. They save no memory.

A predicate is a function of an event; several are AND-ed. Those that compare old and new look at updates only and
let everything else pass. Semantics: controller-runtime's predicates.
"""

from __future__ import annotations

from collections.abc import Callable

from manager.informer import Event, Updated
from manager.meta import get_annotations, labels, resource_version
from manager.selectors import LabelSelector
from manager.types import Obj

Predicate = Callable[[Event], bool]


def generation_changed(event: Event) -> bool:
    """Not for updates of status or metadata only. Setting the deletion timestamp does change the generation."""
    if not isinstance(event, Updated):
        return True
    return bool(event.old["metadata"].get("generation") != event.new["metadata"].get("generation"))


def resource_version_changed(event: Event) -> bool:
    """Not for the updates that a new list makes of unchanged objects."""
    return not isinstance(event, Updated) or resource_version(event.old) != resource_version(event.new)


def labels_changed(event: Event) -> bool:
    """For updates, only those that change labels."""
    return not isinstance(event, Updated) or labels(event.old) != labels(event.new)


def annotations_changed(event: Event) -> bool:
    """For updates, only those that change annotations."""
    return not isinstance(event, Updated) or get_annotations(event.old) != get_annotations(event.new)


def matches(selector: LabelSelector) -> Predicate:
    """Only objects (for updates: new states) with these labels."""
    return lambda event: selector.matches(labels(subject(event)))


def any_of(*predicates: Predicate) -> Predicate:
    """At least one of them."""
    return lambda event: any(predicate(event) for predicate in predicates)


def all_of(*predicates: Predicate) -> Predicate:
    """Every one of them."""
    return lambda event: all(predicate(event) for predicate in predicates)


def negate(predicate: Predicate) -> Predicate:
    """The opposite."""
    return lambda event: not predicate(event)


def subject(event: Event) -> Obj:
    """The object that an event is about, in its newest state."""
    return event.new if isinstance(event, Updated) else event.obj
