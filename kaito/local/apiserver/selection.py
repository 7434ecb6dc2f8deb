"""Which objects a list or watch is about: label and field selectors together.

In: the selector texts of a request and the resource type. Out: a predicate on objects at the request's
version, or 400 for what cannot be parsed or is not served. Field selectors may name any dotted path of a
built-in kind (a real server knows a fixed list per kind); custom resources have ``metadata.name``,
``metadata.namespace`` and the ``selectableFields`` of their definition, as on a real server, so that nothing
is built here that would fail there.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from kaito.local.apiserver.errors import bad_request
from kaito.local.apiserver.registry import ResourceType
from manager.selectors import LabelSelector, parse_label_selector
from manager.types import Obj

__all__ = ["Selection"]

_EMPTY_MEANS = {("Pod", "status.phase"): "Unknown", ("Node", "spec.unschedulable"): "false"}


@dataclass(frozen=True, slots=True)
class _FieldTerm:
    path: tuple[str, ...]
    value: str
    equal: bool
    empty: str

    def matches(self, obj: Obj) -> bool:
        found: Any = obj
        for part in self.path:
            found = found.get(part) if isinstance(found, dict) else None
        if isinstance(found, bool):
            text = str(found).lower()
        elif found is None:
            text = self.empty
        else:
            text = str(found)
        return (text == self.value) is self.equal


@dataclass(frozen=True, slots=True)
class Selection:
    """The selectors of one request."""

    labels: LabelSelector | None = None
    fields: tuple[_FieldTerm, ...] = ()

    @classmethod
    def parse(
        cls,
        resource: ResourceType,
        label_selector: str,
        field_selector: str,
        selectable: Collection[str] = (),
    ) -> Selection:
        """Parse both selectors.

        Raises:
            StatusError: 400, with what is wrong.
        """
        labels = None
        if label_selector.strip():
            try:
                labels = parse_label_selector(label_selector)
            except ValueError as error:
                raise bad_request(str(error)) from error
        return cls(labels, tuple(_parse_fields(resource, field_selector, selectable)))

    def __bool__(self) -> bool:
        return self.labels is not None or bool(self.fields)

    @property
    def name(self) -> str | None:
        """The one name that can match, where the fields say so."""
        for term in self.fields:
            if term.path == ("metadata", "name") and term.equal:
                return term.value
        return None

    def matches(self, obj: Obj) -> bool:
        """Whether the object belongs to the list."""
        if self.labels is not None and not self.labels.matches(obj["metadata"].get("labels") or {}):
            return False
        return all(term.matches(obj) for term in self.fields)


def _parse_fields(resource: ResourceType, text: str, selectable: Collection[str]) -> list[_FieldTerm]:
    terms = []
    for clause in text.split(",") if text.strip() else ():
        operator = next((one for one in ("!=", "==", "=") if one in clause), "")
        if not operator:
            raise bad_request(f"invalid field selector: {text!r}; can't understand {clause!r}")
        path, _, value = clause.partition(operator)
        path = path.strip()
        allowed = {"metadata.name", "metadata.namespace", *(field.lstrip(".") for field in selectable)}
        if resource.is_crd and path not in allowed:
            raise bad_request(f"field label not supported: {path}")
        empty = _EMPTY_MEANS.get((resource.kind, path), "")
        terms.append(_FieldTerm(tuple(path.split(".")), value.strip().replace("\\", ""), operator != "!=", empty))
    return terms
