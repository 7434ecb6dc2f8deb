"""What sizing knows of a model and of GPUs, and what it assumes about the engine.

In: catalogue rows, or the labels that GPU feature discovery puts on a node. Out: frozen facts in bytes. The
assumptions are named constants with their origin: every one of them can be questioned by changing it in one place.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Self

from api.catalog.types import Preset, Sku
from api.quantity import GIB

MIB: Final = 1024**2
DEFAULT_CONTEXT: Final = 4096  # tokens


@dataclass(frozen=True, slots=True)
class Assumptions:
    """How the engine spends GPU memory.

    Measured on running engines (upstream's pull requests 2139 and 2156): beside weights and cache, 1.6 GiB went
    on an A10 with an 8B model, and 4.9 to 5.0 GiB per GPU on H100s with 55 GiB of weights on each. Overhead and
    weight factor together stay above all of these.

    Attributes:
        utilization: the part of the memory that the engine takes at all.
        utilization_a10: the same on an A10, where upstream starts the engine with less.
        weight_factor: weights in memory over weights on disk.
        overhead: bytes for activations, graphs and libraries that every GPU spends.
        overhead_share: what grows with the model, as a part of the weights on one GPU.
        context: tokens that one request must be able to have where nobody says.
        most_nodes: give up beyond this.
    """

    utilization: float = 0.84
    utilization_a10: float = 0.82
    weight_factor: float = 1.02
    overhead: int = int(2.3 * GIB)
    overhead_share: float = 0.05
    context: int = DEFAULT_CONTEXT
    most_nodes: int = 64

    def usable(self, gpu: GpuFacts) -> int:
        """Bytes of one GPU that the engine takes."""
        part = self.utilization_a10 if gpu.model == "NVIDIA A10" else self.utilization
        return int(gpu.memory * part)


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """A model as far as memory goes. ``kv_heads`` is 0 for one compressed latent (MLA), which is not sharded."""

    name: str
    weights: int
    kv_bytes_per_token: int
    context_limit: int
    layers: int
    attention_heads: int
    kv_heads: int
    distributed: bool = True
    architecture: str = ""
    quantization: str | None = None
    kv_upper_bound: bool = False

    @classmethod
    def of(cls, preset: Preset) -> Self:
        """The facts of a preset.

        Raises:
            ValueError: the catalogue does not know enough about it.
        """
        known = (preset.weights_bytes, preset.kv_bytes_per_token, preset.layers, preset.attention_heads)
        weights, kv, layers, heads = known
        if weights is None or kv is None or layers is None or heads is None:
            raise ValueError(f"nothing is known about the size of {preset.name}")
        return cls(
            name=preset.name,
            weights=weights,
            kv_bytes_per_token=kv,
            context_limit=preset.context_limit or DEFAULT_CONTEXT,
            layers=layers,
            attention_heads=heads,
            kv_heads=0 if preset.attention == "MLA" else preset.kv_heads or heads,
            distributed=preset.distributed,
            architecture=preset.architecture,
            quantization=preset.quantization,
            kv_upper_bound=preset.kv_upper_bound,
        )


@dataclass(frozen=True, slots=True)
class GpuFacts:
    """The GPUs of one node. ``memory`` is of one GPU, as a program sees it."""

    name: str
    count: int
    memory: int
    model: str = "NVIDIA"
    compute_capability: float | None = None

    @property
    def nvidia(self) -> bool:
        """Whether the engine image can use them at all."""
        return self.model.startswith("NVIDIA")

    @classmethod
    def of(cls, sku: Sku) -> Self:
        """The GPUs of an instance type."""
        return cls(sku.instance_type, sku.gpus, sku.visible_gpu_memory, sku.gpu_model, sku.compute_capability)

    @classmethod
    def of_labels(cls, name: str, labels: Mapping[str, str]) -> Self | None:
        """The GPUs of a node by the labels of GPU feature discovery; None where it bears none of them."""
        try:
            count, memory = int(labels["nvidia.com/gpu.count"]), int(labels["nvidia.com/gpu.memory"])
        except (KeyError, ValueError):
            return None
        major, minor = labels.get("nvidia.com/gpu.compute.major"), labels.get("nvidia.com/gpu.compute.minor")
        product = labels.get("nvidia.com/gpu.product", "NVIDIA").replace("-", " ")
        try:
            capability = float(f"{major}.{minor}")
        except ValueError:
            capability = None
        return cls(name, count, memory * MIB, product, capability)

    def slice(self, profile: str) -> GpuFacts:
        """One MIG slice of one of these GPUs, as a node with a single small GPU.

        Raises:
            ValueError: the text is not a MIG profile such as 3g.47gb.
        """
        match = re.fullmatch(r"([1-7])g\.(\d+)gb", profile)
        if match is None:
            raise ValueError(f"{profile!r} is not a MIG profile; 3g.47gb is one")
        memory = int(match.group(2)) * GIB
        return GpuFacts(f"{self.name}/{profile}", 1, memory, self.model, self.compute_capability)
