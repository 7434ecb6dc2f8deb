"""The rules for the adapters of an inference workspace; the same on creation and on update."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from typing import Final

from api.v1alpha1 import AdapterSpec, DataSource
from api.validation.images import parse_image
from api.validation.rules import placeholders, shown
from api.validation.switches import Switches
from api.validation.violation import Violation

MAX_ADAPTERS: Final = 10
_NAME: Final = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9]*[A-Za-z0-9])?")
_NUMBER: Final = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?|[+-]?(nan|inf|infinity)", re.I)
_LONGEST_NUMBER: Final = 64


def rules(adapters: Sequence[AdapterSpec], switches: Switches, *, vllm: bool = True) -> Iterator[Violation]:
    """What is wrong with a list of adapters."""
    if len(adapters) > MAX_ADAPTERS:
        yield Violation(
            "inference.adapters",
            f"Number of Adapters exceeds the maximum limit, maximum of {MAX_ADAPTERS} allowed",
            f"there are {len(adapters)}",
        )
    seen: set[str] = set()
    for index, adapter in enumerate(adapters[: 2 * MAX_ADAPTERS]):
        path = f"inference.adapters[{index}]"
        if adapter.source is None:
            yield Violation(
                f"{path}.source", "Source of Adapter field must be specified", "name an image or a volume"
            )
        else:
            yield from _source(adapter.source, f"{path}.source", seen, switches)
        yield from _strength(adapter.strength, f"{path}.strength")
        if adapter.strength is not None and vllm and not switches.adapter_strength:
            yield Violation(f"{path}.strength", "vLLM does not support adapter strength", "remove it")


def _source(source: DataSource, path: str, seen: set[str], switches: Switches) -> Iterator[Violation]:
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
    volume = source.volume_source is not None
    if volume and not switches.volumes:
        yield Violation(f"{path}.volumeSource", "Volume support is not implemented yet", "use an image")
    if source.image and volume:
        yield Violation(path, "Exactly one of Volume or Image must be specified for adapter source", "remove one")
    if not (source.image or volume or source.urls):
        yield Violation(
            f"{path}.image",
            "Image of Adapter field must be specified: "
            "Either Image or Volume must be specified for adapter source",
            "name the adapter's image",
        )
    if source.image and parse_image(source.image) is None and not placeholders(source.image):
        yield Violation(
            f"{path}.image",
            f"Invalid image format, require full input image URL: {shown(source.image)}",
            "write registry/repository:tag, the repository in lower case",
        )


def _strength(text: str | None, path: str) -> Iterator[Violation]:
    if text is None:
        return
    if len(text) > _LONGEST_NUMBER or _NUMBER.fullmatch(text) is None:
        yield Violation(path, f"Invalid strength value for Adapter: {shown(text)} is not a number", 'write "1.0"')
        return
    value = float(text)
    if not math.isfinite(value) or not 0 <= value <= 1:
        yield Violation(path, f"Invalid strength value for Adapter: {text} must be between 0 and 1", 'write "1.0"')
