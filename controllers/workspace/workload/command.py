"""The words by which the server in the pod is started.

In: a target and what is mounted. Out: the arguments of ``kaito serve``. Pure. Only what differs from the server's
own defaults, and what more than one pod must agree on, is said; the names of flags are a contract with the server.
"""

from __future__ import annotations

from api import keys
from api.catalog import Preset
from controllers.workspace.target import Target
from controllers.workspace.workload.mounts import Mounts

DRAIN_SECONDS = 30  # what running answers get to end in, once the pod is told to go
GRACE_SECONDS = DRAIN_SECONDS + 30  # the engine needs a while to let go of its GPUs
POD_NAME = "POD_NAME"


def arguments(target: Target, preset: Preset, mounts: Mounts) -> list[str]:
    """The arguments behind ``kaito serve``."""
    model = keys.WEIGHTS_PATH if preset.weights_in_image else (preset.hf_id or keys.WEIGHTS_PATH)
    words = [
        f"--preset={preset.name}",
        f"--model={model}",
        f"--served-model-name={preset.name}",
        "--host=$(POD_IP)",
        f"--port={keys.SERVER_PORT}",
        f"--drain-seconds={DRAIN_SECONDS}",
        *_parallel(target),
    ]
    if target.layout.max_model_len is not None:
        words.append(f"--max-model-len={target.layout.max_model_len}")
    if target.inference.config:
        words.append(f"--config-file={keys.CONFIG_PATH}/{keys.INFERENCE_CONFIG_KEY}")
    return [
        *words,
        f"--adapters={keys.ADAPTERS_CONFIG_PATH}/{keys.ADAPTERS_CONFIG_KEY}",
        f"--pull-secrets={keys.PULL_SECRETS_PATH}",
        f"--cache={keys.CACHE_PATH}",
        f"--max-loras={mounts.slots}",
    ]


def _parallel(target: Target) -> list[str]:
    layout, words = target.layout, []
    if layout.tensor_parallel > 1:
        words.append(f"--tensor-parallel-size={layout.tensor_parallel}")
    if layout.pipeline_parallel > 1:
        words.append(f"--pipeline-parallel-size={layout.pipeline_parallel}")
    if layout.distributed:
        workspace = target.workspace
        name, space = workspace.name, workspace.metadata.namespace
        # Without the cluster's domain, which differs: the pod's resolver completes the name.
        leader = f"{name}-0.{name}{keys.HEADLESS_SUFFIX}.{space}.svc"
        words += [
            f"--nodes={layout.nodes}",
            f"--node-rank=$({POD_NAME})",
            f"--leader-address={leader}:{keys.TORCH_PORT}",
        ]
    return words
