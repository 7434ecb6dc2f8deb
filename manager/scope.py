"""Which part of a collection one list-and-watch covers, and what is kept of its objects."""

from __future__ import annotations

from dataclasses import dataclass

from manager.selectors import FieldSelector, parse_field_selector
from manager.transforms import Transform, strip_managed_fields

_NAMESPACE = "metadata.namespace"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """See the module.

    Attributes:
        namespace: the only one; None: all, but for ``without``.
        without: namespaces that other scopes of the same informer cover.
        transform: what is done to each object before it is kept.
    """

    namespace: str | None = None
    without: tuple[str, ...] = ()
    label_selector: str | None = None
    field_selector: str | None = None
    transform: Transform = strip_managed_fields

    def __str__(self) -> str:
        parts = (
            f"in {self.namespace}" if self.namespace else "",
            f"labels {self.label_selector}" if self.label_selector else "",
            f"fields {self.query_fields}" if self.query_fields else "",
        )
        return " ".join(filter(None, parts)) or "everywhere"

    def covers(self, namespace: str) -> bool:
        """Whether objects of this namespace (empty: cluster-scoped) come from here."""
        if self.namespace is not None:
            return namespace == self.namespace
        return namespace not in self.without

    @property
    def query_namespace(self) -> str | None:
        """The namespace to ask in. A field selector that names one asks there, which needs less of RBAC."""
        if self.namespace is not None:
            return self.namespace
        named = [value for path, value, equal in self._fields.terms if path == _NAMESPACE and equal]
        return named[0] if len(named) == 1 and named[0] else None

    @property
    def query_fields(self) -> str | None:
        """The field selector to ask with."""
        excluded = tuple((_NAMESPACE, name, False) for name in self.without)
        return str(FieldSelector((*excluded, *self._fields.terms))) or None

    @property
    def _fields(self) -> FieldSelector:
        return parse_field_selector(self.field_selector)
