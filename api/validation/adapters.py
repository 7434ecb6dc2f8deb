"""The rules for the adapters of an inference workspace; the same on creation and on update."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from typing import Final

from api.v1alpha1 import AdapterSpec, DataSource
from api.validation.rules import split_image
from api.validation.violation import Violation

MAX_ADAPTERS: Final = 10
_NAME: Final = re.compile(r"(?i:[a-z0-9]([-a-z0-9]*[a-z0-9])?)")


def rules(adapters: Sequence[AdapterSpec]) -> Iterator[Violation]:
    """What is wrong with a list of adapters."""
    if len(adapters) > MAX_ADAPTERS:
        yield Violation(
            "inference.adapters",
            f"Number of Adapters exceeds the maximum limit, maximum of {MAX_ADAPTERS} allowed",
            f"there are {len(adapters)}",
        )
    seen: set[str] = set()
    for index, adapter in enumerate(adapters):
        path = f"inference.adapters[{index}]"
        if adapter.source is None:
            yield Violation(f"{path}.source", "Source of Adapter field must be specified", "name an image")
        else:
            yield from _source(adapter.source, f"{path}.source", seen)
        yield from _strength(adapter.strength, f"{path}.strength")


def _source(source: DataSource, path: str, seen: set[str]) -> Iterator[Violation]:
    name = source.name or ""
    if not name:
        yield Violation(
            f"{path}.name", "Name of Adapter field must be specified", "requests pick an adapter by it"
        )
    elif len(name) > 253 or _NAME.fullmatch(name) is None:
        yield Violation(
            f"{path}.name",
            "Name of Adapter must be a valid DNS subdomain value",
            "use letters, digits and hyphens, and begin and end with a letter or digit",
        )
    elif name in seen:
        yield Violation(
            f"{path}.name", f"Duplicate adapter source name found: {name}", "give it a name of its own"
        )
    seen.add(name)
    if source.urls:
        yield Violation(f"{path}.urls", "URLs are not supported as adapter source", "use an image or a volume")
    if source.image and source.volume_source is not None:
        yield Violation(path, "Exactly one of Volume or Image must be specified for adapter source", "remove one")
    if not source.image and source.volume_source is None and not source.urls:
        yield Violation(f"{path}.image", "Image of Adapter field must be specified", "name the adapter's image")
    if source.image and split_image(source.image) is None:
        yield Violation(
            f"{path}.image",
            "Invalid image format, require full input image URL",
            "write registry/repository:tag",
        )


def _strength(text: str | None, path: str) -> Iterator[Violation]:
    if text is None:
        return
    try:
        value = float(text)
    except ValueError:
        yield Violation(path, f"Invalid strength value for Adapter: {text!r} is not a number", 'write "1.0"')
        return
    if not math.isfinite(value) or not 0 <= value <= 1:
        yield Violation(path, f"Invalid strength value for Adapter: {text} must be between 0 and 1", 'write "1.0"')
