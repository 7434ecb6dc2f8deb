"""Whether a model can be tuned on an instance type.

In: a preset, the method, GPUs. Out: a verdict with its figures. Pure. Two thresholds: below the floor the model's
own weights do not fit, whatever the batch; below the preset's figure (upstream's, for its default settings) it may
run with short samples, which is a warning. Tuning never spans nodes.
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


@dataclass(frozen=True, slots=True)
class TuningFit:
    """The verdict. ``floor`` and ``recommended`` are bytes on one GPU."""

    possible: bool
    comfortable: bool
    floor: int
    recommended: int
    why: str


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
            f"{method} needs {floor / GIB:.1f} GiB before any sample, so keep samples short and the batch at 1"
        )
    else:
        why = f"upstream asks for {recommended / GIB:.0f} GiB on each GPU, {gpu.name} has {gpu.memory / GIB:.0f}"
    return TuningFit(possible, comfortable, floor, recommended, why)
