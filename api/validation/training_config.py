"""The rules for the ConfigMap of a tuning workspace: known sections, the method's bits, output under /mnt."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping
from typing import Any, Final

from api import keys
from api.model import Obj
from api.v1alpha1.tuning import TuningMethod
from api.validation.rules import nearest
from api.validation.violation import Violation
from api.validation.yamltext import Unreadable, section

_PATH: Final = "tuning.config"
SECTIONS: Final = (
    "ModelConfig",
    "QuantizationConfig",
    "LoraConfig",
    "TrainingArguments",
    "DataCollator",
    "DatasetConfig",
)


def rules(name: str, maps: Mapping[str, Obj | None], method: TuningMethod | None) -> Iterator[Violation]:
    """What is wrong with the ConfigMap that ``tuning.config`` names."""
    for what, hint in _problems(name, maps, method):
        yield Violation(_PATH, f"Failed to evaluate validateConfigMap: {what}", hint)


def _problems(name: str, maps: Mapping[str, Obj | None], method: TuningMethod | None) -> Iterator[tuple[str, str]]:
    try:
        document = section(maps, name, keys.TRAINING_CONFIG_KEY)
    except Unreadable as error:
        yield str(error), "create it, or remove config: the method has a template of its own"
        return
    if document is not None:
        yield from problems(document, method)


def problems(document: Mapping[str, Any], method: TuningMethod | None) -> Iterator[tuple[str, str]]:
    """What is wrong with a parsed ``training_config.yaml``: ``(what, what to write instead)``."""
    config = document.get("training_config")
    if not isinstance(config, dict):
        yield "training_config is missing or no mapping", "it is the root of the file"
        return
    for key, value in config.items():
        if key not in SECTIONS:
            meant = nearest(str(key), SECTIONS)
            hint = f"did you mean {meant}?" if meant else f"these are: {', '.join(SECTIONS)}"
            yield f"unknown section {str(key)[:60]} in training_config", hint
        elif value is not None and not isinstance(value, dict):
            yield f"section {key} is not a mapping", "write name: value lines"
    yield from _quantization(config.get("QuantizationConfig"), method)
    yield from _output(config.get("TrainingArguments"))


def _quantization(value: object, method: TuningMethod | None) -> Iterator[tuple[str, str]]:
    settings: dict[Any, Any] = value if isinstance(value, dict) else {}
    bits = []
    for key in ("load_in_4bit", "load_in_8bit"):
        flag = settings.get(key, False)
        if not isinstance(flag, bool):
            yield f"QuantizationConfig.{key} is not true or false", "write it without quotes"
            return
        bits.append(flag)
    if all(bits):
        yield "load_in_4bit and load_in_8bit cannot both be true", "choose one"
    elif method is TuningMethod.LORA and any(bits):
        yield "method lora does not load the model in 4 or 8 bits", "write false, or use method qlora"
    elif method is TuningMethod.QLORA and not isinstance(value, dict):
        yield "method qlora needs the section QuantizationConfig", "add it with load_in_4bit: true"
    elif method is TuningMethod.QLORA and not any(bits):
        yield "method qlora needs load_in_4bit or load_in_8bit to be true", "write load_in_4bit: true"


def _output(value: object) -> Iterator[tuple[str, str]]:
    if not isinstance(value, dict) or "output_dir" not in value:
        return
    folder = value["output_dir"]
    if not isinstance(folder, str):
        yield "TrainingArguments.output_dir is no text", "write /mnt/results"
    elif not posixpath.normpath(posixpath.join("/mnt", folder)).startswith("/mnt/"):
        yield "TrainingArguments.output_dir must be a folder below /mnt", "write /mnt/results"
