"""A schema as a tree of typed nodes: one shape for built-in kinds and for CRDs, compiled on first use.

In: raw OpenAPI fragments, either from :mod:`definitions` (with ``$ref``) or from a CRD (structural, without).
Out: :class:`Node`, which answers what every walk over an object asks: which child belongs to a field, what kind
of value it is, how lists are identified and merged, what is preserved. Children are made when they are asked
for, so that a recursive or large schema costs nothing until an object reaches it. Nodes are immutable in
effect and shared between threads of walks; nobody may write to ``raw``.
"""

from __future__ import annotations

from functools import cache, cached_property
from typing import Any, Final

from manager.types import Obj

from .definitions import OBJECT_META, REF_PREFIX, definitions

MISSING: Final = object()

_MACHINERY = "io.k8s.apimachinery.pkg."
_JSON_SCHEMA = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1."
_INT_OR_STRING = {_MACHINERY + "util.intstr.IntOrString"}
_QUANTITY = {_MACHINERY + "api.resource.Quantity"}
_LOOSE = {_JSON_SCHEMA + "JSONSchemaPropsOrArray", _JSON_SCHEMA + "JSONSchemaPropsOrBool"}
_ANY = {_JSON_SCHEMA + "JSON", _JSON_SCHEMA + "JSONSchemaPropsOrStringArray"}
_SCALARS = {"string", "integer", "number", "boolean"}


