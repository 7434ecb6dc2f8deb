"""Filters between a source and a queue: a change that a predicate refuses makes no work. They save no memory.

A predicate is a function of a change; several are AND-ed. Those that compare old and new look at updates only and
let everything else pass; an update that lacks either side is a source's mistake, which they log and refuse.
Semantics: controller-runtime's predicates.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

from manager.changes import Change
from manager.informer import Event, Updated
from manager.meta import get_annotations, labels, resource_version
from manager.selectors import LabelSelector, parse_label_selector
from manager.types import Obj

log = logging.getLogger("kaito.manager.predicates")

Predicate = Callable[[Event], bool]
_C = TypeVar("_C")  # the changes that a predicate understands: an informer's, a channel's, or all


def generation_changed(change: Change) -> bool:
    """Not for updates of status or metadata only. Setting the deletion timestamp does change the generation."""
    return _differ(change, _generation)


def resource_version_changed(change: Change) -> bool:
    """Not for the updates that a new list makes of unchanged objects."""
    return _differ(change, resource_version)


def labels_changed(change: Change) -> bool:
    """For updates, only those that change labels."""
    return _differ(change, labels)


def annotations_changed(change: Change) -> bool:
    """For updates, only those that change annotations."""
    return _differ(change, get_annotations)


def on_object(check: Callable[[Obj], bool]) -> Callable[[Change], bool]:
    """A predicate that looks at the object alone; for updates, at its new state."""

    def predicate(change: Change) -> bool:
        obj = subject(change)
        if not obj:
            log.error("change without an object refused change=%s", type(change).__name__)
            return False
        return check(obj)

    return predicate


def matches(selector: LabelSelector | str) -> Callable[[Change], bool]:
    """Only objects (for updates: new states) with these labels.

    Raises:
        SelectorError: the selector is text that cannot be parsed.
    """
    parsed = parse_label_selector(selector) if isinstance(selector, str) else selector
    return on_object(lambda obj: parsed.matches(labels(obj)))


def any_of(*predicates: Callable[[_C], bool]) -> Callable[[_C], bool]:
    """At least one of them."""
    return lambda change: any(predicate(change) for predicate in predicates)


def all_of(*predicates: Callable[[_C], bool]) -> Callable[[_C], bool]:
    """Every one of them."""
    return lambda change: all(predicate(change) for predicate in predicates)


def negate(predicate: Callable[[_C], bool]) -> Callable[[_C], bool]:
    """The opposite."""
    return lambda change: not predicate(change)


def subject(change: Change) -> Obj:
    """The object that a change is about, in its newest state."""
    return change.new if isinstance(change, Updated) else change.obj


def _generation(obj: Obj) -> object:
    return obj.get("metadata", {}).get("generation")


def _differ(change: Change, aspect: Callable[[Obj], object]) -> bool:
    if not isinstance(change, Updated):
        return True
    if not change.old or not change.new:
        log.error("update without its %s state refused", "new" if change.old else "old")
        return False
    return aspect(change.old) != aspect(change.new)
