"""An adapter's files, judged before anything loads them.

In: a folder with PEFT's two files, the base model's layers, the engine's limits. Out: `AdapterFacts`, or an
`InvalidAdapter` that says what is wrong and what to do. Only safetensors are read: the older format can run
code. What PEFT can train and vLLM cannot serve is named here, one reason each, instead of being served wrongly.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inference_server.adapters.base import BaseModel, layer_of, tail
from inference_server.adapters.limits import Limits
from inference_server.adapters.safetensors import NotSafetensors, Tensor, contents

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_PREFIX = "base_model.model."
_HALF = re.compile(r"(?P<module>.+)\.lora_(?:embedding_)?(?P<half>[AB])(?:\.weight)?")
_CONFIG_BYTES = 1 << 20
# PEFT takes any regular expression. One without repetitions cannot be made to run for hours.
_PATTERN = re.compile(r"[A-Za-z0-9_.|^$\\-]{1,500}")
# All others change the base model's weights when PEFT loads the adapter; the saved file alone is half of those.
_SAFE_INITS = ("gaussian", "eva", "orthogonal", "mica", "lora_ga")


class InvalidAdapter(Exception):
    """The adapter cannot be served. The text says why and what to do."""


@dataclass(frozen=True, slots=True)
class AdapterFacts:
    """A sound adapter. ``scales``: what PEFT multiplies each module's product with. ``rank`` is the highest."""

    rank: int
    scales: Mapping[str, float]
    ranks: Mapping[str, int]
    warnings: tuple[str, ...] = ()


def locate(files: Path) -> Path:
    """The folder with the adapter in what was pulled: at the top, in ``data``, or the only place that has one."""
    for folder in (files / "data", files):
        if (folder / CONFIG).is_file():
            return folder
    found = sorted(files.rglob(CONFIG))
    if len(found) == 1:
        return found[0].parent
    if found:
        names = ", ".join(str(path.parent.relative_to(files)) for path in found[:5])
        raise InvalidAdapter(f"it holds {len(found)} adapters ({names}); push one adapter to an image")
    raise InvalidAdapter(f"it holds no {CONFIG}; put PEFT's files under /data in the image, or push them as files")


def examine(folder: Path, base: BaseModel, limits: Limits) -> AdapterFacts:
    """Judge an adapter by itself. Raises InvalidAdapter, or OSError when the folder cannot be read."""
    config = _config(folder)
    refuse_what_the_engine_lacks(config)
    weights = folder / WEIGHTS
    if not weights.is_file():
        older = next(iter(sorted(folder.glob("*.bin"))), None)
        if older:
            raise InvalidAdapter(
                f"it has {older.name}, a format that can run code; save it as safetensors (PEFT's default)"
            )
        raise InvalidAdapter(f"it has a {CONFIG} but no {WEIGHTS}")
    try:
        halves = _halves(contents(weights))
    except NotSafetensors as error:
        raise InvalidAdapter(f"{error}; push it again") from error
    ranks: dict[str, int] = {}
    for module, pair in halves.items():
        if len(pair) != 2:
            raise InvalidAdapter(f"the weights of {module} lack one of lora_A and lora_B; push it again")
        a, b = pair["A"].shape, pair["B"].shape
        if len(a) != 2 or len(b) != 2 or a[0] != b[1] or a[0] == 0:
            raise InvalidAdapter(f"the weights of {module} do not fit each other: {list(a)} and {list(b)}")
        wanted = _of_pattern(config.get("rank_pattern") or {}, module.removeprefix(_PREFIX), config["r"])
        if a[0] != wanted:
            raise InvalidAdapter(f"the weights of {module} have the rank {a[0]}, and {CONFIG} says {wanted:g}")
        _check_module(module, (b[0], a[1]), base)
        ranks[module] = a[0]
    if not ranks:
        raise InvalidAdapter(f"{WEIGHTS} holds no weights")
    rank = max(ranks.values())
    if rank > limits.max_rank:
        raise InvalidAdapter(f"its rank {rank} is above the server's {limits.max_rank}; raise --max-lora-rank")
    scales = {module: _scale(config, module, ranks[module]) for module in ranks}
    return AdapterFacts(rank, scales, ranks, _warnings(config, base))


def _config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG
    if not path.is_file():
        raise InvalidAdapter(f"it has no {CONFIG}; it must be an adapter that PEFT has saved")
    if path.stat().st_size > _CONFIG_BYTES:
        raise InvalidAdapter(f"{CONFIG} is larger than {_CONFIG_BYTES} bytes")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise InvalidAdapter(f"{CONFIG} is not JSON") from error
    if not isinstance(config, dict):
        raise InvalidAdapter(f"{CONFIG} is not a JSON object")
    for name in ("r", "lora_alpha"):
        value = config.get(name)
        if not isinstance(value, int | float) or isinstance(value, bool) or not value > 0:
            raise InvalidAdapter(f"{CONFIG}: {name} is {value!r} and must be a positive number")
    for name in ("rank_pattern", "alpha_pattern"):
        pattern = config.get(name) or {}
        if not isinstance(pattern, dict) or not all(
            isinstance(v, int | float) and v > 0 for v in pattern.values()
        ):
            raise InvalidAdapter(f"{CONFIG}: {name} must map names to positive numbers")
    return config


