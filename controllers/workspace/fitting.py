"""A model laid over GPUs: from a preset, the GPUs of a node and the written count to a ``Layout``.

In: a preset (None for a template), GPU facts (None or without memory where a node does not say), how many nodes
are fixed. Out: a layout, or the cause why there is none. Pure; the arithmetic is ``api.sizing``'s, which
``kaito plan`` asks as well. Presets of the seed's era keep the GPUs that their images were made for; those of
the newer catalogue get what sizing finds; of a model that no catalogue knows only what was written can be had.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Final

from api.catalog import Preset, suggest
from api.catalog import presets as all_presets
from api.reasons import Cause, Reason
from api.sizing import GpuFacts, ModelFacts, Sizing, size
from api.sizing import Layout as Spread
from api.sizing.memory import splits, tensor_sizes
from controllers.workspace.layout import Layout

_ERA: Final = "v0.3"


def lay_out(
    preset: Preset | None,
    gpu: GpuFacts | None,
    nodes: int | None,
    *,
    context: int | None = None,
    insist: bool = False,
    strict: bool = False,
) -> Layout | Cause:
    """How the model runs on nodes with these GPUs.

    Args:
        nodes: exactly so many; None: as many as it takes.
        context: tokens that one request must be able to have; None: sizing's usual figure.
        insist: take the nearest layout where none is known to fit.
        strict: refuse what is not known to fit also for presets whose layout does not depend on it.
    """
    if preset is None:
        return Layout(nodes or 1, 0, reason="the template says itself what its pods ask for")
    if preset.weights_bytes is None:
        return _unknown_model(preset, gpu, nodes)
    model = ModelFacts.of(preset)
    if preset.world_size is not None and preset.distributed:
        return _fixed_world(preset, model, gpu, nodes, strict=strict)
    if preset.era == _ERA:
        return _fixed_gpus(preset, model, gpu, nodes, strict=strict)
    if gpu is None or not gpu.memory:
        return _blind(model, gpu, nodes)
    found = size(model, gpu, context=context, nodes=nodes, copies=False)
    if found.fits or insist:
        return _of(found, gpu.count)
    return Cause(Reason.MODEL_DOES_NOT_FIT, {"preset": preset.name, "why": found.why})


def _of(found: Sizing, gpus: int) -> Layout:
    spread, model = found.layout, found.model
    return Layout(
        nodes=spread.nodes,
        gpus_per_node=gpus,
        tensor_parallel=spread.tensor,
        pipeline_parallel=spread.pipeline,
        max_model_len=_longest(model, found.max_model_len if found.fits else 0),
        distributed=model.distributed and spread.nodes > 1,
        reason=found.why,
    )


def _longest(model: ModelFacts, tokens: int) -> int | None:
    """What to tell the engine: nothing where the model's own limit decides, or where we know less than it does."""
    if tokens <= 0 or tokens >= model.context_limit or model.kv_upper_bound:
        return None
    return tokens


def _fixed_gpus(
    preset: Preset, model: ModelFacts, gpu: GpuFacts | None, nodes: int | None, *, strict: bool
) -> Layout | Cause:
    """As many GPUs for each pod as the preset's figures say; further nodes are replicas."""
    count, gpus = nodes or 1, preset.gpu_count
    if gpu is not None and gpu.count < gpus:
        return _too_few(preset, gpu, gpus)
    if gpu is None or not gpu.memory:
        return replace(_blind(model, replace(_NO_FACTS, count=gpus), count), distributed=False)
    found = size(model, replace(gpu, count=gpus), nodes=count, copies=False)
    if strict and not found.fits:
        return Cause(Reason.MODEL_DOES_NOT_FIT, {"preset": preset.name, "why": found.why})
    return _of(found, gpus)


def _fixed_world(
    preset: Preset, model: ModelFacts, gpu: GpuFacts | None, nodes: int | None, *, strict: bool
) -> Layout | Cause:
    """The world of the original server, dealt evenly to the nodes."""
    world = preset.world_size or 1
    count = nodes or _era_nodes(preset, gpu)
    gpus = math.ceil(world / count)
    if gpu is not None and gpu.count < gpus:
        return _too_few(preset, gpu, gpus)
    tensor = tensor_sizes(model, gpus)[0]
    spread = Spread(count, tensor, count * gpus // tensor)
    why = f"{preset.name} runs on {world} GPUs, {gpus} on each of {count} nodes"
    if gpu is None or not gpu.memory:
        return Layout(count, gpus, tensor, spread.pipeline, None, count > 1, why)
    found = size(model, replace(gpu, count=gpus), fixed=spread)
    if strict and not found.fits:
        return Cause(Reason.MODEL_DOES_NOT_FIT, {"preset": preset.name, "why": found.why})
    return replace(_of(found, gpus), reason=why)


def _era_nodes(preset: Preset, gpu: GpuFacts | None) -> int:
    if gpu is None:
        return 1
    nodes = math.ceil(preset.gpu_count / gpu.count)
    if gpu.memory:
        nodes = max(nodes, math.ceil(preset.total_gpu_memory / (gpu.count * gpu.memory)))
    return nodes


def _too_few(preset: Preset, gpu: GpuFacts, gpus: int) -> Cause:
    why = f"it needs {gpus} GPUs in a node, and {gpu.name} has {gpu.count}"
    return Cause(Reason.MODEL_DOES_NOT_FIT, {"preset": preset.name, "why": why})


def _blind(model: ModelFacts, gpu: GpuFacts | None, nodes: int | None) -> Layout:
    """Without knowing the GPUs' memory: what was written, spread as widely as the heads allow."""
    count, gpus = nodes or 1, gpu.count if gpu is not None else 1
    together = model.distributed and count > 1
    tensor = next(number for number in range(gpus, 0, -1) if gpus % number == 0 and splits(model, number))
    stages = gpus // tensor * (count if together else 1)
    why = "how much memory the GPUs have is not known, so whether the model fits is not either"
    return Layout(count, gpus, tensor, stages, None, together, why)


def _unknown_model(preset: Preset, gpu: GpuFacts | None, nodes: int | None) -> Layout | Cause:
    if nodes is None or gpu is None:
        near = suggest(preset.name, [item.name for item in all_presets()])
        step = f"Did you mean {near[0]}?" if near else ""
        return Cause(Reason.MODEL_UNKNOWN, {"preset": preset.hf_id or preset.name}, step)
    why = "the catalogue does not know the model: what was written is taken, and each layer is spread over a node"
    return Layout(nodes, gpu.count, gpu.count, nodes, None, nodes > 1, why)


_NO_FACTS: Final = GpuFacts("", 1, 0)
