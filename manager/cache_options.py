"""What a cache holds of each kind: namespaces, selectors and transforms, by kind, by namespace, and in general.

In: :class:`CacheOptions`. Out: the scopes of one kind, each a list-and-watch of its own. What one level leaves
open (None) the next decides, in controller-runtime's order::

    by_resource[kind].namespaces[namespace]   for this kind in this namespace
    by_resource[kind]                         for this kind
    default_namespaces[namespace]             for every kind in this namespace
    default                                   for everything

An empty selector is a decision: everything. The namespace ``""`` stands for all namespaces that are not named
beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from manager.errors import ConfigError, NotCached
from manager.scope import Scope
from manager.selectors import SelectorError, parse_field_selector, parse_label_selector
from manager.transforms import Transform, strip_managed_fields
from manager.types import Resource

ALL_OTHERS = ""
"""The key of all namespaces that are not named."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which objects, and what of them. None leaves it to the next level; an empty selector selects everything."""

    label_selector: str | None = None
    field_selector: str | None = None
    transform: Transform | None = None

    def __post_init__(self) -> None:
        try:
            parse_label_selector(self.label_selector)
            parse_field_selector(self.field_selector)
        except SelectorError as error:
            raise ConfigError(f"cache options: {error}") from error

    def over(self, other: Selection) -> Selection:
        """This one, with what it leaves open taken from the other."""
        merged: dict[str, Any] = {}
        for entry in fields(Selection):
            mine = getattr(self, entry.name)
            merged[entry.name] = getattr(other, entry.name) if mine is None else mine
        return Selection(**merged)


@dataclass(frozen=True, slots=True, kw_only=True)
class ByResource(Selection):
    """For one kind. ``namespaces``: None: the default ones; an empty mapping: all, whatever the default."""

    namespaces: Mapping[str, Selection] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheOptions:
    """See the module.

    Attributes:
        sync_period: seconds between resyncs, before jitter of 10 % either way; 0: none.
        default: for everything; its transform is :func:`strip_managed_fields` when None.
        default_namespaces: None or empty: all namespaces. Without meaning for cluster-scoped kinds.
        by_resource: for single kinds. Namespaces for a cluster-scoped kind are an error.
        fail_on_missing_informer: a read of a kind that nobody watches is an error and starts no informer.
        sync_timeout: seconds that a read waits for the first list of its kind.
        stale_timeout: seconds that a read waits for this process's own writes, before it raises ``StaleCache``.
    """

    sync_period: float = 36_000.0
    default: Selection = Selection()
    default_namespaces: Mapping[str, Selection] | None = None
    by_resource: Mapping[Resource, ByResource] = field(default_factory=dict)
    fail_on_missing_informer: bool = False
    sync_timeout: float = 120.0
    stale_timeout: float = 10.0

    def __post_init__(self) -> None:
        for resource, chosen in self.by_resource.items():
            if chosen.namespaces is not None and not resource.namespaced:
                raise ConfigError(
                    f"cache options: {resource.plural} are cluster-scoped, they cannot have namespaces"
                )

    def scopes(self, resource: Resource) -> list[Scope]:
        """The lists and watches of a kind."""
        namespaces = self._namespaces(resource)
        if not namespaces:
            return [_scope(self._selection(resource, None))]
        named = tuple(sorted(name for name in namespaces if name != ALL_OTHERS))
        return [
            _scope(
                self._selection(resource, name),
                namespace=None if name == ALL_OTHERS else name,
                without=named if name == ALL_OTHERS else (),
            )
            for name in sorted(namespaces)
        ]

    def scope_in(self, resource: Resource, namespace: str) -> Scope:
        """The list and watch of a kind in one namespace.

        Raises:
            NotCached: the options leave this namespace out.
        """
        namespaces = self._namespaces(resource)
        if namespaces and namespace not in namespaces and ALL_OTHERS not in namespaces:
            raise NotCached(out_of_scope(resource, namespace, namespaces))
        level = namespace if namespaces and namespace in namespaces else ALL_OTHERS
        return _scope(self._selection(resource, level if namespaces else None), namespace=namespace)

    def _namespaces(self, resource: Resource) -> Mapping[str, Selection]:
        if not resource.namespaced:
            return {}
        chosen = self.by_resource.get(resource, ByResource()).namespaces
        return (self.default_namespaces if chosen is None else chosen) or {}

    def _selection(self, resource: Resource, namespace: str | None) -> Selection:
        """``namespace``: None where none is configured."""
        levels: list[Selection | None] = []
        chosen = self.by_resource.get(resource)
        if chosen is not None:
            levels += [(chosen.namespaces or {}).get(namespace) if namespace is not None else None, chosen]
        if namespace is not None:
            levels.append((self.default_namespaces or {}).get(namespace))
        selection = Selection()
        for level in [*levels, self.default]:
            if level is not None:
                selection = selection.over(level)
        return selection


def out_of_scope(resource: Resource, namespace: str, covered: Mapping[str, object]) -> str:
    """The message for a namespace that a cache does not hold."""
    names = ", ".join(sorted(covered))
    return f"{resource.plural} of namespace {namespace} are not in this cache, only those of {names}"


def _scope(selection: Selection, *, namespace: str | None = None, without: tuple[str, ...] = ()) -> Scope:
    return Scope(
        namespace=namespace,
        without=without,
        label_selector=selection.label_selector,
        field_selector=selection.field_selector,
        transform=selection.transform or strip_managed_fields,
    )
