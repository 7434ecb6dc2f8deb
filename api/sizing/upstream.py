"""Upstream's node-count estimator (v0.12), reproduced for comparison; nothing of ours decides by it.

In: the same facts. Out: GPUs and nodes as upstream counts them. Pure. ``hack/`` compares it with ``size`` for the
whole catalogue; docs/sizing.md shows where and why the two differ.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from api.catalog.types import Preset, Sku
from api.quantity import GIB

CONTEXT: Final = 2048
UTILIZATION: Final = 0.84
_WEIGHTS: Final = 1.02
_OVERHEAD: Final = 2.3  # GiB
_OVERHEAD_SHARE: Final = 0.05


class DoesNotFit(ValueError):
    """One GPU has no room for anything beside the overhead, so that no number of them helps."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """What upstream would provision."""

    gpus: int
    nodes: int


def estimate(
    weights: int, kv_bytes_per_token: int, gpus: int, memory: int, context: int | None = None
) -> Estimate:
    """GPUs and nodes for a model on nodes with ``gpus`` GPUs and ``memory`` bytes over all of them.

    Raises:
        DoesNotFit: the overhead alone fills a GPU.
    """
    available = memory / gpus / GIB * UTILIZATION
    reserve = _OVERHEAD + (context or CONTEXT) * kv_bytes_per_token / gpus / GIB
    if available <= reserve:
        raise DoesNotFit(f"a GPU has {available:.2f} GiB to use and {reserve:.2f} GiB go before any weights")
    usable = (available - reserve) / (1 + _OVERHEAD_SHARE)
    needed = math.floor(weights / GIB * _WEIGHTS / usable) + 1
    return Estimate(needed, math.ceil(needed / gpus))


def nodes_for(
    preset: Preset | None, sku: Sku | None, *, count: int | None = None, context: int | None = None
) -> int:
    """Upstream's ``targetNodeCount`` of an inference workspace.

    Raises:
        ValueError: the instance type is unknown, or the preset's size is.
        DoesNotFit: see ``estimate``.
    """
    if preset is None:
        return count or 1
    if sku is None:
        raise ValueError("the instance type is not in the catalogue")
    if preset.weights_bytes is None or preset.kv_bytes_per_token is None:
        return count or 1
    kv = preset.kv_bytes_per_token
    return estimate(preset.weights_bytes, kv, sku.gpus, sku.total_gpu_memory, context).nodes
