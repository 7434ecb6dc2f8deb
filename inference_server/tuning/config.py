"""training_config.yaml, read and checked before anything is downloaded.

In: the file (or the method's template). Out: ``TrainingConfig``: six sections as plain mappings, the dataset's as
a dataclass. The admission webhook's rules are reused word for word; what it cannot know, the names that the
libraries take in each section, is checked here against the libraries themselves (``check_names``, once they are
imported). Names of older releases are translated or dropped, each with a note: a file that once worked goes on
working.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

from api.training_templates import training_template
from api.v1alpha1.tuning import TuningMethod
from api.validation.rules import nearest
from api.validation.training_config import problems
from inference_server.tuning.errors import TuneError
from inference_server.tuning.settings import unusable

_MODEL_NAMES: Final = (
    "pretrained_model_name_or_path",
    "revision",
    "torch_dtype",
    "dtype",
    "local_files_only",
    "device_map",
    "chat_template",
    "trust_remote_code",
    "attn_implementation",
    "cache_dir",
)
# What our own loop takes beside the trainer's arguments; the names are TRL's, which upstream's users know.
_OWN_ARGUMENTS: Final = ("max_length", "completion_only_loss", "assistant_only_loss")
_RENAMED: Final = {
    "evaluation_strategy": "eval_strategy",
    "max_seq_length": "max_length",
    "warmup_ratio": "warmup_steps",  # a fraction below 1 means the same there
    "no_cuda": "use_cpu",
}
_DROPPED: Final = ("overwrite_output_dir", "save_safetensors", "logging_dir", "packing", "dataset_text_field")
_COLLATOR_NAMES: Final = ("mlm", "mlm_probability", "pad_to_multiple_of", "return_tensors", "tokenizer")
_LONGEST: Final = 256 * 1024


@dataclass(frozen=True, slots=True)
class DatasetConfig:
    """Which file and which columns; None: found out."""

    dataset_path: str | None = None
    dataset_extension: str | None = None
    shuffle_dataset: bool = True
    shuffle_seed: int = 42
    context_column: str | None = None
    response_column: str | None = None
    messages_column: str | None = None
    train_test_split: float = 0.8  # as upstream, where the file does not say; the templates say 1
    use_chat_template: bool = True  # for prompt and completion, where the model has a template


@dataclass(frozen=True, slots=True)
class TrainingConfig:
    """The six sections. ``notes`` are sentences about what was translated or will not be used."""

    method: TuningMethod
    model: Mapping[str, Any] = field(default_factory=dict)
    quantization: Mapping[str, Any] = field(default_factory=dict)
    lora: Mapping[str, Any] = field(default_factory=dict)
    arguments: Mapping[str, Any] = field(default_factory=dict)
    collator: Mapping[str, Any] = field(default_factory=dict)
    dataset: DatasetConfig = field(default_factory=DatasetConfig)
    notes: tuple[str, ...] = ()


def read_config(path: Path | None, method: TuningMethod | None, *, any_output: bool = False) -> TrainingConfig:
    """The configuration of a file, or of the method's template without one.

    ``method`` None is taken from the file's bits. ``any_output`` lets output_dir be anywhere, for runs outside a
    cluster. Raises TuneError with every problem that was found.
    """
    if path is None:
        return parse_config(training_template(method or TuningMethod.LORA), method)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise unusable(f"{path} cannot be read: {_short(error)}", "name a training_config.yaml with -f") from None
    try:
        return parse_config(text, method, any_output=any_output)
    except TuneError as error:
        raise unusable(f"{path}: {error.message}", error.next_step) from None


def parse_config(text: str, method: TuningMethod | None, *, any_output: bool = False) -> TrainingConfig:
    """The configuration in a text. Raises TuneError."""
    root = _document(text)
    sections = root.get("training_config")
    config: dict[str, Any] = dict(sections) if isinstance(sections, dict) else {}
    chosen = method or _method_of(config)
    checked = root if sections is None or not isinstance(sections, dict) else {"training_config": config}
    if any_output and isinstance(config.get("TrainingArguments"), dict):
        config["TrainingArguments"] = {k: v for k, v in config["TrainingArguments"].items() if k != "output_dir"}
    found = list(problems(checked, chosen))
    if found:
        raise unusable("; ".join(what for what, _ in found), "; ".join(dict.fromkeys(hint for _, hint in found)))
    arguments, notes = _translated(config.get("TrainingArguments") or {})
    _known("ModelConfig", config.get("ModelConfig") or {}, _MODEL_NAMES)
    _known("DataCollator", config.get("DataCollator") or {}, _COLLATOR_NAMES)
    return TrainingConfig(
        method=chosen,
        model=config.get("ModelConfig") or {},
        quantization=config.get("QuantizationConfig") or {},
        lora=config.get("LoraConfig") or {},
        arguments=arguments,
        collator=config.get("DataCollator") or {},
        dataset=_dataset(config.get("DatasetConfig") or {}),
        notes=tuple(notes),
    )


def check_names(
    config: TrainingConfig, *, arguments: Iterable[str], lora: Iterable[str], quantization: Iterable[str]
) -> None:
    """Compares the three sections that libraries take with the names that these know. Raises TuneError."""
    _known("TrainingArguments", config.arguments, (*arguments, *_OWN_ARGUMENTS))
    _known("LoraConfig", config.lora, tuple(lora))
    _known("QuantizationConfig", config.quantization, tuple(quantization))


def _document(text: str) -> dict[str, Any]:
    if len(text) > _LONGEST:
        raise unusable(f"the file is longer than {_LONGEST} characters", "is it a training_config.yaml?")
    try:
        root = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark is not None else ""
        raise unusable(
            f"it is not YAML{where}", "mend the line; `kaito tune --show-template` prints one"
        ) from None
    if not isinstance(root, dict):
        raise unusable("it is no mapping", "its root is training_config:")
    others = [str(key)[:60] for key in root if key != "training_config"]
    if others and "training_config" in root:
        raise unusable(
            f"unknown key {others[0]} beside training_config", "everything belongs under training_config"
        )
    return root


def _method_of(config: Mapping[str, Any]) -> TuningMethod:
    bits = config.get("QuantizationConfig")
    few = isinstance(bits, dict) and any(bits.get(key) is True for key in ("load_in_4bit", "load_in_8bit"))
    return TuningMethod.QLORA if few else TuningMethod.LORA


def _translated(given: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    result: dict[str, Any] = {}
    notes: list[str] = []
    for key, value in given.items():
        if key in _DROPPED:
            notes.append(f"TrainingArguments.{key} has no effect here")
        elif key == "group_by_length":
            result["train_sampling_strategy"] = "group_by_length" if value else "random"
        elif key in _RENAMED:
            notes.append(f"TrainingArguments.{key} is now called {_RENAMED[key]}")
            result.setdefault(_RENAMED[key], value)
        else:
            result[key] = _number(value)
    return result, notes


def _number(value: Any) -> Any:
    """YAML 1.1 reads 1e-4 as text: what looks like a number is one."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _known(section: str, given: Mapping[str, Any], known: Iterable[str]) -> None:
    names = tuple(known)
    for key in given:
        if key not in names:
            meant = nearest(str(key), names)
            hint = (
                f"did you mean {meant}?"
                if meant
                else f"remove it; {section} takes {', '.join(sorted(names)[:40])}"
            )
            raise unusable(f"{section} has no setting {str(key)[:60]}", hint)


def _dataset(given: Mapping[str, Any]) -> DatasetConfig:
    fields = {item.name: item for item in dataclasses.fields(DatasetConfig)}
    _known("DatasetConfig", given, fields)
    values = {key: value for key, value in given.items() if value is not None}
    for key, value in values.items():
        _typed(key, value)
    result = DatasetConfig(**values)
    if not 0 < result.train_test_split <= 1:
        raise unusable(
            f"DatasetConfig.train_test_split is {result.train_test_split}",
            "write the share to train with, above 0 and up to 1; the rest is for evaluation",
        )
    return result


def _typed(key: str, value: object) -> None:
    wanted: tuple[type, ...] = (str,)
    if key in ("shuffle_dataset", "use_chat_template"):
        wanted = (bool,)
    elif key == "shuffle_seed":
        wanted = (int,)
    elif key == "train_test_split":
        wanted = (int, float)
    if not isinstance(value, wanted) or (isinstance(value, bool) and bool not in wanted):
        raise unusable(f"DatasetConfig.{key} is {value!r}", f"write a {wanted[-1].__name__}")


def _short(error: Exception) -> str:
    return (error.strerror or str(error)) if isinstance(error, OSError) else "it is not UTF-8 text"
