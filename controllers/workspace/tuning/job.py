"""The Job of a tuning Workspace, as a plain dict, and what it is made of.

In: an observation, a target, the text of the training configuration. Out: the manifest. Pure. Its pod's
container is restarted in place (``OnFailure``), because only so it finds its checkpoints; who decides whether a
failure is worth that is ``steps``. A Job's pod template cannot be changed, so the Job bears the hash of what
the user asked for: other wishes are another Job, and another operator, which would render it differently, is
not.
"""

from __future__ import annotations

from typing import Final

from api import keys
from api.catalog import Preset
from api.v1alpha1 import TuningSpec
from controllers.workspace.model import Observation
from controllers.workspace.owned import annotated, digest, owned_metadata, with_fingerprint
from controllers.workspace.target import Target
from controllers.workspace.tuning.command import GRACE_SECONDS, arguments
from controllers.workspace.tuning.volumes import volumes
from controllers.workspace.workload.placement import placed
from manager.resources import JOBS
from manager.types import Obj

RETRIES: Final = 6  # restarts; the kubelet's pauses between them grow to some five minutes in all
_USER: Final = 65532  # of the image; volumes are made writable for this group


def wish(obs: Observation, text: str) -> str:
    """The hash of what the user asked for. ``text``: the training configuration."""
    tuning = dict(obs.obj.get("tuning") or {})
    method = str(tuning.pop("method", "")).lower()
    tuning.pop("config", None)  # what is in it counts, not its name
    return digest([tuning, method, text])[:16]


def job(obs: Observation, target: Target, spec: TuningSpec, preset: Preset, mark: str) -> Obj:
    """The Job that tunes the target. ``mark``: its hash."""
    pod = _pod(obs, target, spec, preset)
    body = {
        "apiVersion": JOBS.api_version,
        "kind": JOBS.kind,
        "metadata": owned_metadata(obs),
        "spec": {
            "backoffLimit": RETRIES,
            "completions": 1,
            "parallelism": 1,
            "template": {
                "metadata": {"labels": {keys.WORKSPACE_LABEL: obs.name}},
                "spec": placed(pod, obs.namespace, obs.name, target.labels, target.tolerations),
            },
        },
    }
    return annotated(with_fingerprint(body), {keys.INPUTS_HASH: mark, keys.RENDERED_BY: obs.children.operator})


def marked(stored: Obj) -> str:
    """The hash that a stored Job bears."""
    return str((stored["metadata"].get("annotations") or {}).get(keys.INPUTS_HASH) or "")


def _pod(obs: Observation, target: Target, spec: TuningSpec, preset: Preset) -> Obj:
    pairs = list(volumes(spec, preset))
    options = spec.preset.preset_options if spec.preset else None
    pod: Obj = {
        "restartPolicy": "OnFailure",
        "containers": [
            {
                "name": obs.name,
                "image": target.image,
                "command": ["kaito", "tune"],
                "args": arguments(target, spec, preset, private_urls=obs.switches.private_urls),
                "env": _environment(preset, options.model_access_secret if options else None),
                "ports": [{"name": "http", "containerPort": keys.SERVER_PORT, "protocol": "TCP"}],
                "resources": {
                    "requests": {keys.GPU_RESOURCE: str(target.gpus)},
                    "limits": {keys.GPU_RESOURCE: str(target.gpus)},
                },
                # What a program says that could not even tell its progress, such as a missing library.
                "terminationMessagePolicy": "FallbackToLogsOnError",
                "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
                "volumeMounts": [mount for _, mount in pairs],
            }
        ],
        "securityContext": {
            "runAsNonRoot": True,
            "fsGroup": _USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "automountServiceAccountToken": False,  # the program asks the cluster nothing
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        "volumes": [volume for volume, _ in pairs],
    }
    if options and options.image_pull_secrets:
        pod["imagePullSecrets"] = [{"name": name} for name in options.image_pull_secrets]
    return pod


def _environment(preset: Preset, secret: str | None) -> list[Obj]:
    env: list[Obj] = [
        {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        # Long and short samples in turn fragment the GPU's memory otherwise.
        {"name": "PYTORCH_CUDA_ALLOC_CONF", "value": "expandable_segments:True"},
    ]
    if not preset.weights_in_image:
        env.append({"name": "HF_HOME", "value": keys.WEIGHTS_PATH})  # a restarted container finds its downloads
    if secret:
        env.append({"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": secret, "key": "HF_TOKEN"}}})
    return env
