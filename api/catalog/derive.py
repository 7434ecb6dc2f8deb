"""What a model's own files say about serving it: the derivation rules, as code.

In: a parsed config.json (or Mistral's params.json) and the names and sizes of the files beside it. Out: the shape
of the network, sizes, time limits, and a whole ``Preset`` for any ``org/model``. Pure: whoever has the files reads
them. The rules are upstream's generator's, so that a derived preset and a catalogued one agree to the byte.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final

from api.catalog.rules import Rules, short_name
from api.catalog.types import Preset

_GIB: Final = 1024**3
_DISK_BESIDES: Final = 80  # GiB for images, system and scratch beside the weights
_LOAD_BASE, _LOAD_PER_GIB = 15 * 60, 18  # seconds; loading 60 GiB from a cold disk was seen to take 18 minutes
_LOAD_LEAST, _LOAD_MOST = 30 * 60, 180 * 60
_ELEMENT: Final = 2  # bytes of one cached number; fp8 caches take half and are not assumed

# Not every layer of these keeps a key and a value for every token (sliding windows, linear attention, state
# spaces, one shared latent), so bytes per token over all layers is more than what the engine takes.
_HYBRID: Final = (
    "DeepseekV4",
    "Gemma2",
    "Gemma3",
    "Gemma4",
    "GptOss",
    "GraniteMoeHybrid",
    "Jamba",
    "Llama4",
    "NemotronH",
    "Qwen3Next",
    "Qwen3_5",
)
_GATED: Final = ("llama", "gemma")


class Attention(StrEnum):
    """How queries share keys and values."""

    MHA = "MHA"  # one pair of key and value heads for each query head
    GQA = "GQA"  # a pair for a group of query heads
    MQA = "MQA"  # one pair for all
    MLA = "MLA"  # one compressed latent, the same on every GPU of a tensor-parallel group


@dataclass(frozen=True, slots=True)
class Shape:
    """The network as far as sizing cares. ``quantization`` is the method's name, None for 16-bit weights."""

    architecture: str
    layers: int
    attention_heads: int
    kv_heads: int
    attention: Attention
    kv_bytes_per_token: int
    context_limit: int | None
    quantization: str | None


@dataclass(frozen=True, slots=True)
class Weights:
    """Which files hold the weights. ``mistral_format`` is Mistral's own layout (consolidated files)."""

    files: tuple[str, ...]
    size: int
    mistral_format: bool


def shape_of(config: Mapping[str, Any]) -> Shape:
    """Read a config.json, params.json, or one with a nested text model.

    Raises:
        ValueError: layers, heads or the size of a head are not there.
    """
    flat = _flat(config)
    layers = _number(flat, "num_hidden_layers", "n_layers", "n_layer", "num_layers")
    heads = _number(flat, "num_attention_heads", "n_heads", "n_head")
    if not layers or not heads:
        raise ValueError("the configuration names no number of layers and attention heads")
    kv_heads = _number(flat, "num_key_value_heads", "n_kv_heads", "num_kv_heads")
    if not kv_heads:
        kv_heads = 1 if flat.get("multi_query") and not flat.get("new_decoder_architecture") else heads
    latent = _number(flat, "kv_lora_rank")
    if latent:
        attention = Attention.MLA
        per_layer = latent + (_number(flat, "qk_rope_head_dim") or 0)
    else:
        head = _number(flat, "head_dim") or _hidden(flat) // heads
        attention = Attention.MHA if kv_heads == heads else Attention.MQA if kv_heads == 1 else Attention.GQA
        per_layer = 2 * kv_heads * head
    return Shape(
        architecture=str((flat.get("architectures") or [""])[0]),
        layers=layers,
        attention_heads=heads,
        kv_heads=kv_heads,
        attention=attention,
        kv_bytes_per_token=layers * _ELEMENT * per_layer,
        context_limit=_number(
            flat, "max_position_embeddings", "max_seq_len", "max_sequence_length", "n_positions", "seq_length"
        ),
        quantization=_quantization(flat),
    )


def weights_of(files: Mapping[str, int]) -> Weights | None:
    """The weight files among ``files`` (name → bytes): consolidated ones, else safetensors, else .bin."""
    plain = {name: size for name, size in files.items() if "/" not in name}
    for mistral_format, kind in ((True, _consolidated), (False, _safetensors), (False, _bin)):
        found = {name: size for name, size in plain.items() if kind(name)}
        if found:
            return Weights(tuple(sorted(found)), sum(found.values()), mistral_format)
    return None


