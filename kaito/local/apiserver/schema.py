"""What a schema does to an object: find unknown fields, prune, default, validate.

In: an object as decoded JSON. Out: new objects (inputs are never changed, unchanged parts are shared) or lists
of problems in Kubernetes' words. One class serves built-in kinds and custom resources; where the real server
treats them differently (types are checked while decoding built-ins, while validating custom resources; null
means absent for built-ins) the nodes say so. CEL rules (``x-kubernetes-validations``) are accepted and not
evaluated: :meth:`Schema.validate` is the seam where they would join.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

from manager.types import Obj

from .crd_rules import validate_crd
from .definitions import definition_name
from .fielderrors import FieldError
from .godecode import decode_error
from .structure import ANY, MISSING, Node, crd_root, definition_node
from .values import validate_value

__all__ = ["FieldError", "Schema", "validate_crd"]


class Schema:
    """The schema of one kind in one version. Made cheaply; compiled where an object reaches it."""

    def __init__(self, source: Obj | str | None, *, builtin: tuple[str, str, str] | None = None) -> None:
        self._source = source
        self._builtin = builtin

    @classmethod
    def builtin(cls, group: str, version: str, kind: str) -> Schema:
        """The schema of a built-in kind; definitions are read when it is first used."""
        return cls(None, builtin=(group, version, kind))

    @classmethod
    def from_crd(cls, raw: Obj | None) -> Schema:
        """The schema of a custom resource from ``openAPIV3Schema`` (None preserves everything)."""
        return cls(raw)

    @property
    def is_builtin(self) -> bool:
        """Whether it describes a kind of Kubernetes itself."""
        return self._builtin is not None

    @property
    def raw(self) -> Obj:
        """The fragment it was made from; for built-in kinds with ``$ref`` into the definitions."""
        return self.root.raw

    @cached_property
    def root(self) -> Node:
        """The node of the whole object."""
        if self._builtin is None:
            return crd_root(self._source if isinstance(self._source, dict) else None)
        name = definition_name(*self._builtin)
        return definition_node(name) if name else ANY

    # ------------------------------------------------------------------ what a request brings

    def decode_error(self, obj: Obj) -> str | None:
        """Why a built-in object cannot be decoded at all (a 400, not a list of causes); None when it can.

        The text follows Go's: ``json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas
        of type int32``. Custom resources only have their ``metadata`` checked here.
        """
        return decode_error(obj, self.root)

    def decode_problems(self, obj: Obj) -> list[str]:
        """Unknown fields, as strict decoding reports them: ``unknown field "spec.foo"``, in path order."""
        found: list[str] = []
        _unknown(obj, self.root, "", found)
        return [f'unknown field "{path}"' for path in found]

    def prune(self, obj: Obj) -> Obj:
        """Without the fields that the schema does not know.

        Built-in kinds also lose nulls and empty optional lists and maps, which a Go type cannot hold.
        """
        pruned = _prune(obj, self.root)
        return pruned if isinstance(pruned, dict) else {}

    def default(self, obj: Obj) -> Obj:
        """With the default values that are missing.

        The schemas of built-in kinds carry none (Kubernetes has them in code; here :mod:`defaults` does), so
        such an object comes back as it is.
        """
        if self._builtin is not None:
            return obj
        defaulted = _default(obj, self.root)
        return defaulted if isinstance(defaulted, dict) else obj

    def validate(self, obj: Obj) -> list[FieldError]:
        """Everything in the object that breaks the schema. Empty when it is valid."""
        return validate_value(obj, self.root, "", in_status=False)


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _unknown(value: Any, node: Node, path: str, found: list[str]) -> None:
    if isinstance(value, dict):
        for key in sorted(value):
            child = node.field(key)
            here = _join(path, key)
            if child is None:
                if node.type in ("object", "") or node.loose:
                    found.append(here)
            elif child is not ANY:
                _unknown(value[key], child, here, found)
    elif isinstance(value, list) and node.items is not None:
        for index, item in enumerate(value):
            _unknown(item, node.items, f"{path}[{index}]", found)


def _empty(value: Any, node: Node) -> bool:
    return value is None or (value == [] and node.type == "array") or (value == {} and node.is_map)


def _prune(value: Any, node: Node) -> Any:
    if isinstance(value, dict):
        kept = {}
        for key, item in value.items():
            child = node.field(key)
            if child is None:
                continue
            if child is ANY:
                kept[key] = item
                continue
            if node.builtin and not node.is_map and _empty(item, child) and key not in node.required:
                continue
            if node.builtin and item is None:
                if node.is_map and child.type == "string":
                    kept[key] = ""
                continue
            kept[key] = _prune(item, child)
        return kept
    if isinstance(value, list) and node.items is not None:
        items = node.items
        return [_prune(item, items) for item in value]
    return value


def _default(value: Any, node: Node) -> Any:
    if isinstance(value, dict):
        return _default_object(value, node)
    if isinstance(value, list) and node.items is not None:
        items = node.items
        changed = [_default(item, items) for item in value]
        if any(new is not old for new, old in zip(changed, value, strict=True)):
            return changed
    return value


def _default_object(value: Obj, node: Node) -> Obj:
    """Defaults for what is absent; a null that is not allowed counts as absent, as on the real server."""
    result = dict(value)
    for name, child in node.properties.items():
        if child.default is not MISSING and (name not in value or _is_refused_null(value[name], child)):
            result[name] = child.default
    for name, item in list(result.items()):
        known = node.field(name)
        if known is None or known is ANY:
            continue
        if _is_refused_null(item, known):
            del result[name]
        else:
            result[name] = _default(item, known)
    same = len(result) == len(value) and all(result[name] is value.get(name, MISSING) for name in result)
    return value if same else result


def _is_refused_null(value: Any, node: Node) -> bool:
    return value is None and not node.nullable
