"""The Deployment of a Workspace, as a plain dict.

In: a target. Out: the manifest that is applied, the same for the same input. Pure. Only what we mean is in
it; everything else stays with the API server's defaults and with other managers. A template is the user's:
it is kept as written, and gets the label, the node affinity and the tolerations that it cannot do without.
"""

from __future__ import annotations

import math
from typing import Any

from api import keys
from api.catalog import Preset
from api.quantity import GIB
from controllers.workspace.model import Observation
from controllers.workspace.owned import owned_metadata
from controllers.workspace.target import Target
from manager.resources import DEPLOYMENTS
from manager.types import Obj

HEALTH_PATH = "/healthz"
_STARTUP_PERIOD = 2  # seconds; a small model is up in seconds and should not wait for the next probe
_SHORTEST, _LONGEST = 30 * 60, 180 * 60  # seconds that a server may take to load its weights
_BASE, _PER_GIB = 15 * 60, 18  # loading 60 GiB from a cold disk has been seen to take 18 minutes

TOLERATIONS: tuple[Obj, ...] = (
    {"key": keys.GPU_RESOURCE, "operator": "Exists", "effect": "NoSchedule"},
    {
        "key": keys.GPU_TAINT_KEY,
        "operator": "Equal",
        "value": keys.GPU_TAINT_VALUE,
        "effect": keys.GPU_TAINT_EFFECT,
    },
)


def deployment(obs: Observation, target: Target) -> Obj:
    """The Deployment that serves the target."""
    pod = _template_pod(target.template) if target.template is not None else _preset_pod(target)
    own = {keys.WORKSPACE_LABEL: obs.name}
    meta = dict(pod.get("metadata") or {})
    meta["labels"] = {**(meta.get("labels") or {}), **own}
    spec = dict(pod.get("spec") or {})
    spec["affinity"] = {**(spec.get("affinity") or {}), "nodeAffinity": _node_affinity(target.labels)}
    spec["tolerations"] = [*(spec.get("tolerations") or []), *TOLERATIONS, *target.tolerations]
    return {
        "apiVersion": DEPLOYMENTS.api_version,
        "kind": DEPLOYMENTS.kind,
        "metadata": owned_metadata(obs),
        "spec": {
            "replicas": target.count,
            "selector": {"matchLabels": own},
            # A GPU node has no room for a second pod: the old one goes before the new one comes.
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}},
            "template": {"metadata": meta, "spec": spec},
        },
    }


def startup_seconds(preset: Preset) -> int:
    """How long the server may take to come up: by the size of the weights where it is known."""
    if preset.weights_bytes is None:
        return int(max(preset.readiness_timeout, 60))
    return int(min(max(_BASE + preset.weights_bytes / GIB * _PER_GIB, _SHORTEST), _LONGEST))


def _template_pod(template: dict[str, Any]) -> Obj:
    return {key: value for key, value in template.items() if key in ("metadata", "spec")}


def _preset_pod(target: Target) -> Obj:
    spec: Obj = {
        "containers": [_container(target)],
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "volumes": [{"name": "dshm", "emptyDir": {"medium": "Memory"}}],
    }
    preset = target.inference.preset
    options = preset.preset_options if preset else None
    if options and options.image_pull_secrets:
        spec["imagePullSecrets"] = [{"name": name} for name in options.image_pull_secrets]
    return {"spec": spec}


def _container(target: Target) -> Obj:
    preset = target.preset
    if preset is None:
        raise ValueError("a target has a preset or a template")
    model = keys.WEIGHTS_PATH if preset.weights_in_image else (preset.hf_id or keys.WEIGHTS_PATH)
    return {
        "name": target.workspace.name,
        "image": target.image,
        "command": ["kaito", "serve"],
        "args": [
            f"--preset={preset.name}",
            f"--model={model}",
            f"--served-model-name={preset.name}",
            "--host=$(POD_IP)",
            f"--port={keys.SERVER_PORT}",
        ],
        "env": [
            {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            *_token(target),
        ],
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
        # Liveness and readiness begin only after the start-up probe has passed.
        "startupProbe": _probe(_STARTUP_PERIOD, math.ceil(startup_seconds(preset) / _STARTUP_PERIOD)),
        "readinessProbe": _probe(5, 2),
        "livenessProbe": _probe(10, 3),
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        "volumeMounts": [{"name": "dshm", "mountPath": "/dev/shm"}],  # noqa: S108 - the engine's workers share it
    }


def _probe(period: int, failures: int) -> Obj:
    return {
        "httpGet": {"path": HEALTH_PATH, "port": keys.SERVER_PORT},
        "periodSeconds": period,
        "timeoutSeconds": 5,
        "failureThreshold": failures,
    }


def _token(target: Target) -> list[Obj]:
    preset = target.inference.preset
    secret = preset.preset_options.model_access_secret if preset and preset.preset_options else None
    if not secret:
        return []
    return [{"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": secret, "key": "HF_TOKEN"}}}]


def _node_affinity(labels: dict[str, str]) -> Obj:
    terms = [{"key": key, "operator": "In", "values": [value]} for key, value in sorted(labels.items())]
    return {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchExpressions": terms}]}}
