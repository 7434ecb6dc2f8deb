"""What a Workspace asks for, checked: the target, or the one reason why nothing is provisioned for it.

In: an observation. Out: a :class:`Target`, or a ``Cause`` that names what to change. Pure. A Workspace that is
refused here costs nobody a GPU node; what exists for it already is left alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from api import catalog, keys
from api.catalog import Preset
from api.errors import UnknownPreset
from api.reasons import Cause, Reason
from api.v1alpha1 import InferenceSpec, Workspace
from api.validation import World, judge, shortened
from controllers.workspace.layout import Layout
from controllers.workspace.model import Observation
from manager.types import Obj

_PLACEHOLDER = "_HERE"  # the samples mark what a user must fill in with such a word


@dataclass(frozen=True, slots=True)
class Target:
    """What is to run, on how many nodes of which kind.

    Attributes:
        labels: the label selector as a plain map.
        instance_type: None when only nodes that exist are to be used.
        needs_gpu_nodes: a chosen node must show GPUs.
        layout: nodes, GPUs and parallelism; the workload is built from it.
        tolerations: what its pods must tolerate beyond what every pod of ours does.
    """

    workspace: Workspace
    inference: InferenceSpec
    preset: Preset | None
    template: dict[str, Any] | None
    labels: dict[str, str]
    instance_type: str | None
    needs_gpu_nodes: bool
    layout: Layout
    image: str = ""
    tolerations: tuple[Obj, ...] = ()

    @property
    def count(self) -> int:
        """Nodes, and pods."""
        return self.layout.nodes

    @property
    def gpus(self) -> int:
        """GPUs for each pod; 0 for a template."""
        return self.layout.gpus_per_node


def target_of(obs: Observation) -> Target | Cause:
    """The target, or the first thing that stands in its way."""
    workspace = obs.workspace
    if workspace is None:
        return Cause(Reason.INVALID_SPEC, {"problems": obs.problem})
    inference = workspace.inference
    if workspace.tuning is not None and inference is None and obs.workload is not None:
        # With a webhook this edit is refused; without one, what runs must not be torn down by it.
        return Cause(Reason.KIND_TOGGLED, {"field": "inference"})
    name = workspace.preset.name if workspace.preset else ""
    try:
        preset = catalog.preset(name) if name else None
    except UnknownPreset as error:
        return Cause(Reason.UNKNOWN_PRESET, {"preset": name}, error.next_step)
    verdict = judge(obs.obj, switches=obs.switches, world=World(nodes=obs.nodes))
    if not verdict.admitted:
        problems = "; ".join(str(item) for item in shortened(verdict.violations))
        return Cause(Reason.INVALID_SPEC, {"problems": problems})
    if workspace.tuning is not None:
        return Cause(Reason.TUNING_NOT_SUPPORTED)
    labels = workspace.resource.label_selector.as_labels()
    if inference is None or labels is None:  # the validation has refused both; this tells the type checker
        return Cause(Reason.INVALID_SPEC, {"problems": "inference and a plain labelSelector are required"})
    if refused := _not_yet(inference, preset, workspace.resource.count or 1):
        return refused
    return _target(obs, workspace, inference, preset, labels)


def _target(
    obs: Observation, workspace: Workspace, inference: InferenceSpec, preset: Preset | None, labels: dict[str, str]
) -> Target:
    resource = workspace.resource
    known = catalog.sku(resource.instance_type) if resource.instance_type else None
    if known is not None:
        gpu_nodes = known.gpus > 0
    else:
        # No type, or one that the catalogue does not list: a preset needs GPUs, and so does the N family.
        gpu_nodes = preset is not None or "Standard_N" in (resource.instance_type or "")
    options = inference.preset.preset_options if inference.preset else None
    image = (options.image if options else None) or (preset.image_ref(obs.registry) if preset else "")
    return Target(
        workspace=workspace,
        inference=inference,
        preset=preset,
        template=inference.template,
        labels=labels,
        instance_type=known.instance_type if known else resource.instance_type,  # nodes bear the cloud's spelling
        needs_gpu_nodes=gpu_nodes,
        layout=Layout(
            nodes=resource.count or 1,
            gpus_per_node=preset.gpu_count if preset else 0,
            tensor_parallel=preset.gpu_count if preset else 1,
        ),
        image=image,
    )


def _not_yet(inference: InferenceSpec, preset: Preset | None, count: int) -> Cause | None:
    for index, adapter in enumerate(inference.adapters):
        image = (adapter.source.image if adapter.source else None) or ""
        if _PLACEHOLDER in image:
            where = f"inference.adapters[{index}].source.image"
            return Cause(Reason.PLACEHOLDER_IN_SPEC, {"field": where, "value": image})
    if preset is not None and preset.distributed and (count > 1 or (preset.world_size or 1) > 1):
        return Cause(Reason.DISTRIBUTED_NOT_SUPPORTED, {"preset": preset.name})
    return None


def selector_labels(obj: dict[str, Any]) -> dict[str, str]:
    """The matchLabels of a Workspace as stored, without validation; for finding whom a node concerns."""
    selector = (obj.get("resource") or {}).get("labelSelector") or {}
    labels = selector.get("matchLabels") or {}
    return {str(key): str(value) for key, value in labels.items()} if isinstance(labels, dict) else {}


def owner_labels(namespace: str, name: str) -> dict[str, str]:
    """The two labels that say which Workspace an object is for."""
    return {keys.WORKSPACE_LABEL: name, keys.WORKSPACE_NAMESPACE_LABEL: namespace}
