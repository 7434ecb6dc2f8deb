"""What the engine cannot do on a GPU, whatever its memory.

In: a model and GPUs. Out: limits, each with whether it stops the model. Pure. Sources: vLLM's table of
quantisation methods and hardware (docs.vllm.ai, features/quantization, 0.15 and 0.32), and for sparse attention
the kernels' own requirement (Hopper or later).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from api.sizing.facts import GpuFacts, ModelFacts

_LEAST: Final = 7.0
_CURRENT: Final = 7.5  # the oldest that published builds hold code for
_BFLOAT16: Final = 8.0
_SPARSE: Final = ("DeepseekV32", "DeepseekV4", "GlmMoeDsa")
_SPARSE_LEAST: Final = 9.0
# Methods by the beginning of their name; what is not here is taken to need 8.0.
_QUANTIZED: Final = {"awq": 7.5, "gptq": 7.5, "fp8": 7.5, "float": 8.0}
_OTHER_QUANTIZED: Final = 8.0


@dataclass(frozen=True, slots=True)
class Limit:
    """One thing that does not work. ``blocks``: the model cannot run there; otherwise it runs with less."""

    blocks: bool
    text: str


def engine_limits(model: ModelFacts | None, gpu: GpuFacts) -> tuple[Limit, ...]:
    """Everything that stands against this model on these GPUs; without a model, what holds for any."""
    return tuple(_limits(model, gpu))


def _limits(model: ModelFacts | None, gpu: GpuFacts) -> Iterator[Limit]:
    if not gpu.nvidia:
        yield Limit(True, f"the engine image is built for NVIDIA GPUs and does not run on {gpu.model}")
        return
    capability = gpu.compute_capability
    if capability is None:
        return
    if capability < _LEAST:
        yield Limit(True, f"compute capability {capability}: the engine needs {_LEAST} at least")
        return
    if capability < _CURRENT:
        yield Limit(
            False,
            f"compute capability {capability}: the published engine builds hold no code for it; the model server "
            "needs an image built for CUDA 12.6",
        )
    if capability < _BFLOAT16:
        yield Limit(
            False, f"compute capability {capability}: float16 instead of bfloat16, no FlashAttention 2, no FP8"
        )
    if model is None:
        return
    least = least_capability(model.quantization)
    if capability < least:
        yield Limit(True, f"weights in {model.quantization} need compute capability {least}, this is {capability}")
    if model.architecture.startswith(_SPARSE) and capability < _SPARSE_LEAST:
        yield Limit(
            True, f"sparse attention of {model.architecture} needs compute capability 9.0, this is {capability}"
        )


def least_capability(quantization: str | None) -> float:
    """The oldest compute capability whose kernels read weights in this form."""
    if quantization is None:
        return _LEAST
    name = quantization.lower()
    return next((least for prefix, least in _QUANTIZED.items() if name.startswith(prefix)), _OTHER_QUANTIZED)
