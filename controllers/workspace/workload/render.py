"""The Deployment or StatefulSet of a Workspace, as a plain dict.

In: an observation, a target and what its pods need. Out: the manifest that is applied, the same for the same
input. Pure. Only what we mean is in it; everything else stays with the API server's defaults and with other
managers.
"""

from __future__ import annotations

from typing import Final

from api import keys
from api.reasons import Cause, Reason
from controllers.workspace.model import Observation
from controllers.workspace.owned import owned_metadata
from controllers.workspace.sharing import key_of
from controllers.workspace.target import Target
from controllers.workspace.workload.mounts import Mounts
from controllers.workspace.workload.placement import placed
from controllers.workspace.workload.pod import preset_pod
from controllers.workspace.workload.probes import startup_seconds
from controllers.workspace.workload.replacing import strategy
from controllers.workspace.workload.template import template_pod
from manager.resources import DEPLOYMENTS, STATEFULSETS
from manager.types import Obj, Resource

_LONGEST_GROUP: Final = 52  # a StatefulSet's pods bear its name and a hash in one label of 63 characters


def resource_of(target: Target) -> Resource:
    """What controls the pods.

    A StatefulSet where one model spans several pods, and for the presets of the seed's era that are made for that
    (llama-2-13b and -70b), whose users expect one also where a single node has all their GPUs.
    """
    spans = target.preset is not None and (target.preset.world_size or 1) > 1
    return STATEFULSETS if target.layout.distributed or spans else DEPLOYMENTS


def unusable(target: Target) -> Cause | None:
    """Why no workload can be made for the target, however many nodes there are."""
    name = target.workspace.name
    if resource_of(target) is STATEFULSETS and len(name) > _LONGEST_GROUP:
        problem = f"metadata.name has {len(name)} characters, and the pods of a group cannot have such a long name"
        return Cause(Reason.INVALID_SPEC, {"problems": problem}, f"Choose one of {_LONGEST_GROUP} at most")
    return None


def render(obs: Observation, target: Target, mounts: Mounts, config: str) -> Obj:
    """What serves the target. ``config`` is the hash of the engine's settings: other settings are other pods."""
    template = _template(obs, target, mounts, config)
    own = {keys.WORKSPACE_LABEL: obs.name}
    spec: Obj = {"replicas": target.count, "selector": {"matchLabels": own}, "template": template}
    resource = resource_of(target)
    if resource is STATEFULSETS:
        spec |= {
            "serviceName": obs.name + keys.HEADLESS_SUFFIX,
            "podManagementPolicy": "Parallel",
            # A group is replaced at once, by us: see ``replacing.stale_members``.
            "updateStrategy": {"type": "OnDelete"},
        }
    else:
        spec["strategy"] = strategy(obs.nodes, obs.pods, _taken(obs), template["spec"], target.count)
        if target.preset is not None:
            # A roll-out is late once a server is, not after the ten minutes of the default.
            spec["progressDeadlineSeconds"] = startup_seconds(target.preset) + 600
    return {
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        "metadata": owned_metadata(obs),
        "spec": spec,
    }


def _template(obs: Observation, target: Target, mounts: Mounts, config: str) -> Obj:
    if target.template is not None:
        pod = template_pod(target.template)
    elif target.preset is not None:
        pod = preset_pod(target, target.preset, mounts)
    else:
        raise ValueError("a target has a preset or a template")
    meta = dict(pod.get("metadata") or {})
    meta["labels"] = {**(meta.get("labels") or {}), keys.WORKSPACE_LABEL: obs.name}
    if config:
        meta["annotations"] = {**(meta.get("annotations") or {}), keys.CONFIG_HASH: config}
    spec = placed(dict(pod.get("spec") or {}), obs.namespace, obs.name, target.labels, target.tolerations)
    return {"metadata": meta, "spec": spec}


def _taken(obs: Observation) -> dict[str, int]:
    """GPUs of each node that pods of others have."""
    me = key_of(obs.namespace, obs.name)
    return {
        node: sum(gpus for workspace, gpus in use.gpus.items() if workspace != me) for node, use in obs.use.items()
    }