def refuse_what_the_engine_lacks(config: Mapping[str, Any]) -> None:
    """Raises InvalidAdapter for what PEFT's configuration can ask for and vLLM cannot serve."""
    kind = str(config.get("peft_type", "LORA")).upper()
    if kind != "LORA":
        raise InvalidAdapter(f"it is of the type {kind}; the engine serves LORA only")
    merge = "merge it into the base model and serve that"
    refusals = {
        "use_dora": f"it is a DoRA adapter, which the engine does not serve; train without use_dora, or {merge}",
        "lora_bias": f"it has biases (lora_bias), which the engine does not serve; train without, or {merge}",
        "modules_to_save": f"it replaces modules (modules_to_save), which cannot be scaled or combined; {merge}",
        "trainable_token_indices": f"it has trained tokens, which the engine does not serve; {merge}",
        "target_parameters": f"it is about parameters (target_parameters), not layers; {merge}",
        "layer_replication": f"it repeats layers (layer_replication), which the engine does not; {merge}",
        "alora_invocation_tokens": "it is an activated LoRA, which the engine does not serve",
        "use_qalora": "it is a QALoRA adapter, which the engine does not serve",
        "use_bdlora": "it is a block-diagonal LoRA, which the engine does not serve",
    }
    for name, reason in refusals.items():
        if config.get(name):
            raise InvalidAdapter(reason)
    if config.get("bias", "none") != "none":
        raise InvalidAdapter(f"it has biases (bias={config['bias']!r}), which the engine does not serve; {merge}")
    init = config.get("init_lora_weights", True)
    if isinstance(init, str) and init.lower() not in _SAFE_INITS:
        raise InvalidAdapter(
            f"it was begun with init_lora_weights={init!r}, which changes the base model too; convert it with "
            "PEFT's path_initial_model_for_weight_conversion"
        )


def _halves(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    halves: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        found = _HALF.fullmatch(name)
        if found is None:
            kind = "a DoRA vector" if "magnitude" in name else "no half of a LoRA pair"
            raise InvalidAdapter(f"{WEIGHTS} holds {name[:200]!r}, which is {kind}; the engine does not serve it")
        halves.setdefault(found["module"], {})[found["half"]] = tensor
    return halves


def _check_module(module: str, shape: tuple[int, int], base: BaseModel) -> None:
    if not base.words:
        return
    name = module.removeprefix(_PREFIX)
    last = name.rpartition(".")[2]
    if last not in base.words:
        there = sorted({key.rpartition(".")[2] for key in base.shapes})
        raise InvalidAdapter(
            f"it is about layers named {last!r} and the base model has none; it has {', '.join(there[:12])}"
        )
    number = layer_of(name)
    if number is not None and number >= base.layers:
        raise InvalidAdapter(
            f"it is about layer {number} and the base model has {base.layers}; it was made for another model"
        )
    known = base.shapes.get(tail(name))
    if known and shape not in known and shape[::-1] not in known:
        outputs, inputs = min(known)
        raise InvalidAdapter(
            f"{name} has {shape[1]} inputs and {shape[0]} outputs in the adapter, {inputs} and {outputs} in the "
            "base model; it was made for another model"
        )


def _scale(config: Mapping[str, Any], module: str, rank: int) -> float:
    """PEFT's scaling of one module; patterns match the end of its name, the first that does wins."""
    name = module.removeprefix(_PREFIX)
    alpha = _of_pattern(config.get("alpha_pattern") or {}, name, config["lora_alpha"])
    return alpha / math.sqrt(rank) if config.get("use_rslora") else alpha / rank


def _of_pattern(pattern: Mapping[str, float], name: str, default: float) -> float:
    for key, value in pattern.items():
        if _PATTERN.fullmatch(key) is None:
            raise InvalidAdapter(f"{CONFIG}: {key[:100]!r} is not a name that the server matches layers by")
        if re.match(rf"(.*\.)?({key})$", name):
            return float(value)
    return float(default)


def _warnings(config: Mapping[str, Any], base: BaseModel) -> tuple[str, ...]:
    hint = config.get("base_model_name_or_path")
    if not isinstance(hint, str) or not hint or hint.startswith(("/", ".")) or not base.names:
        return ()
    if hint.rpartition("/")[2].lower() in base.names:
        return ()
    return (f"it says that it was made for {hint}",)
