"""The base model and its tokenizer, with a fresh adapter on it, ready to be trained.

In: where the model is, the configuration, the device. Out: ``Prepared``. Code that comes with a model is never run
unless that was asked for. Weights are loaded in the number format that the device has (see precision.py), or in 4
or 8 bits; the adapter itself is always float32.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import peft
import torch
import transformers

from api.progress import TuneFailure
from api.v1alpha1.tuning import TuningMethod
from inference_server.settings import SettingsError, check_model
from inference_server.tuning.config import TrainingConfig
from inference_server.tuning.errors import TuneError, explain, one_line
from inference_server.tuning.precision import Device, NumberFormat, choose_format
from inference_server.tuning.settings import TuneSettings, unusable
from inference_server.tuning.targets import NoTargets, choose_targets

_TARGETS_ENV: Final = "DEFAULT_TARGET_MODULES"


@dataclass(slots=True)
class Prepared:
    """What is trained. ``base`` is what the adapter says that it belongs to."""

    model: Any
    tokenizer: Any
    device: Device
    number_format: NumberFormat
    base: str
    revision: str | None
    notes: tuple[str, ...]


def find_device() -> Device:
    """The first GPU, or the CPU."""
    if torch.cuda.is_available():
        major, minor = torch.cuda.get_device_capability(0)
        return Device(torch.cuda.get_device_name(0), capability=(major, minor))
    fast = any(
        bool(getattr(torch.cpu, name, bool)()) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    )
    return Device("CPU", bfloat16=fast)


def model_name(settings: TuneSettings, config: TrainingConfig) -> str:
    """The folder or hub name of the base model: the command line's, the configuration's, or the pod's folder."""
    return settings.model or config.model.get("pretrained_model_name_or_path") or settings.weights_path


def prepare(settings: TuneSettings, config: TrainingConfig) -> Prepared:
    """Loads everything. Raises TuneError."""
    device = find_device()
    asked = config.model.get("dtype") or config.model.get("torch_dtype")
    try:
        number_format, note = choose_format(device, asked)
    except ValueError:
        raise unusable(
            f"ModelConfig.torch_dtype is {asked!r}", "write auto, bfloat16, float16 or float32"
        ) from None
    name = model_name(settings, config)
    common = _common(name, settings, config)
    tokenizer = _tokenizer(name, common, config)
    model = _model(name, common, config, device, number_format)
    notes = (note,) if note else ()
    model = _with_adapter(model, config, number_format)
    base = settings.base_name or name
    return Prepared(model, tokenizer, device, number_format, base, _revision(model, settings, config), notes)


def _common(name: str, settings: TuneSettings, config: TrainingConfig) -> dict[str, Any]:
    path = Path(name)
    try:
        check_model(name)
    except SettingsError as error:
        text, _, hint = str(error).partition(": ")
        raise TuneError(TuneFailure.MODEL_NOT_FOUND, text, hint or "mount it, or name it with --model") from error
    # The templates forbid downloads, for a folder; a hub name on the command line asks for one.
    local = bool(config.model.get("local_files_only", False)) and settings.model is None
    return {
        "revision": settings.revision or config.model.get("revision"),
        "trust_remote_code": settings.trust_remote_code or config.model.get("trust_remote_code") is True,
        "local_files_only": path.is_dir() or local,
        "cache_dir": config.model.get("cache_dir"),
    }


def _tokenizer(name: str, common: Mapping[str, Any], config: TrainingConfig) -> Any:
    try:
        tokenizer: Any = transformers.AutoTokenizer.from_pretrained(name, **common)
    except Exception as error:
        raise _not_loaded(name, error) from error
    template = config.model.get("chat_template")
    if template:
        tokenizer.chat_template = _template(str(template))
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _template(text: str) -> str:
    """A template, or a file that holds one."""
    if "{" in text:
        return text
    try:
        return Path(text).read_text(encoding="utf-8")
    except OSError as error:
        what = f"ModelConfig.chat_template {text[:100]}: {error.strerror}"
        raise unusable(what, "name a mounted file, or write the template itself") from None


def _model(
    name: str, common: Mapping[str, Any], config: TrainingConfig, device: Device, number_format: NumberFormat
) -> Any:
    options: dict[str, Any] = {**common, "dtype": getattr(torch, number_format.value), "low_cpu_mem_usage": True}
    if "attn_implementation" in config.model:
        options["attn_implementation"] = config.model["attn_implementation"]
    if config.method is TuningMethod.QLORA:
        options["quantization_config"] = _bits(config, number_format)
    if device.is_gpu:
        one = torch.cuda.device_count() == 1
        options["device_map"] = {"": 0} if one else config.model.get("device_map", "auto")
    try:
        return transformers.AutoModelForCausalLM.from_pretrained(name, **options)
    except Exception as error:
        raise _not_loaded(name, error) from error


def _bits(config: TrainingConfig, number_format: NumberFormat) -> Any:
    given = dict(config.quantization)
    given["bnb_4bit_compute_dtype"] = getattr(torch, number_format.value)
    return transformers.BitsAndBytesConfig(**given)


def _with_adapter(model: Any, config: TrainingConfig, number_format: NumberFormat) -> Any:
    wanted = config.lora.get("target_modules")
    default = [item.strip() for item in os.environ.get(_TARGETS_ENV, "").split(",") if item.strip()]
    linear = {
        name.rpartition(".")[2] for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)
    }
    try:
        targets = choose_targets(linear, [wanted] if isinstance(wanted, str) else wanted, default)
    except NoTargets as error:
        hint = f"write some of {', '.join(error.names)} as LoraConfig.target_modules"
        raise unusable(f"LoraConfig.target_modules: {error}", hint) from None
    settings = {"task_type": "CAUSAL_LM", "r": 8, "lora_alpha": 8, "lora_dropout": 0.0, **config.lora}
    try:
        lora = peft.LoraConfig(**{**settings, "target_modules": targets})
    except (TypeError, ValueError) as error:
        raise unusable(f"LoraConfig: {one_line(str(error))}", "see peft's LoraConfig for what it takes") from None
    checkpointing = config.arguments.get("gradient_checkpointing", torch.cuda.is_available())
    if config.method is TuningMethod.QLORA:
        model = peft.prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
        for module in model.modules():
            # On CPUs an evaluation would repack the weights for a kernel that cannot be trained through then, and
            # that takes only widths that are multiples of 32.
            if hasattr(module, "support_avx512bf16_for_cpu"):
                module.support_avx512bf16_for_cpu = False
    if checkpointing:
        model.enable_input_require_grads()
    model.config.use_cache = False
    # float32 for the adapter: half-precision weights cannot take the small steps of training.
    return peft.get_peft_model(model, lora, autocast_adapter_dtype=number_format is not NumberFormat.FLOAT32)


def _revision(model: Any, settings: TuneSettings, config: TrainingConfig) -> str | None:
    found = getattr(model.config, "_commit_hash", None)
    return found or settings.revision or config.model.get("revision")


def _not_loaded(name: str, error: Exception) -> TuneError:
    known = explain(error, f"loading {name}")
    if known.reason is not TuneFailure.TRAINING_FAILED:
        return known
    text = one_line(str(error))
    if "trust_remote_code" in text:
        return unusable(
            f"{name} comes with code of its own, which is not run", "give --trust-remote-code if you trust it"
        )
    hint = "check --model: a folder with config.json, tokenizer and weights, or a name on the model hub"
    return TuneError(TuneFailure.MODEL_NOT_FOUND, f"{name} cannot be loaded: {text}", hint)
