"""Small questions that several rules ask: field access on raw objects, names, placeholders, likely meanings.

Texts come from anybody, of any length: what compares or matches is bounded.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from api import keys
from api.model import ApiModel, Obj, Resource

_DNS_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")
_DNS_LABEL: Final = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_LABEL_VALUE: Final = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?")
_PLACEHOLDER: Final = re.compile(r"[A-Z0-9]+(?:_[A-Z0-9]+)+|YOUR[-_]?[A-Za-z_-]*|<[^<>]+>")
_LONGEST: Final = 512  # longer texts are no names, and comparing them takes long
_UNKNOWN: Final = 20  # unknown fields that are told of


def mapping(value: object) -> Mapping[str, Any] | None:
    """The value when it is an object, else None."""
    return value if isinstance(value, dict) else None


def is_object_name(name: str) -> bool:
    """Whether a Kubernetes object can have this name."""
    return len(name) <= 253 and _DNS_NAME.fullmatch(name) is not None


def is_dns_label(name: str) -> bool:
    """Whether a name is a DNS-1123 label."""
    return len(name) <= 63 and _DNS_LABEL.fullmatch(name) is not None


def is_label_value(value: str) -> bool:
    """Whether a label can have this value."""
    return len(value) <= 63 and _LABEL_VALUE.fullmatch(value) is not None


def is_label_key(key: str) -> bool:
    """Whether a label can have this key."""
    domain, slash, name = key.rpartition("/")
    return (not slash or is_object_name(domain)) and name != "" and is_label_value(name)


def is_reserved_label(key: str) -> bool:
    """Whether a label is one that KAITO or the node provisioner writes."""
    domain, slash, _ = key.partition("/")
    return bool(slash) and any(
        domain == item or domain.endswith(f".{item}") for item in keys.RESERVED_LABEL_DOMAINS
    )


def placeholders(text: str) -> list[str]:
    """The words of a text that stand for something to fill in: ACR_REPO_HERE, <your-image>."""
    if len(text) > _LONGEST:
        return []
    words = (match.group() for match in _PLACEHOLDER.finditer(text))
    return [word for word in words if any(map(str.isalpha, word.partition("_")[0] or word))]


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
    if len(word) > _LONGEST:
        return None
    by_lower = {item.lower(): item for item in known}
    match = difflib.get_close_matches(word.lower(), list(by_lower), n=1, cutoff=0.7)
    return by_lower[match[0]] if match else None


def shown(text: str, limit: int = 100) -> str:
    """A text for a message: quoted, and not longer than a line."""
    return repr(text if len(text) <= limit else f"{text[:limit]}...")


def unknown_fields(model: type[Resource], obj: Obj) -> list[tuple[str, str, str | None]]:
    """Fields that the kind does not have: ``(path, field, the field that was probably meant)``, the first 20.

    ``metadata`` and ``status`` are not looked at: the API server owns the one, the operator the other.
    """
    rest = {key: value for key, value in obj.items() if key not in ("metadata", "status")}
    found: list[tuple[str, str, str | None]] = []
    for item in _unknown(model, rest, ""):
        found.append(item)
        if len(found) == _UNKNOWN:
            break
    return found


def _unknown(model: type[ApiModel], obj: Mapping[str, Any], path: str) -> Iterator[tuple[str, str, str | None]]:
    fields = {info.alias or name: info.annotation for name, info in model.model_fields.items()}
    for key, value in obj.items():
        where = f"{path}.{key}" if path else key
        if key not in fields:
            yield where[:_LONGEST], key[:_LONGEST], nearest(key, fields)
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
