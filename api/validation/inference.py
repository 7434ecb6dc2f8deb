"""The rules for a new inference Workspace: preset or template, and whether the model fits on the nodes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from api.catalog import Preset, Sku, find_preset, sku, suggest
from api.catalog import presets as all_presets
from api.errors import PRESET_EXAMPLES
from api.quantity import GIB, render_gib
from api.sizing import node_count
from api.v1alpha1 import AccessMode, InferenceSpec, PresetSpec, Workspace
from api.validation import adapters, inference_config, nodes
from api.validation.metadata import TRANSFORMERS, VLLM, bypasses, runtime
from api.validation.rules import shown
from api.validation.switches import Switches
from api.validation.violation import Violation
from api.validation.world import World

RETIRED: Final = ("phi-2",)
"""Presets that upstream has retired since; each one's weights are still where they were."""

_HUB_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
_LONGEST_NAME: Final = 200

# What upstream's transformers runtime has parameters for (v0.12).
_TRANSFORMERS_PRESETS: Final = frozenset(
    [
        "phi-4",
        "phi-3-mini-4k-instruct",
        "phi-3-mini-128k-instruct",
        "phi-3-medium-4k-instruct",
        "phi-3-medium-128k-instruct",
        "phi-3.5-mini-instruct",
        "mistral-7b",
        "mistral-7b-instruct",
        "mistral-7b-v0.3",
        "mistral-7b-instruct-v0.3",
        "mistral-large-3-675b-instruct",
        "gemma-3-4b-it",
        "gemma-3-27b-it",
        "qwen2.5-coder-7b-instruct",
        "qwen2.5-coder-32b-instruct",
        "llama-3.1-8b-instruct",
        "llama-3.3-70b-instruct",
        "gpt-oss-20b",
        "gpt-oss-120b",
        "deepseek-r1-distill-llama-8b",
        "deepseek-r1-distill-qwen-14b",
        "deepseek-r1-0528",
        "deepseek-v3-0324",
    ]
)


def rules(ws: Workspace, inference: InferenceSpec, switches: Switches, world: World) -> Iterator[Violation]:
    """What is wrong with the inference half of a Workspace."""
    if inference.preset is None and inference.template is None:
        yield Violation("inference", "Preset or Template must be specified", "name a preset")
    if inference.preset is not None and inference.template is not None:
        yield Violation("inference", "Preset and Template cannot be set at the same time", "remove one")
    preset = find_preset(inference.preset.name) if inference.preset is not None else None
    if inference.preset is not None:
        yield from _preset(ws, inference.preset, preset, switches)
        if not bypasses(ws):
            yield from capacity(ws, preset, switches, world)
    yield from adapters.rules(inference.adapters, switches, vllm=runtime(ws) == VLLM)
    if inference.config and world.config_maps is not None:
        limit = preset.context_limit if preset else None
        yield from inference_config.rules(inference.config, world.config_maps, limit)


def _preset(ws: Workspace, spec: PresetSpec, preset: Preset | None, switches: Switches) -> Iterator[Violation]:
    options = spec.preset_options
    newer = preset is not None and preset.era != "v0.3"  # the newer catalogue has no private images
    if spec.access_mode is AccessMode.PRIVATE and not newer and not (options and options.image):
        yield Violation(
            "inference.preset.presetOptions.image",
            "When AccessMode is private, an image must be provided",
            "build the model's image and name it here",
        )
    if preset is None:
        if not (switches.hub_models and is_hub_id(spec.name)):
            yield unknown_preset("inference", spec.name)
    elif preset.private and spec.access_mode is not AccessMode.PRIVATE:
        yield Violation(
            "inference.preset.accessMode",
            "This preset only supports private AccessMode, AccessMode must be private to continue",
            "its licence does not allow a public image",
        )
    yield from retired(spec.name, "inference", switches)
    if switches.access_secret:
        yield from _secret(spec, preset)
    if runtime(ws) == TRANSFORMERS:
        yield from _transformers(ws, spec.name, preset)


def is_hub_id(name: str) -> bool:
    """Whether a name could be a model of the Hugging Face hub."""
    return _HUB_ID.fullmatch(name) is not None


def retired(name: str, half: str, switches: Switches) -> Iterator[Violation]:
    """The violation for a preset that upstream has retired."""
    if not switches.retired_presets and name.lower() in RETIRED:
        yield Violation(
            f"{half}.preset.name", f"Model {name} is deprecated and no longer supported", "use microsoft/phi-4"
        )