def _consolidated(name: str) -> bool:
    return name.startswith("consolidated") and name.endswith(".safetensors")


def _safetensors(name: str) -> bool:
    return name.endswith(".safetensors")


def _bin(name: str) -> bool:
    return name.endswith(".bin") and not name.startswith(("training_args", "tokenizer"))


def disk_for(weights: int) -> str:
    """Disk to ask for: the weights and what else a node keeps, in whole GiB."""
    return f"{math.floor(weights / _GIB + _DISK_BESIDES)}Gi"


def readiness_timeout(weights: int) -> int:
    """Seconds that loading these weights may take."""
    return int(min(max(_LOAD_BASE + weights / _GIB * _LOAD_PER_GIB, _LOAD_LEAST), _LOAD_MOST))


def kv_is_upper_bound(architecture: str) -> bool:
    """Whether ``kv_bytes_per_token`` counts more than this architecture caches."""
    return architecture.startswith(_HYBRID)


def is_gated(licence: str | None) -> bool:
    """Whether the hub hands these weights only to those who accepted the licence, and so need a token."""
    return (licence or "").lower().startswith(_GATED)


def preset_from(
    hf_id: str, config: Mapping[str, Any], weights: Weights, rules: Rules, licence: str | None = None
) -> Preset:
    """The preset of any model on the hub.

    Raises:
        ValueError: the configuration does not say enough.
    """
    shape = shape_of(config)
    return Preset(
        name=hf_id.lower(),
        family=short_name(hf_id).split("-", 1)[0],
        architecture=shape.architecture,
        image="kaito-base",
        image_tag="0.5.0",
        private=False,
        weights_in_image=False,
        weights_bytes=weights.size,
        disk=disk_for(weights.size),
        gpu_count=1,
        total_gpu_memory=weights.size,
        per_gpu_memory=0,
        readiness_timeout=readiness_timeout(weights.size),
        distributed=True,
        tuning=None,
        context_limit=shape.context_limit,
        kv_bytes_per_token=shape.kv_bytes_per_token,
        world_size=None,
        run_params=MappingProxyType(
            rules.run_params(
                hf_id,
                shape.architecture,
                quantized=shape.quantization is not None,
                mistral_format=weights.mistral_format,
            )
        ),
        license=licence,
        hf_id=hf_id,
        aliases=(short_name(hf_id),),
        era="hub",
        layers=shape.layers,
        attention_heads=shape.attention_heads,
        kv_heads=shape.kv_heads,
        attention=str(shape.attention),
        kv_upper_bound=kv_is_upper_bound(shape.architecture),
        quantization=shape.quantization,
        tool_parser=rules.tool_parser(hf_id, shape.architecture),
        reasoning_parser=rules.reasoning_parser(hf_id, shape.architecture),
        gated=is_gated(licence),
    )


def _flat(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration with the text model of a multimodal one lifted up; the outer architecture stays."""
    flat = dict(config)
    for key in ("text_config", "llm_config", "language_config"):
        inner = config.get(key)
        if isinstance(inner, Mapping):
            flat |= {name: value for name, value in inner.items() if name != "architectures" and value is not None}
    return flat


def _number(flat: Mapping[str, Any], *names: str) -> int | None:
    for name in names:
        value = flat.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            return int(value)
    return None


def _hidden(flat: Mapping[str, Any]) -> int:
    found = _number(flat, "hidden_size", "dim", "n_embd")
    if found is None:
        raise ValueError("the configuration names neither head_dim nor hidden_size")
    return found


def _quantization(flat: Mapping[str, Any]) -> str | None:
    found = flat.get("quantization_config") or flat.get("quantization")
    if not isinstance(found, Mapping):
        return None
    method = found.get("quant_method")
    # compressed-tensors and modelopt are containers: what is inside decides which kernels are needed
    inner = found.get("format") or found.get("quant_algo")
    if method in ("compressed-tensors", "modelopt", None) and inner:
        return str(inner)
    return str(method or found.get("qformat_weight") or "").split("_", 1)[0] or None


def first_known(architectures: Iterable[str], known: frozenset[str]) -> str | None:
    """The first architecture that the engine knows, None where it knows none of them."""
    return next((item for item in architectures if item in known), None)
