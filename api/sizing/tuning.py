"""Whether a model can be tuned on an instance type.

In: a preset, the method, GPUs. Out: a verdict with its figures. Pure. Two thresholds: below the floor the model's
own weights do not fit, whatever the batch; below the preset's figure (upstream's, for its default settings) it may
run with short samples, which is a warning. How many samples fit a batch is an estimate from the network's shape,
for the settings that the tuning program takes on a GPU: 16 bits, gradient checkpointing, a small adapter, the
trainer's loss over the whole vocabulary. Tuning never spans nodes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from typing import Final

from api.catalog.types import Preset, Sku
from api.quantity import GIB
from api.sizing.choose import Wish, cost, unusable
from api.sizing.facts import Assumptions, GpuFacts
from api.sizing.prices import Price, PriceBook

# Weights while training, over 16-bit weights: qlora keeps 4 bits and scales for each (bitsandbytes nf4, double
# quantisation: about 4.1 bits), and its norms and embeddings in 16 bits.
_IN_MEMORY: Final = {"lora": 1.0, "qlora": 0.35}

SAMPLE_TOKENS: Final = 2048  # of one sample; the tuning program cuts longer ones unless max_length says otherwise
# Bytes of one token while training. Between layers, 16 bits for each of the hidden size are kept; inside the one
# layer that is computed anew, queries to feed-forward and their gradients come to some 22 times the hidden size,
# twice. Of the logits there are a 16-bit copy, a 32-bit copy for the loss, and its gradient.
_BETWEEN_LAYERS: Final = 2
_INSIDE_LAYER: Final = 88
_LOGITS: Final = 12
# Rows of the logits, of the models' config.json; the catalogue does not have them. The first part of a name that
# fits.
_VOCABULARIES: Final = {
    "phi-4-mini": 200_064,
    "phi-4": 100_352,
    "phi-3": 32_064,
    "phi-2": 51_200,
    "falcon": 65_024,
    "mistral-7b": 32_768,
    "qwen2.5": 152_064,
}
_LARGEST_VOCABULARY: Final = 262_144
_ADAPTER_SHARE: Final = 0.01  # of the weights: an adapter of rank 8 in 32 bits, its gradient and its two moments


@dataclass(frozen=True, slots=True)
class TuningFit:
    """The verdict. ``floor``, ``recommended`` and ``per_sample`` are bytes on one GPU.

    Attributes:
        batch: per_device_train_batch_size that fits with samples of ``SAMPLE_TOKENS``, by estimate; 0: not even
        one,
            None: the network's shape is not known.
    """

    possible: bool
    comfortable: bool
    floor: int
    recommended: int
    why: str
    per_sample: int | None = None
    batch: int | None = None


@dataclass(frozen=True, slots=True)
class TuningOption:
    """An instance type on which a model can be tuned. ``per_hour`` None: the price is not known."""

    sku: Sku
    fit: TuningFit
    price: Price | None
    per_hour: float | None


def choose_for_tuning(
    preset: Preset, method: str, skus: Iterable[Sku], prices: PriceBook, wish: Wish, today: date
) -> tuple[TuningOption, ...]:
    """The types to tune on: those with what upstream asks for first, then by price, then by memory."""
    found: list[TuningOption] = []
    for sku in skus:
        if sku.cloud != wish.cloud or unusable(sku, None, today, old_gpus=wish.old_gpus):
            continue
        fit = tuning_fit(preset, method, GpuFacts.of(sku))
        if fit is not None and fit.possible:
            price = prices.find(sku.instance_type, wish.region)
            found.append(TuningOption(sku, fit, price, cost(1, price, spot=wish.spot)))
    return tuple(sorted(found, key=_rank))


def _rank(item: TuningOption) -> tuple[bool, bool, float, int, str]:
    sku, money = item.sku, item.per_hour
    return not item.fit.comfortable, money is None, money or 0.0, sku.total_gpu_memory, sku.instance_type


def tuning_fit(preset: Preset, method: str, gpu: GpuFacts, assumed: Assumptions | None = None) -> TuningFit | None:
    """The verdict for tuning ``preset`` by ``method`` on one such node; None where the preset is not tunable."""
    tuning = preset.tuning
    if tuning is None or preset.weights_bytes is None:
        return None
    rules = assumed or Assumptions()
    factor = _IN_MEMORY.get(method.lower(), 1.0)
    share = preset.weights_bytes * factor * rules.weight_factor / gpu.count
    floor = int(share) + rules.overhead
    recommended = max(tuning.per_gpu_memory, -(-tuning.total_gpu_memory // gpu.count))
    possible = floor <= gpu.memory
    comfortable = possible and recommended <= gpu.memory
    if not possible:
        why = f"{method} of {preset.name} needs {floor / GIB:.1f} GiB on each GPU before any sample is read"
    elif not comfortable:
        why = (
            f"upstream asks for {recommended / GIB:.0f} GiB on each GPU, {gpu.name} has {gpu.memory / GIB:.0f}; "
            f"{method} needs {floor / GIB:.1f} GiB before any sample, so keep samples short and the batch small"
        )
    else:
        why = f"upstream asks for {recommended / GIB:.0f} GiB on each GPU, {gpu.name} has {gpu.memory / GIB:.0f}"
    per_sample = sample_bytes(preset)
    batch = None
    if per_sample is not None:
        left = gpu.memory - floor - int(_ADAPTER_SHARE * preset.weights_bytes)
        batch = max(0, left // per_sample)
    return TuningFit(possible, comfortable, floor, recommended, why, per_sample, batch)


def sample_bytes(preset: Preset, tokens: int = SAMPLE_TOKENS) -> int | None:
    """What one sample adds to a GPU's memory while training, by estimate; None where the shape is not known."""
    layers, heads, cache = preset.layers, preset.attention_heads, preset.kv_bytes_per_token
    if not layers or not heads or not cache or preset.attention == "MLA":
        return None
    head_size = cache / (4 * layers * (preset.kv_heads or heads))  # keys and values, two bytes each
    hidden = heads * head_size
    name = (preset.hf_id or preset.name).lower()
    vocabulary = next((size for part, size in _VOCABULARIES.items() if part in name), _LARGEST_VOCABULARY)
    token = hidden * (_BETWEEN_LAYERS * layers + _INSIDE_LAYER) + _LOGITS * vocabulary
    return int(token * tokens)
