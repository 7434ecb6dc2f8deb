"""Structural OpenAPI v3 schemas from pydantic models.

In: a model class. Out: the schema that a CustomResourceDefinition may hold: references inlined, every node
typed, ``T | None`` as an optional T (a null is pruned by the API server), free-form objects marked so that
their fields are kept. Defaults are left out on purpose: absence must stay visible to the operator. What is
Kubernetes' own (``x-kubernetes-*``: CEL rules, list types) is written at the models and copied as it stands.
"""

from __future__ import annotations

from typing import Any, Final

from api.keys import KARPENTER_GROUP
from api.model import RULES, ApiModel, Obj, Resource
from api.quantity import PATTERN

_COPIED: Final = (
    "format",
    "pattern",
    "minimum",
    "maximum",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "maxProperties",
)
_OURS: Final = "x-kubernetes-"
_REASON: Final = "^([A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?|)$"

_API_VERSION: Final = "The version of the schema that this object is written in."
_KIND: Final = "The kind of this object."

QUANTITY: Final[Obj] = {
    "anyOf": [{"type": "integer"}, {"type": "string"}],
    "pattern": PATTERN,
    "x-kubernetes-int-or-string": True,
}


def structural(model: type[Resource]) -> Obj:
    """The schema of a custom resource. ``metadata`` is left to the API server."""
    result = _Generator(_condition_of(model.API_VERSION)).convert(model)
    result["properties"] = {
        "apiVersion": {"type": "string", "description": _API_VERSION},
        "kind": {"type": "string", "description": _KIND},
        "metadata": {"type": "object"},
        **{
            key: value
            for key, value in result["properties"].items()
            if key not in ("apiVersion", "kind", "metadata")
        },
    }
    return result


def _condition_of(api_version: str) -> Obj:
    """The conditions of each kind as their other writers know them."""
    group, _, version = api_version.partition("/")
    schema = condition_schema(severity=group == KARPENTER_GROUP and version.startswith("v1alpha"))
    if group == KARPENTER_GROUP and version == "v1":
        schema["required"] = ["lastTransitionTime", "status", "type"]
        schema["properties"]["reason"] |= {"maxLength": 1024, "pattern": _REASON}
        schema["properties"]["message"] |= {"maxLength": 32768}
    return schema


def condition_schema(*, severity: bool) -> Obj:
    """The schema of one condition: knative's with ``severity``, else metav1's."""
    properties: Obj = {
        "type": {"type": "string", "description": "What the condition is about."},
        "status": {
            "type": "string",
            "description": "True, False or Unknown.",
            "enum": ["True", "False", "Unknown"],
        },
        "reason": {"type": "string", "description": "Why, in one word that programs may match on."},
        "message": {"type": "string", "description": "Why, for people, and what can be done next."},
        "lastTransitionTime": {"type": "string", "description": "Since when.", "format": "date-time"},
    }
    if severity:
        properties["severity"] = {"type": "string", "description": "Empty for an error, else Warning or Info."}
        del properties["lastTransitionTime"]["format"]  # knative's is a plain string
        del properties["status"]["enum"]
    else:
        properties["observedGeneration"] = {
            "type": "integer",
            "format": "int64",
            "description": "The generation that the condition is about.",
        }
    return {
        "type": "object",
        "description": "One condition.",
        "required": ["type", "status"],
        "properties": properties,
    }


class _Generator:
    """Walks pydantic's JSON schema. One instance per resource: the condition's schema differs."""

    def __init__(self, condition: Obj) -> None:
        self._condition = condition
        self._definitions: Obj = {}

    def convert(self, model: type[ApiModel]) -> Obj:
        source: Obj = model.model_json_schema()
        self._definitions = source.get("$defs", {})
        return self._node(source)

    def _node(self, source: Obj) -> Obj:
        if "$ref" in source:
            name = str(source["$ref"]).rsplit("/", 1)[-1]
            target = self._node(self._definitions[name])
            if "description" in source:  # the field's own words say more than the type's
                target["description"] = source["description"]
            _extend(target, source)
            return target
        if source.get("x-condition"):
            return dict(self._condition)
        if "anyOf" in source:
            return self._union(source)
        return self._typed(source)

    def _union(self, source: Obj) -> Obj:
        options = [item for item in source["anyOf"] if item.get("type") != "null"]
        if len(options) == 1:
            rest = {key: value for key, value in source.items() if key not in ("anyOf", "default", "title")}
            merged = {**options[0], **rest}
            _extend(merged, options[0])
            return self._node(merged)
        if sorted(str(item.get("type")) for item in options) == ["integer", "string"]:
            return dict(QUANTITY)
        raise TypeError(f"a structural schema cannot hold this union: {source}")

    def _typed(self, source: Obj) -> Obj:
        kind = source.get("type")
        if kind is None:
            raise TypeError(f"a structural schema needs a type: {source}")
        node: Obj = {"type": kind}
        if source.get("description"):
            node["description"] = _one_paragraph(source["description"])
        node.update({key: source[key] for key in _COPIED if key in source})
        _extend(node, source)
        if "x-default" in source:
            node["default"] = source["x-default"]
        if "enum" in source:
            node["enum"] = list(source["enum"])
        if kind == "array":
            node["items"] = self._node(source["items"])
        elif kind == "object":
            self._object(source, node)
        return node

    def _object(self, source: Obj, node: Obj) -> None:
        properties: dict[str, Any] = source.get("properties", {})
        if properties:
            if source.get("required"):
                node["required"] = list(source["required"])
            node["properties"] = {name: self._node(value) for name, value in properties.items()}
        elif isinstance(source.get("additionalProperties"), dict) and source["additionalProperties"]:
            node["additionalProperties"] = self._node(source["additionalProperties"])
        else:
            node["x-kubernetes-preserve-unknown-fields"] = True


def _extend(node: Obj, source: Obj) -> None:
    """Copy what is Kubernetes' own; the rules of a type and those of the field that has it add up."""
    for key, value in source.items():
        if not key.startswith(_OURS):
            continue
        present = node.get(key)
        if key == RULES and present is not None:
            value = [*present, *(item for item in value if item not in present)]
        node[key] = value


def _one_paragraph(text: str) -> str:
    return " ".join(text.split())