def _secret(spec: PresetSpec, preset: Preset | None) -> Iterator[Violation]:
    path = "inference.preset.presetOptions.modelAccessSecret"
    given = bool(spec.preset_options and spec.preset_options.model_access_secret)
    if preset is not None and preset.gated and not given:
        yield Violation(
            path,
            f"modelAccessSecret is required: {preset.hf_id} is gated",
            "name a Secret whose key HF_TOKEN holds a token of somebody who accepted the licence",
        )
    if preset is not None and preset.weights_in_image and given:
        yield Violation(
            path, f"modelAccessSecret is not for {preset.name}: its image has the weights", "remove it"
        )


def _transformers(ws: Workspace, name: str, preset: Preset | None) -> Iterator[Violation]:
    names = {name.lower(), *((item.lower() for item in (preset.name, *preset.aliases)) if preset else ())}
    if names.isdisjoint(_TRANSFORMERS_PRESETS):
        yield Violation(
            "inference.preset.name",
            f"preset {shown(name)} is not supported by the transformers runtime",
            "remove the annotation kaito.sh/runtime",
        )
    known = sku(ws.resource.instance_type or "")
    if node_count(preset, known, ws.resource.count) > 1:
        yield Violation(
            "resource.count",
            "multi-node inference is not supported by the transformers runtime",
            "use one node, or remove the annotation kaito.sh/runtime",
        )


def unknown_preset(half: str, name: str) -> Violation:
    """The violation for a preset that does not exist, with the nearest names."""
    near = suggestions(name)
    hint = f"did you mean {' or '.join(near)}?" if near else f"some that exist are {PRESET_EXAMPLES}"
    return Violation(f"{half}.preset.name", f"Unsupported {half} preset name {shown(name)}", hint)


def suggestions(name: str) -> tuple[str, ...]:
    """The presets nearest to a name, best first."""
    return suggest(name, [item.name for item in all_presets()]) if len(name) <= _LONGEST_NAME else ()


# ------------------------------------------------------------------------------ does it fit


def capacity(ws: Workspace, preset: Preset | None, switches: Switches, world: World) -> Iterator[Violation]:
    """Whether the model fits on the nodes, where that is a rule and not advice.

    Models of the newer catalogue get as many nodes as they need where vLLM runs on nodes that the operator makes;
    there only the advice of ``warn`` is given.
    """
    if preset is None:
        return
    if not switches.node_auto_provisioning:
        why = nodes.too_small(preset, world.nodes or (), ws.resource.count)
        if why:
            yield Violation("resource.labelSelector", why, "select nodes with more GPU memory")
    elif preset.era == "v0.3" or runtime(ws) == TRANSFORMERS:
        yield from shortfalls(ws, preset)


def shortfalls(ws: Workspace, preset: Preset) -> Iterator[Violation]:
    """What the named instance type lacks for this model, by the catalogue's figures."""
    known = sku(ws.resource.instance_type or "")
    if known is not None:
        yield from _shortfalls(preset, known, node_count(preset, known, ws.resource.count))


def _shortfalls(preset: Preset, known: Sku, count: int) -> Iterator[Violation]:
    path, where = "resource.instanceType", f"{count} x {known.instance_type}"
    more = "choose a larger instance type" + (" or more nodes" if preset.distributed else "")
    if count * known.gpus < preset.gpu_count:
        yield Violation(
            path,
            f"Insufficient number of GPUs: {preset.name} needs {preset.gpu_count}, "
            f"{where} has {count * known.gpus}",
            more,
        )
    if known.per_gpu_memory < preset.per_gpu_memory:
        yield Violation(
            path,
            f"Insufficient per GPU memory: {preset.name} needs {render_gib(preset.per_gpu_memory)} on every GPU, "
            f"{known.instance_type} has {render_gib(known.per_gpu_memory)}",
            "choose an instance type with larger GPUs",
        )
    if count * known.total_gpu_memory < preset.total_gpu_memory:
        yield Violation(
            path,
            f"Insufficient total GPU memory: {preset.name} needs {preset.total_gpu_memory / GIB:.0f}Gi, "
            f"{where} has {count * known.total_gpu_memory / GIB:.0f}Gi",
            more,
        )
