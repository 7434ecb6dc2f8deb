"""The base of every wire model, and the few Kubernetes types that ours contain.

In: JSON objects in camelCase. Out: frozen pydantic models in snake_case. Unknown fields are ignored here, so
that an older operator reads a newer object; the search for typos works on the raw object and lives in
``api.validation``. Only this room and HTTP bodies use pydantic. Rules in CEL stand at the field or class that they
are about; an API server that knows no CEL drops them, so ``api.validation`` has each of them too.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, ClassVar, Final, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, WithJsonSchema
from pydantic.alias_generators import to_camel
from pydantic.config import JsonDict

from api.conditions import Condition, parse_time
from api.errors import InvalidSpec

Obj = dict[str, Any]

RULES: Final = "x-kubernetes-validations"
_MANY: Final = 200  # findings about one object; more is not a mistake in it, it is another thing


def _none_is_empty(default: type[dict[Any, Any]] | type[list[Any]]) -> BeforeValidator:
    return BeforeValidator(lambda value: default() if value is None else value)


# A JSON null where a list or map is meant counts as absent, as Kubernetes itself reads it.
Labels = Annotated[dict[str, str], _none_is_empty(dict)]
Strings = Annotated[tuple[str, ...], _none_is_empty(list)]


class ApiModel(BaseModel):
    """A frozen model whose JSON names are camelCase. Fields carry the text that ``kubectl explain`` prints."""

    model_config = ConfigDict(
        frozen=True,
        extra="ignore",
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        arbitrary_types_allowed=True,
    )


def rules(*pairs: tuple[str, str], **more: Any) -> JsonDict:
    """``json_schema_extra`` with CEL rules, each ``(expression, message)``, and further keywords of a schema."""
    return {RULES: [{"rule": rule, "message": message} for rule, message in pairs], **more}


def same(name: str) -> str:
    """CEL: an optional field is neither set, nor unset, nor changed."""
    return f"has(self.{name}) == has(oldSelf.{name}) && (!has(self.{name}) || self.{name} == oldSelf.{name})"


class LabelSelectorRequirement(ApiModel):
    """One expression of a label selector."""

    key: str = Field(description="The label key that the expression is about.")
    operator: str = Field(description="One of In, NotIn, Exists, DoesNotExist.")
    values: Strings = Field(
        default=(), description="The values for In and NotIn; empty for Exists and DoesNotExist."
    )


class LabelSelector(ApiModel):
    """A label selector; an object must match every entry of both lists."""

    # As in Kubernetes' own kinds: of two appliers one owns the selector, they do not add to each other's.
    model_config = ConfigDict(json_schema_extra={"x-kubernetes-map-type": "atomic"})

    match_labels: Labels = Field(
        default_factory=dict, description="Labels, with their values, that an object must carry."
    )
    match_expressions: Annotated[tuple[LabelSelectorRequirement, ...], _none_is_empty(list)] = Field(
        default=(), description="Expressions that an object's labels must satisfy."
    )

    def as_labels(self) -> dict[str, str] | None:
        """The selector as a plain map (an In with one value counts), or None when it is not one."""
        labels = dict(self.match_labels)
        for item in self.match_expressions:
            if (
                item.operator != "In"
                or len(item.values) != 1
                or labels.get(item.key, item.values[0]) != item.values[0]
            ):
                return None
            labels[item.key] = item.values[0]
        return labels


class ObjectMeta(ApiModel):
    """The part of an object's metadata that we read."""

    name: str = ""
    namespace: str = ""
    uid: str = ""
    generation: int = 0
    resource_version: str = ""
    creation_timestamp: str | None = None
    deletion_timestamp: str | None = None
    labels: Labels = Field(default_factory=dict)
    annotations: Labels = Field(default_factory=dict)
    finalizers: Strings = ()

    @property
    def created(self) -> datetime | None:
        """When the API server stored it."""
        return parse_time(self.creation_timestamp)

    @property
    def deleting(self) -> bool:
        """Whether somebody asked for its deletion."""
        return self.deletion_timestamp is not None


class Resource(ApiModel):
    """A custom resource: what every kind of ours has at its top level."""

    KIND: ClassVar[str] = ""
    API_VERSION: ClassVar[str] = ""

    api_version: str = ""
    kind: str = ""
    metadata: ObjectMeta = Field(default_factory=ObjectMeta)

    @property
    def name(self) -> str:
        """``metadata.name``."""
        return self.metadata.name

    @property
    def namespace(self) -> str:
        """``metadata.namespace``; empty for a cluster-scoped kind."""
        return self.metadata.namespace

    @classmethod
    def parse(cls, obj: Mapping[str, Any]) -> Self:
        """A typed view of a JSON object. The object is not changed; unknown fields are ignored.

        Raises:
            InvalidSpec: a field is missing or has the wrong type; every such field is listed.
        """
        try:
            return cls.model_validate(obj)
        except ValidationError as error:
            metadata = obj.get("metadata")
            name = str(metadata.get("name", "")) if isinstance(metadata, Mapping) else ""
            raise InvalidSpec(cls.KIND, name, problems_of(error)) from None


def problems_of(error: ValidationError) -> list[tuple[str, str]]:
    """pydantic's findings as ``(field path, what is wrong)``, paths as in the manifest. Thousands are counted."""
    if error.error_count() > _MANY:
        return [("", f"{error.error_count()} fields are missing or of the wrong type")]
    return [(_path(item["loc"]), item["msg"].lower()) for item in error.errors(include_url=False)]


def _path(loc: tuple[int | str, ...]) -> str:
    text = ""
    for part in loc:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def read_conditions(value: object) -> object:
    """Before-validator for ``status.conditions``: JSON to ``Condition`` values."""
    if value is None:
        return ()
    if isinstance(value, list | tuple):
        return tuple(Condition.from_obj(item) if isinstance(item, dict) else item for item in value)
    return value


Conditions = Annotated[
    tuple[Condition, ...],
    BeforeValidator(read_conditions),
    WithJsonSchema({"type": "array", "items": {"type": "object", "x-condition": True}}),  # filled in by api.schema
]
