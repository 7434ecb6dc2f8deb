"""What a Workspace asks for, checked: the target, or the one reason why nothing is provisioned for it.

In: an observation. Out: a :class:`Target`, or a ``Cause`` that names what to change. Pure. A Workspace that is
refused here costs nobody a GPU node; what exists for it already is left alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from api import catalog, keys
from api.catalog import Preset
from api.catalog.hub import unlisted
from api.errors import UnknownPreset
from api.reasons import Cause, Reason
from api.v1alpha1 import InferenceSpec, TuningSpec, Workspace
from api.validation import World, judge, shortened
from api.validation.inference import is_hub_id
from api.validation.warn import placeholder_causes
from controllers.workspace.kinds import NodeKind, node_kind
from controllers.workspace.layout import Layout
from controllers.workspace.model import Observation
from manager.types import Obj

_SPOT: Obj = {
    "key": keys.SPOT_TAINT_KEY,
    "operator": "Equal",
    "value": keys.SPOT_TAINT_VALUE,
    "effect": "NoSchedule",
}
_PLACEHOLDER = "_HERE"  # the samples mark what a user must fill in with such a word


@dataclass(frozen=True, slots=True)
class Target:
    """What is to run, on how many nodes of which kind.

    Attributes:
        labels: the label selector as a plain map.
        instance_type: None when only nodes that exist are to be used.
        needs_gpu_nodes: a chosen node must show GPUs.
        only: names of the nodes that may be chosen; None: the instance type alone decides.
        layout: nodes, GPUs and parallelism; the workload is built from it.
        tolerations: what its pods must tolerate beyond what every pod of ours does.
        tuning: what is to be tuned; None where something is served. ``inference`` is empty then.
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
    only: frozenset[str] | None = None
    tolerations: tuple[Obj, ...] = ()
    tuning: TuningSpec | None = None

    @property
    def disk(self) -> str:
        """What the preset asks of a node's disk; empty for a template."""
        if self.preset is None:
            return ""
        return self.preset.tuning.disk if self.tuning is not None and self.preset.tuning else self.preset.disk

    @property
    def count(self) -> int:
        """Nodes, and pods."""
        return self.layout.nodes

    @property
    def gpus(self) -> int:
        """GPUs for each pod; 0 for a template."""
        return self.layout.gpus_per_node


def target_of(obs: Observation, now: datetime) -> Target | Cause:
    """The target, or the first thing that stands in its way."""
    workspace = obs.workspace
    if workspace is None:
        return Cause(Reason.INVALID_SPEC, {"problems": obs.problem})
    inference = workspace.inference
    # With a webhook these edits are refused; without one, what runs must not be torn down by them.
    if workspace.tuning is not None and inference is None and obs.workload is not None:
        return Cause(Reason.KIND_TOGGLED, {"field": "inference"})
    if workspace.tuning is None and inference is not None and obs.owns(obs.children.job):
        return Cause(Reason.KIND_TOGGLED, {"field": "tuning"})
    preset = _preset(obs, workspace)
    if isinstance(preset, Cause):
        return preset
    verdict = judge(obs.obj, switches=obs.switches, world=World(nodes=obs.nodes))
    if not verdict.admitted:
        problems = "; ".join(str(item) for item in shortened(verdict.violations))
        return Cause(Reason.INVALID_SPEC, {"problems": problems})
    labels = workspace.resource.label_selector.as_labels()
    if labels is None:  # the validation has refused it; this tells the type checker
        return Cause(Reason.INVALID_SPEC, {"problems": "a plain labelSelector is required"})
    if refused := _not_yet(workspace):
        return refused
    kind = node_kind(obs, workspace, preset, now)
    return kind if isinstance(kind, Cause) else _target(obs, workspace, preset, labels, kind)


def _preset(obs: Observation, workspace: Workspace) -> Preset | Cause | None:
    name = workspace.preset.name if workspace.preset else ""
    try:
        return catalog.preset(name) if name else None
    except UnknownPreset as error:
        if workspace.inference is not None and obs.switches.hub_models and is_hub_id(name):
            return unlisted(name)
        return Cause(Reason.UNKNOWN_PRESET, {"preset": name}, error.next_step)


def _target(
    obs: Observation,
    workspace: Workspace,
    preset: Preset | None,
    labels: dict[str, str],
    kind: NodeKind,
) -> Target:
    inference = workspace.inference or InferenceSpec()
    options = workspace.preset.preset_options if workspace.preset else None
    image = (options.image if options else None) or (preset.image_ref(obs.registry) if preset else "")
    spot = workspace.metadata.annotations.get(keys.CAPACITY_TYPE) == keys.SPOT
    return Target(
        workspace=workspace,
        inference=inference,
        preset=preset,
        template=inference.template,
        labels=labels,
        instance_type=kind.instance_type,
        needs_gpu_nodes=kind.gpu_nodes,
        layout=kind.layout,
        image=image,
        only=kind.only,
        tolerations=(_SPOT,) if spot else (),
        tuning=workspace.tuning,
    )


def _not_yet(workspace: Workspace) -> Cause | None:
    if workspace.tuning is not None:  # one that cannot be pushed costs nobody a node
        return next(placeholder_causes(workspace), None)
    inference = workspace.inference or InferenceSpec()
    for index, adapter in enumerate(inference.adapters):
        image = (adapter.source.image if adapter.source else None) or ""
        if _PLACEHOLDER in image:
            where = f"inference.adapters[{index}].source.image"
            return Cause(Reason.PLACEHOLDER_IN_SPEC, {"field": where, "value": image})
    return None


def selector_labels(obj: dict[str, Any]) -> dict[str, str]:
    """The matchLabels of a Workspace as stored, without validation; for finding whom a node concerns."""
    selector = (obj.get("resource") or {}).get("labelSelector") or {}
    labels = selector.get("matchLabels") or {}
    return {str(key): str(value) for key, value in labels.items()} if isinstance(labels, dict) else {}


def owner_labels(namespace: str, name: str) -> dict[str, str]:
    """The two labels that say which Workspace an object is for."""
    return {keys.WORKSPACE_LABEL: name, keys.WORKSPACE_NAMESPACE_LABEL: namespace}
