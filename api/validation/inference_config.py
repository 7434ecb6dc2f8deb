"""The rules for the ConfigMap of an inference workspace: settings are scalars, the context is possible."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from api import keys
from api.model import Obj
from api.validation.rules import shown
from api.validation.violation import Violation
from api.validation.yamltext import Unreadable, section

_PATH: Final = "inference.config"


def rules(name: str, maps: Mapping[str, Obj | None], context_limit: int | None) -> Iterator[Violation]:
    """What is wrong with the ConfigMap that ``inference.config`` names."""
    key = keys.INFERENCE_CONFIG_KEY
    try:
        config = section(maps, name, key)
    except Unreadable as error:
        yield Violation(_PATH, str(error), f"create it with the key {key}, or remove config")
        return
    if config is None:
        return
    engine = config.get("vllm")
    if engine is None:
        return
    if not isinstance(engine, dict):
        yield Violation(_PATH, f"vllm in {key} of ConfigMap {name} is not a mapping", "write name: value lines")
        return
    for option, value in engine.items():
        if isinstance(value, dict | list):
            what = f"vllm.{option} in {key} of ConfigMap {name} is not a scalar"
            yield Violation(_PATH, what, "write JSON in quotes for an option that takes an object")
    if "max-model-len" in engine:
        yield from _length(name, engine["max-model-len"], context_limit)


def wanted_context(name: str, maps: Mapping[str, Obj | None]) -> int | None:
    """Tokens that the ConfigMap wants one request to be able to have; None where it says nothing readable."""
    try:
        engine = (section(maps, name, keys.INFERENCE_CONFIG_KEY) or {}).get("vllm")
    except Unreadable:
        return None
    if not isinstance(engine, dict):
        return None
    value = engine.get("max-model-len", engine.get("max_model_len"))
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def _length(name: str, value: object, limit: int | None) -> Iterator[Violation]:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        yield Violation(
            _PATH, f"max-model-len in ConfigMap {name} is {shown(str(value))}, not a whole number", "write tokens"
        )
    elif limit is not None and value > limit:
        yield Violation(
            _PATH,
            f"max-model-len {value} exceeds model's maximum supported context window {limit} (ModelTokenLimit)",
            f"write {limit} at most",
        )
