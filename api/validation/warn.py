"""What is admitted and still worth saying: old GPUs, placeholders, models that will not fit.

In: a Workspace as JSON. Out: sentences, in the order of the manifest. The webhook returns them as warnings,
``kaito plan`` prints them, and the controller puts the causes into conditions.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from api import keys
from api.catalog import Preset, find_preset, sku
from api.errors import InvalidSpec
from api.model import Obj
from api.reasons import Cause, Reason
from api.v1alpha1 import AccessMode, PresetSpec, Workspace
from api.validation.images import parse_image
from api.validation.inference import RETIRED, capacity, shortfalls, suggestions
from api.validation.metadata import TRANSFORMERS, VLLM, bypasses
from api.validation.resource import nearest_sku
from api.validation.rules import is_object_name, is_reserved_label, placeholders, shown
from api.validation.switches import DEFAULT, Switches
from api.validation.world import UNSEEN, World

_MOST: Final = 20  # API servers pass 4096 characters on
_SERVICE: Final = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")


def warnings(obj: Obj, *, switches: Switches = DEFAULT, world: World = UNSEEN) -> list[str]:
    """Sentences for the user; none for an object that cannot be read (its violations say why)."""
    try:
        ws = Workspace.parse(obj)
    except InvalidSpec:
        return []
    found = [
        *_metadata(ws),
        *_nodes(ws, switches),
        *(cause.render() for cause in gpu_causes(ws)),
        *_model(ws, switches, world),
        *_data(ws),
        *(cause.render() for cause in placeholder_causes(ws)),
    ]
    return found[:_MOST]


def _metadata(ws: Workspace) -> Iterator[str]:
    if ws.name and _SERVICE.fullmatch(ws.name) is None:
        yield f"metadata.name: many clusters take no Service named {shown(ws.name)}; begin it with a letter"
    asked = ws.metadata.annotations.get(keys.RUNTIME)
    if asked is not None and asked.lower() not in (TRANSFORMERS, VLLM):
        yield f"annotation {keys.RUNTIME}: {shown(asked)} is no runtime, so vllm is used"
    elif asked is not None and asked.lower() == TRANSFORMERS:
        yield f"annotation {keys.RUNTIME}: this operator serves every preset with vLLM; /chat and /v1 are the same"
    balancer = ws.metadata.annotations.get(keys.ENABLE_LOAD_BALANCER)
    if balancer is not None and balancer != "True" and balancer.lower() == "true":
        yield f'annotation {keys.ENABLE_LOAD_BALANCER}: only "True", so written, makes the Service a load balancer'


def _nodes(ws: Workspace, switches: Switches) -> Iterator[str]:
    labels = ws.resource.label_selector.as_labels() or {}
    if all(map(is_reserved_label, labels)):
        found = "selects every node" if not labels else "has only labels that KAITO itself writes"
        yield f"resource.labelSelector {found}; add a label of your own, for example apps: my-model"
    name = ws.resource.instance_type
    if not name:
        return
    known = sku(name)
    if known is None:
        near = nearest_sku(name)
        meant = f"; did you mean {near}?" if near else ""
        yield (
            f"resource.instanceType: {shown(name)} is not in the catalogue, so whether the model fits is not "
            f"checked{meant}"
        )
        return
    if known.instance_type != name:
        yield f"resource.instanceType: {name} is taken as {known.instance_type}, the cloud's spelling"
    if known.real_name:
        yield f"resource.instanceType: the cloud has no {name}; it is called {known.real_name}"
    if known.retired:
        yield (
            f"resource.instanceType: {known.cloud} retires {known.instance_type} on {known.retired}; nodes that "
            "exist by then go on, new ones cannot be had"
        )


def _model(ws: Workspace, switches: Switches, world: World) -> Iterator[str]:
    spec = ws.preset
    if spec is None:
        return
    half = "inference" if ws.inference is not None else "tuning"
    preset = find_preset(spec.name)
    if spec.name.lower() in RETIRED:
        yield f"{half}.preset.name: upstream has retired {spec.name}; microsoft/phi-4 is its successor"
    if preset is None:
        near = suggestions(spec.name)
        meant = f"; did you mean {near[0]}?" if near else ""
        yield (
            f"{half}.preset.name: {spec.name} is not in the catalogue: what it needs is not known before it is "
            f"downloaded{meant}"
        )
        return
    if ws.inference is not None:
        yield from _options(spec, preset)
        yield from _fit(ws, preset, switches, world)


def _options(spec: PresetSpec, preset: Preset) -> Iterator[str]:
    options = spec.preset_options
    secret = options.model_access_secret if options else None
    if preset.gated and not secret:
        yield (
            f"inference.preset: {preset.hf_id} is gated; accept its licence and name a Secret with the key "
            "HF_TOKEN in presetOptions.modelAccessSecret"
        )
    if secret and preset.weights_in_image:
        yield f"inference.preset.presetOptions.modelAccessSecret: {preset.name} is not downloaded; it has no use"
    if spec.access_mode is AccessMode.PRIVATE and preset.era != "v0.3":
        yield f"inference.preset.accessMode: {preset.name} has no image of its own, so it is not used"


def _fit(ws: Workspace, preset: Preset, switches: Switches, world: World) -> Iterator[str]:
    """What would be a violation, where it is advice."""
    if bypasses(ws):
        yield from (str(item) for item in capacity(ws, preset, switches, world))
    elif switches.node_auto_provisioning and not any(capacity(ws, preset, switches, world)):
        yield from (str(item) for item in shortfalls(ws, preset))


def _data(ws: Workspace) -> Iterator[str]:
    if ws.inference is not None:
        for index, adapter in enumerate(ws.inference.adapters):
            image = adapter.source.image if adapter.source else None
            found = parse_image(image) if image else None
            if found is not None and not (found.tag or found.digest):
                yield f"inference.adapters[{index}].source.image: {image} has no tag, so it is whatever latest is"


def gpu_causes(ws: Workspace) -> Iterator[Cause]:
    """What the engine will and will not do on the named instance type, where that is not all of it."""
    known = sku(ws.resource.instance_type or "")
    if known is None or not (known.notes and (known.old or not known.nvidia)):
        return
    yield Cause(
        Reason.OLD_GPU,
        {
            "instance_type": known.instance_type,
            "gpu": known.gpu_model,
            "compute_capability": "unknown" if known.compute_capability is None else known.compute_capability,
            "effects": "; ".join(known.notes),
        },
        next_step="An instance type with compute capability 8.0 or more has no such limits, for example "
        "Standard_NC24ads_A100_v4",
    )


def placeholder_causes(ws: Workspace) -> Iterator[Cause]:
    """The images and secrets that still hold a word from an example, or that no cluster can have."""
    for path, text in _names(ws):
        left = placeholders(text)
        if left:
            yield Cause(Reason.PLACEHOLDER_IN_SPEC, {"field": path, "value": left[0]})
        elif path.endswith(("Secret", "]")) and not is_object_name(text):
            yield Cause(
                Reason.INVALID_SPEC,
                {"problems": f"{path}: no Secret can be named {text!r}"},
                next_step="Use lower-case letters, digits, hyphens and dots",
            )


def _names(ws: Workspace) -> Iterator[tuple[str, str]]:
    """Every image and secret name of the manifest with its path."""
    if ws.inference is not None:
        options = ws.inference.preset.preset_options if ws.inference.preset else None
        if options is not None:
            yield from _pairs("inference.preset.presetOptions", options.image, options.image_pull_secrets)
            if options.model_access_secret:
                yield "inference.preset.presetOptions.modelAccessSecret", options.model_access_secret
        for index, adapter in enumerate(ws.inference.adapters):
            if adapter.source is not None:
                path = f"inference.adapters[{index}].source"
                yield from _pairs(path, adapter.source.image, adapter.source.image_pull_secrets)
    if ws.tuning is not None:
        if ws.tuning.input is not None:
            yield from _pairs("tuning.input", ws.tuning.input.image, ws.tuning.input.image_pull_secrets)
        if ws.tuning.output is not None:
            yield from _pairs("tuning.output", ws.tuning.output.image, ())
            if ws.tuning.output.image_push_secret:
                yield "tuning.output.imagePushSecret", ws.tuning.output.image_push_secret


def _pairs(path: str, image: str | None, secrets: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    if image:
        yield f"{path}.image", image
    for index, name in enumerate(secrets[:_MOST]):
        yield f"{path}.imagePullSecrets[{index}]", name
