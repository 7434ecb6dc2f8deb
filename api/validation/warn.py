"""What is admitted and still worth saying: old GPUs, placeholders, models that will not fit.

In: a Workspace as JSON. Out: sentences, in the order of the manifest. The webhook returns them as warnings,
``kaito plan`` prints them, and the controller puts the causes into conditions.
"""

from __future__ import annotations

from collections.abc import Iterator

from api.catalog import sku
from api.errors import InvalidSpec
from api.model import Obj
from api.reasons import Cause, Reason
from api.v1alpha1 import Workspace
from api.validation.rules import is_object_name, placeholders


def warnings(ws_obj: Obj) -> list[str]:
    """Sentences for the user; none for an object that cannot be read (its violations say why)."""
    try:
        ws = Workspace.parse(ws_obj)
    except InvalidSpec:
        return []
    return [cause.render() for cause in (*gpu_causes(ws), *placeholder_causes(ws))]


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
    for index, name in enumerate(secrets):
        yield f"{path}.imagePullSecrets[{index}]", name
