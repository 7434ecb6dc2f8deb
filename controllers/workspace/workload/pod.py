"""The pod of a preset: one container with the server.

In: a target and its mounts. Out: metadata and spec of a pod template, without where it may run. Pure. It passes
the ``restricted`` Pod Security profile: it needs no privilege but the GPUs that it asks for.
"""

from __future__ import annotations

from api import keys
from api.catalog import Preset
from controllers.workspace.target import Target
from controllers.workspace.workload.command import GRACE_SECONDS, POD_NAME, arguments
from controllers.workspace.workload.mounts import Mounts
from controllers.workspace.workload.probes import probes
from controllers.workspace.workload.volumes import volumes
from manager.types import Obj


def preset_pod(target: Target, preset: Preset, mounts: Mounts) -> Obj:
    """The pod that serves a preset."""
    pairs = list(volumes(target, preset, mounts))
    spec: Obj = {
        "containers": [_container(target, preset, mounts, [mount for _, mount in pairs])],
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "automountServiceAccountToken": False,  # the server asks the cluster nothing
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        "volumes": [volume for volume, _ in pairs],
    }
    wanted = target.inference.preset
    options = wanted.preset_options if wanted else None
    if options and options.image_pull_secrets:
        spec["imagePullSecrets"] = [{"name": name} for name in options.image_pull_secrets]
    return {"spec": spec}


def _container(target: Target, preset: Preset, mounts: Mounts, places: list[Obj]) -> Obj:
    return {
        "name": target.workspace.name,
        "image": target.image,
        "command": ["kaito", "serve"],
        "args": arguments(target, preset, mounts),
        "env": _environment(target, preset),
        "ports": [
            {"name": "http", "containerPort": keys.SERVER_PORT, "protocol": "TCP"},
            {"name": "torch", "containerPort": keys.TORCH_PORT, "protocol": "TCP"},
        ],
        "resources": {
            "requests": {keys.GPU_RESOURCE: str(target.gpus)},
            "limits": {keys.GPU_RESOURCE: str(target.gpus)},
        },
        # What a server says before it gives up, such as how to install an engine, reaches the Workspace.
        "terminationMessagePolicy": "FallbackToLogsOnError",
        **probes(preset),
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        "volumeMounts": places,
    }


def _environment(target: Target, preset: Preset) -> list[Obj]:
    env: list[Obj] = [_field("POD_IP", "status.podIP")]
    if target.layout.distributed:
        env.append(_field(POD_NAME, "metadata.name"))
    if not preset.weights_in_image:
        env.append({"name": "HF_HOME", "value": keys.WEIGHTS_PATH})  # a restarted container finds its downloads
    wanted = target.inference.preset
    secret = wanted.preset_options.model_access_secret if wanted and wanted.preset_options else None
    if secret:
        env.append({"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": secret, "key": "HF_TOKEN"}}})
    return env


def _field(name: str, path: str) -> Obj:
    return {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}
