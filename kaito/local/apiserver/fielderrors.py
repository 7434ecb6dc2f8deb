"""One problem with one field, worded as Kubernetes words it.

In: a path, a value and what is wrong. Out: :class:`FieldError`, whose ``message`` is the text after the path
and whose ``type`` is the cause reason of a Status. Values are rendered as the Go server renders them: strings
quoted, everything else as JSON.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson

from manager.types import Obj


@dataclass(frozen=True, slots=True)
class FieldError:
    """``path: message``; ``type`` is one of the ``FieldValue...`` reasons."""

    path: str
    type: str
    message: str

    def __str__(self) -> str:
        return f"{self.path or '<nil>'}: {self.message}"

    def cause(self) -> Obj:
        """The entry of ``details.causes`` in a Status."""
        return {"reason": self.type, "message": self.message, "field": self.path or "<nil>"}


def render(value: Any) -> str:
    """A value as it appears in messages."""
    return orjson.dumps(value).decode()


def required(path: str, detail: str = "") -> FieldError:
    """The field must be there."""
    return FieldError(path, "FieldValueRequired", "Required value" + (f": {detail}" if detail else ""))


def invalid(path: str, value: Any, detail: str) -> FieldError:
    """The value breaks a rule."""
    return FieldError(path, "FieldValueInvalid", f"Invalid value: {render(value)}: {detail}")


def type_invalid(path: str, value: Any, detail: str) -> FieldError:
    """The value has the wrong type."""
    return FieldError(path, "FieldValueTypeInvalid", f"Invalid value: {render(value)}: {detail}")


def not_supported(path: str, value: Any, supported: list[Any]) -> FieldError:
    """The value is not one of an enumeration."""
    listed = ", ".join(render(one) for one in supported)
    return FieldError(
        path, "FieldValueNotSupported", f"Unsupported value: {render(value)}: supported values: {listed}"
    )


def duplicate(path: str, value: Any) -> FieldError:
    """The value is there twice."""
    return FieldError(path, "FieldValueDuplicate", f"Duplicate value: {render(value)}")


def forbidden(path: str, detail: str) -> FieldError:
    """The field must not be set, or must not be changed."""
    return FieldError(path, "FieldValueForbidden", f"Forbidden: {detail}")


def too_long(path: str, limit: int) -> FieldError:
    """A string over its limit in bytes."""
    return FieldError(path, "FieldValueTooLong", f"Too long: may not be more than {limit} bytes")


def too_many(path: str, count: int, limit: int) -> FieldError:
    """A list or map over its limit."""
    return FieldError(path, "FieldValueTooMany", f"Too many: {count}: must have at most {limit} items")