class Node:
    """One place in a schema.

    Attributes:
        type: ``object``, ``array``, ``string``, ``integer``, ``number``, ``boolean``, or ``""`` for anything.
        raw: the fragment it was made from.
        builtin: whether it describes a Go type of Kubernetes (nulls vanish) or a structural schema.
        name: the Go type's name for built-in structs, else empty.
        loose: a union with a struct; a value that is no object is taken as it is.
    """

    def __init__(self, raw: Obj, *, builtin: bool, name: str = "") -> None:
        self.raw = raw
        self.builtin = builtin
        self.name = name.rsplit(".", 1)[-1]
        self.int_or_string = name in _INT_OR_STRING or bool(raw.get("x-kubernetes-int-or-string"))
        self.quantity = name in _QUANTITY
        self.loose = name in _LOOSE
        kind = raw.get("type", "")
        if isinstance(kind, list):
            kind = next((one for one in kind if one != "null"), "")
        self.type: str = "" if name in _ANY or self.int_or_string or self.quantity else str(kind)
        self.format: str = str(raw.get("format", ""))

    # ------------------------------------------------------------------ children

    @cached_property
    def properties(self) -> dict[str, Node]:
        """The declared fields. Empty for maps and opaque values."""
        if self.loose:
            return _definition(_JSON_SCHEMA + "JSONSchemaProps").properties
        found = {name: self._child(raw) for name, raw in (self.raw.get("properties") or {}).items()}
        if self.embedded:
            found = {"apiVersion": _STRING, "kind": _STRING, **found, "metadata": object_meta()}
        return found

    @cached_property
    def additional(self) -> Node | None:
        """The schema of a map's values, or None where the node is no map."""
        raw = self.raw.get("additionalProperties")
        if isinstance(raw, dict):
            return self._child(raw)
        return ANY if raw is True else None

    @cached_property
    def items(self) -> Node | None:
        """The schema of a list's elements."""
        raw = self.raw.get("items")
        return self._child(raw) if isinstance(raw, dict) else None

    def _child(self, raw: Obj) -> Node:
        if not self.builtin:
            return Node(raw, builtin=False)
        ref = raw.get("$ref")
        if not ref:
            return Node(raw, builtin=True)
        target = _definition(ref.removeprefix(REF_PREFIX))
        beside = {key: value for key, value in raw.items() if key.startswith("x-kubernetes-")}
        if not beside:
            return target
        return Node({**target.raw, **beside}, builtin=True, name=ref.removeprefix(REF_PREFIX))

    def field(self, name: str) -> Node | None:
        """The node of a field or map value; :data:`ANY` below preserved data; None for an unknown field."""
        found = self.properties.get(name)
        if found is not None:
            return found
        if self.additional is not None:
            return self.additional
        return ANY if self.opaque or self.preserves_unknown else None

    # ------------------------------------------------------------------ what kind of place this is

    @property
    def opaque(self) -> bool:
        """Nothing is known about the inside: any JSON goes (RawExtension, ``type: object`` of built-ins)."""
        if self.loose:
            return False
        if self.type in _SCALARS or self.type == "array":
            return False
        inside = "properties" in self.raw or "additionalProperties" in self.raw
        if self.builtin:
            return not inside
        return False

    @property
    def preserves_unknown(self) -> bool:
        """``x-kubernetes-preserve-unknown-fields: true``."""
        return bool(self.raw.get("x-kubernetes-preserve-unknown-fields"))

    @property
    def embedded(self) -> bool:
        """``x-kubernetes-embedded-resource: true``: apiVersion, kind and metadata are implied."""
        return bool(self.raw.get("x-kubernetes-embedded-resource"))

    @property
    def nullable(self) -> bool:
        """Whether null is a value here (built-in types take null for absent)."""
        return self.builtin or bool(self.raw.get("nullable"))

    @property
    def is_map(self) -> bool:
        """A map from free keys to values of one type."""
        return self.type == "object" and "additionalProperties" in self.raw

    @property
    def required(self) -> list[str]:
        """Names of the fields that must be there."""
        return self.raw.get("required") or []

    @property
    def default(self) -> Any:
        """The default value, or :data:`MISSING`."""
        return MISSING if self.builtin else self.raw.get("default", MISSING)

    # ------------------------------------------------------------------ merging

    @property
    def list_type(self) -> str:
        """``atomic``, ``set`` or ``map``: how server-side apply treats a list. The default is atomic."""
        return str(self.raw.get("x-kubernetes-list-type") or "atomic")

    @property
    def list_keys(self) -> list[str]:
        """The fields that identify an element of a ``map`` list."""
        return self.raw.get("x-kubernetes-list-map-keys") or []

    @property
    def atomic(self) -> bool:
        """Whether server-side apply owns the value as one piece."""
        if self.type == "object" or (self.type == "" and self.properties):
            return self.raw.get("x-kubernetes-map-type") == "atomic"
        if self.type == "array":
            return self.list_type == "atomic"
        return self.type != ""

    @property
    def merge_key(self) -> str | None:
        """The element key of a strategic merge patch, for lists that merge."""
        return self.raw.get("x-kubernetes-patch-merge-key")

    @property
    def patch_strategies(self) -> frozenset[str]:
        """``merge``, ``replace``, ``retainKeys``."""
        return frozenset(filter(None, str(self.raw.get("x-kubernetes-patch-strategy", "")).split(",")))

    def key_default(self, key: str) -> Any:
        """The value that a missing merge key stands for, or :data:`MISSING`.

        The definitions carry no defaults; ``protocol`` is the only merge key that Kubernetes defaults.
        """
        if self.builtin:
            return "TCP" if key == "protocol" else MISSING
        found = self.items.properties.get(key) if self.items else None
        return found.default if found is not None else MISSING


@cache
def _definition(name: str) -> Node:
    return Node(definitions()[name], builtin=True, name=name)


def definition_node(name: str) -> Node:
    """The node of a definition, shared by all who refer to it."""
    return _definition(name)


def object_meta() -> Node:
    """The node of ``metadata``."""
    return _definition(OBJECT_META)


ANY: Final = Node({"x-kubernetes-preserve-unknown-fields": True}, builtin=False)
_STRING: Final = Node({"type": "string"}, builtin=False)


def crd_root(raw: Obj | None) -> Node:
    """The node of a custom resource: its schema, with apiVersion, kind and metadata as every object has them."""
    schema: Obj = dict(raw) if raw else {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    schema.setdefault("type", "object")
    schema["x-kubernetes-embedded-resource"] = True
    return Node(schema, builtin=False)
