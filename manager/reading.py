"""Lists out of a store, as a server would answer them: by namespace, labels, fields and number.

In: a store and what is asked for. Out: the shared objects that match. Labels are compared in memory. Fields need
an index each, made by ``Cache.index_field``, and equality: a scan would hide its cost, and what a field means is
the index function's to say. Semantics: controller-runtime's cache reader.
"""

from __future__ import annotations

from manager.errors import CacheError, IndexMissing
from manager.meta import key, labels
from manager.meta import namespace as namespace_of
from manager.selectors import parse_field_selector, parse_label_selector
from manager.store import Store
from manager.types import Obj, Resource

CONTINUE_NOT_SUPPORTED = "continue-not-supported"
"""The continue token of a list that ended at its limit: there is more, to be had without a limit."""


def field_index(path: str) -> str:
    """The name of the store's index for a field."""
    return f"field:{path}"


def select(
    store: Store,
    resource: Resource,
    namespace: str | None,
    *,
    label_selector: str | None = None,
    field_selector: str | None = None,
    limit: int | None = None,
    continue_token: str | None = None,
) -> tuple[list[Obj], str]:
    """The matching objects, at most ``limit`` (None or 0: all), and a continue token.

    Raises:
        CacheError: a continue token was given; a cache has no pages.
        IndexMissing: a field has no index, or is compared for anything but equality.
        SelectorError: a selector cannot be parsed.
    """
    if continue_token:
        raise CacheError("a cached list cannot be continued: ask without a limit, or ask the server")
    found = _by_fields(store, resource, namespace, field_selector) if field_selector else store.list(namespace)
    selector = parse_label_selector(label_selector)
    if selector:
        found = [obj for obj in found if selector.matches(labels(obj))]
    if limit and len(found) > limit:
        return found[:limit], CONTINUE_NOT_SUPPORTED
    return found, ""


def _by_fields(store: Store, resource: Resource, namespace: str | None, text: str) -> list[Obj]:
    terms = parse_field_selector(text).terms
    for path, _, equal in terms:
        if not equal:
            raise IndexMissing(f"{resource.plural} by {text}: a cached list compares fields for equality only")
        if not store.has_index(field_index(path)):
            raise IndexMissing(f"{resource.plural} by {path}: there is no index; add one with Cache.index_field")
    (first, value, _), *others = terms
    found = store.by_index(field_index(first), value)
    if namespace is not None:
        found = [obj for obj in found if namespace_of(obj) == namespace]
    for path, value, _ in others:
        keys = {key(obj) for obj in store.by_index(field_index(path), value)}
        found = [obj for obj in found if key(obj) in keys]
    return found
