"""The memory of one GPU under one layout: what goes where, to the byte.

In: a model, GPUs, a layout. Out: a budget. Pure. Three things here are what upstream's first estimators got wrong
and crash loops came from: the overhead grows with the weights on a GPU, MLA's cache is repeated on every GPU of a
tensor-parallel group, and so are key-value heads once the group is larger than their number.
"""

from __future__ import annotations

from dataclasses import dataclass

from api.sizing.facts import Assumptions, GpuFacts, ModelFacts


@dataclass(frozen=True, slots=True)
class Layout:
    """How a model is laid over GPUs.

    Attributes:
        nodes: machines.
        tensor: GPUs that share each layer; always within one node.
        pipeline: groups that each hold a run of layers.
        data: whole copies of the model.
    """

    nodes: int
    tensor: int = 1
    pipeline: int = 1
    data: int = 1

    @property
    def gpus(self) -> int:
        """GPUs in use."""
        return self.tensor * self.pipeline * self.data

    def __str__(self) -> str:
        parts = [f"TP={self.tensor}"]
        if self.pipeline > 1:
            parts.append(f"PP={self.pipeline}")
        if self.data > 1:
            parts.append(f"DP={self.data}")
        return " ".join(parts)


@dataclass(frozen=True, slots=True)
class Budget:
    """Bytes of the fullest GPU.

    Attributes:
        memory: all of it, as a program sees it.
        usable: what the engine takes of it.
        weights: the share of the weights.
        overhead: activations, graphs, libraries.
        cache: what is left for the cache; negative where the weights alone do not fit.
        per_token: cache of one token on this GPU.
        tokens: tokens that the cache holds, for each copy of the model.
    """

    memory: int
    usable: int
    weights: int
    overhead: int
    cache: int
    per_token: int
    tokens: int


def budget(model: ModelFacts, gpu: GpuFacts, layout: Layout, assumed: Assumptions) -> Budget:
    """Where the memory of the fullest GPU goes."""
    # The layers of a pipeline are dealt out whole: the stage with most of them decides.
    most = -(-model.layers // layout.pipeline)
    weights = _up(model.weights * assumed.weight_factor * most / (model.layers * layout.tensor))
    overhead = assumed.overhead + _up(assumed.overhead_share * weights)
    usable = assumed.usable(gpu)
    shards = min(layout.tensor, model.kv_heads) if model.kv_heads else 1
    per_token = max(1, _up(model.kv_bytes_per_token * most / (model.layers * shards)))
    cache = usable - weights - overhead
    return Budget(gpu.memory, usable, weights, overhead, cache, per_token, max(0, cache // per_token))


def tensor_sizes(model: ModelFacts, gpus: int) -> tuple[int, ...]:
    """The tensor-parallel groups that a node with so many GPUs can be cut into, largest first.

    The engine deals out whole attention heads, and either whole key-value heads or copies of them.
    """
    return tuple(size for size in range(gpus, 0, -1) if gpus % size == 0 and splits(model, size))


def splits(model: ModelFacts, size: int) -> bool:
    """Whether the model's heads can be dealt to so many GPUs."""
    if model.attention_heads % size:
        return False
    return not model.kv_heads or model.kv_heads % size == 0 or size % model.kv_heads == 0


def _up(value: float) -> int:
    whole = int(value)
    return whole + (value > whole)
