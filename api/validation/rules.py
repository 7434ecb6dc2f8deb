"""Small questions that several rules ask: field access on raw objects, images, names, placeholders."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from api.model import ApiModel, Obj, Resource

# repository:tag; the tag is after the last colon that no slash follows
_IMAGE: Final = re.compile(r"(.+/[^:/]+):([^:/]+)")
_DNS_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")
_PLACEHOLDER: Final = re.compile(r"[A-Z0-9]*[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+|YOUR[-_]?[A-Za-z_-]*|<[^<>]+>")


def mapping(value: object) -> Mapping[str, Any] | None:
    """The value when it is an object, else None."""
    return value if isinstance(value, dict) else None


def split_image(image: str) -> tuple[str, str] | None:
    """``(repository, tag)`` of a full image reference, or None when it is not one."""
    match = _IMAGE.fullmatch(image)
    return (match.group(1), match.group(2)) if match else None


def is_object_name(name: str) -> bool:
    """Whether a Kubernetes object can have this name."""
    return len(name) <= 253 and _DNS_NAME.fullmatch(name) is not None


def placeholders(text: str) -> list[str]:
    """The words of a text that stand for something to fill in: ACR_REPO_HERE, <your-image>."""
    return [match.group() for match in _PLACEHOLDER.finditer(text)]


def same_json(left: object, right: object) -> bool:
    """Equality in which an absent field, null, and an empty list or object are the same."""
    return _bare(left) == _bare(right)


def _bare(value: object) -> object:
    if isinstance(value, dict):
        items = {key: _bare(item) for key, item in value.items()}
        return {key: item for key, item in items.items() if item is not None} or None
    if isinstance(value, list):
        return [_bare(item) for item in value] or None
    return value


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that ``word`` was probably meant to be."""
    by_lower = {item.lower(): item for item in known}
    match = difflib.get_close_matches(word.lower(), list(by_lower), n=1, cutoff=0.7)
    return by_lower[match[0]] if match else None


def unknown_fields(model: type[Resource], obj: Obj) -> Iterator[tuple[str, str, str | None]]:
    """Fields that the kind does not have: ``(path, field, the field that was probably meant)``.

    ``metadata`` and ``status`` are not looked at: the API server owns the one, the operator the other.
    """
    rest = {key: value for key, value in obj.items() if key not in ("metadata", "status")}
    yield from _unknown(model, rest, "")


def _unknown(model: type[ApiModel], obj: Mapping[str, Any], path: str) -> Iterator[tuple[str, str, str | None]]:
    fields = {info.alias or name: info.annotation for name, info in model.model_fields.items()}
    for key, value in obj.items():
        where = f"{path}.{key}" if path else key
        if key not in fields:
            yield where, key, nearest(key, fields)
            continue
        inner = _model_in(fields[key])
        if inner is None:
            continue
        for index, item in enumerate(value if isinstance(value, list) else [value]):
            if isinstance(item, dict):
                yield from _unknown(inner, item, f"{where}[{index}]" if isinstance(value, list) else where)


def _model_in(annotation: object) -> type[ApiModel] | None:
    """The model inside ``T``, ``T | None``, ``tuple[T, ...]`` or an annotated one of these."""
    if isinstance(annotation, type) and issubclass(annotation, ApiModel):
        return annotation
    for inner in getattr(annotation, "__args__", ()):
        found = _model_in(inner)
        if found is not None:
            return found
    return None
