"""Node and GPU counts by the rules of the seed's era: the catalogue's figures, no estimate of cache or context.

In: a preset, an instance type, the count that was written. Out: counts. Pure. The admission rules go by these, so
that what upstream of that era admitted is admitted; whether it will run well is what ``size`` says.
"""

import math

from api.catalog.types import Preset, Sku


def gpus_per_node(preset: Preset | None, sku: Sku | None) -> int:
    """GPUs that one pod asks for: all of the node's, since nothing else runs on it; else what the preset needs."""
    if sku is not None:
        return sku.gpus
    return preset.gpu_count if preset is not None else 1


def node_count(preset: Preset | None, sku: Sku | None, written: int | None) -> int:
    """Nodes to have: the written count if there is one, else as few as hold the model; 1 where that is unknown."""
    if written is not None:
        return written
    if preset is None or sku is None or not preset.distributed:
        return 1
    by_gpus = math.ceil(preset.gpu_count / sku.gpus)
    by_memory = math.ceil(preset.total_gpu_memory / sku.total_gpu_memory)
    return max(1, by_gpus, by_memory)
