"""The rules for a new Workspace. Every rule looks at the raw object and yields what is wrong, all of it at once.

An object whose shape is wrong (a missing required field, a number where text is meant) gets those findings
only: the later rules could not read it.
"""

from __future__ import annotations

from collections.abc import Iterator

from api.catalog import find_preset, sku, suggest
from api.catalog import presets as all_presets
from api.catalog.types import Preset, Sku
from api.errors import PRESET_EXAMPLES, InvalidSpec
from api.model import Obj
from api.quantity import GIB, render_gib
from api.sizing import node_count
from api.v1alpha1 import AccessMode, PresetSpec, Workspace
from api.v1beta1 import API_VERSION as BETA
from api.validation import adapters, tuning
from api.validation.rules import nearest, unknown_fields
from api.validation.violation import Violation

# An instance type that the catalogue does not know may still be one of Azure's: it has many.
UNKNOWN_SKU_PREFIXES = ("Standard_N", "Standard_D")


def validate_create(ws_obj: Obj) -> list[Violation]:
    """What is wrong with a new Workspace, given as plain JSON; nothing is an empty list."""
    found = list(_fields(ws_obj))
    try:
        ws = Workspace.parse(ws_obj)
    except InvalidSpec as error:
        return found + [Violation(path, what) for path, what in error.problems]
    found += _kind(ws)
    found += _halves(ws)
    found += _resource(ws)
    if ws.inference is not None:
        found += _inference(ws)
    if ws.tuning is not None:
        found += tuning.rules(ws)
    return found


def _fields(obj: Obj) -> Iterator[Violation]:
    for path, name, meant in unknown_fields(Workspace, obj):
        hint = f"did you mean {meant}?" if meant else "`kubectl explain workspace --recursive` lists the fields"
        yield Violation(path, f'unknown field "{name}"', hint)


def _kind(ws: Workspace) -> Iterator[Violation]:
    if ws.kind and ws.kind != Workspace.KIND:
        yield Violation("kind", f"this is a {ws.kind}", f"write {Workspace.KIND}")
    if ws.api_version and ws.api_version not in (Workspace.API_VERSION, BETA):
        yield Violation("apiVersion", f"{ws.api_version} is not served", f"write {Workspace.API_VERSION}")


def _halves(ws: Workspace) -> Iterator[Violation]:
    if ws.inference is None and ws.tuning is None:
        yield Violation("", "Either Inference or Tuning must be specified, not neither", "add an inference block")
    if ws.inference is not None and ws.tuning is not None:
        yield Violation("", "Either Inference or Tuning must be specified, but not both", "use two workspaces")


def _resource(ws: Workspace) -> Iterator[Violation]:
    resource = ws.resource
    if resource.count is not None and resource.count < 1:
        yield Violation("resource.count", f"{resource.count} nodes cannot run anything", "write 1 or more")
    if resource.label_selector.as_labels() is None:
        yield Violation(
            "resource.labelSelector",
            "invalid labelSelector: new nodes get these labels, so it must be a plain set of labels",
            "use matchLabels",
        )
    name = resource.instance_type
    if not name:
        return
    known = sku(name)
    if known is None:
        yield from _unknown_sku(name)
    elif known.instance_type != name:
        yield Violation(
            "resource.instanceType",
            f"Unsupported instance type {name}: nodes are matched by its exact spelling",
            f"write {known.instance_type}",
        )


def _unknown_sku(name: str) -> Iterator[Violation]:
    from api.catalog import skus

    if name.startswith(UNKNOWN_SKU_PREFIXES):
        return
    meant = nearest(name, (item.instance_type for item in skus()))
    hint = (
        f"did you mean {meant}?"
        if meant
        else "Azure's GPU types begin with Standard_N, for example Standard_NC24ads_A100_v4"
    )
    yield Violation("resource.instanceType", f"Unsupported instance type {name}", hint)


# ------------------------------------------------------------------------------ inference


def _inference(ws: Workspace) -> Iterator[Violation]:
    inference = ws.inference
    if inference is None:
        return
    if inference.preset is None and inference.template is None:
        yield Violation("inference", "Preset or Template must be specified", "name a preset")
    if inference.preset is not None and inference.template is not None:
        yield Violation("inference", "Preset and Template cannot be set at the same time", "remove one")
    if inference.preset is not None:
        yield from _preset(ws, inference.preset)
    yield from adapters.rules(inference.adapters)


def _preset(ws: Workspace, spec: PresetSpec) -> Iterator[Violation]:
    options = spec.preset_options
    if spec.access_mode is AccessMode.PRIVATE and not (options and options.image):
        yield Violation(
            "inference.preset.presetOptions.image",
            "When AccessMode is private, an image must be provided",
            "build the model's image and name it here",
        )
    preset = find_preset(spec.name)
    if preset is None:
        yield unknown_preset("inference", spec.name)
        return
    if preset.private and spec.access_mode is not AccessMode.PRIVATE:
        yield Violation(
            "inference.preset.accessMode",
            "This preset only supports private AccessMode, AccessMode must be private to continue",
            "its licence does not allow a public image",
        )
    known = sku(ws.resource.instance_type or "")
    if known is not None:
        yield from _capacity(preset, known, node_count(preset, known, ws.resource.count))


def unknown_preset(half: str, name: str) -> Violation:
    """The violation for a preset that does not exist, with the nearest names."""
    near = suggest(name, [item.name for item in all_presets()])
    hint = f"did you mean {' or '.join(near)}?" if near else f"some that exist are {PRESET_EXAMPLES}"
    return Violation(f"{half}.preset.name", f"Unsupported {half} preset name {name!r}", hint)


def _capacity(preset: Preset, known: Sku, nodes: int) -> Iterator[Violation]:
    """Does the model fit on so many nodes of this type?"""
    path, where = "resource.instanceType", f"{nodes} x {known.instance_type}"
    if nodes * known.gpus < preset.gpu_count:
        yield Violation(
            path,
            f"Insufficient number of GPUs: {preset.name} needs {preset.gpu_count}, "
            f"{where} has {nodes * known.gpus}",
            "choose a larger instance type" + (" or more nodes" if preset.distributed else ""),
        )
    if known.per_gpu_memory < preset.per_gpu_memory:
        yield Violation(
            path,
            f"Insufficient per GPU memory: {preset.name} needs {render_gib(preset.per_gpu_memory)} on every GPU, "
            f"{known.instance_type} has {render_gib(known.per_gpu_memory)}",
            "choose an instance type with larger GPUs",
        )
    if nodes * known.total_gpu_memory < preset.total_gpu_memory:
        yield Violation(
            path,
            f"Insufficient total GPU memory: {preset.name} needs {preset.total_gpu_memory / GIB:.0f}Gi, "
            f"{where} has {nodes * known.total_gpu_memory / GIB:.0f}Gi",
            "choose a larger instance type" + (" or more nodes" if preset.distributed else ""),
        )
