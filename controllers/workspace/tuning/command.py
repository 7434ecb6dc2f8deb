"""The words by which the tuning program in the pod is started.

In: a target. Out: the arguments of ``kaito tune``. Pure. Only what differs from the program's own defaults is
said; the names of flags are a contract with the program.
"""

from __future__ import annotations

from collections.abc import Iterator

from api import keys
from api.catalog import Preset
from api.v1alpha1 import DataDestination, DataSource, TuningSpec
from controllers.workspace.target import Target

GRACE_SECONDS = 300  # the step at hand, and a checkpoint of a large model on a slow volume


def arguments(target: Target, spec: TuningSpec, preset: Preset, *, private_urls: bool) -> list[str]:
    """The arguments behind ``kaito tune``."""
    model = keys.WEIGHTS_PATH if preset.weights_in_image else (preset.hf_id or keys.WEIGHTS_PATH)
    return [
        "-f",
        f"{keys.CONFIG_PATH}/{keys.TRAINING_CONFIG_KEY}",
        f"--method={spec.method.lower()}",
        f"--model={model}",
        f"--base-name={preset.hf_id or preset.name}",
        *_input(spec.input or DataSource()),
        *(["--allow-private-dataset-urls"] if private_urls and spec.input and spec.input.urls else []),
        f"--output-dir={keys.RESULTS_PATH}",
        f"--work-dir={keys.WORK_PATH}",
        *_output(spec.output or DataDestination()),
        "--host=$(POD_IP)",
        f"--metrics-port={keys.SERVER_PORT}",
        "--termination-log=/dev/termination-log",  # said, so that a node without containers can put it elsewhere
    ]


def _input(source: DataSource) -> Iterator[str]:
    yield from (f"--data-url={url}" for url in source.urls)
    if source.image:
        yield f"--data-image={source.image}"
        yield from (f"--pull-secret={keys.PULL_SECRETS_PATH}/{name}" for name in source.image_pull_secrets)
    if source.volume_source is not None:
        yield f"--data-dir={keys.DATA_PATH}"


def _output(result: DataDestination) -> Iterator[str]:
    if result.image:
        yield f"--output-image={result.image}"
        if result.image_push_secret:
            yield f"--push-secret={keys.PUSH_SECRET_PATH}/{keys.DOCKER_CONFIG_KEY}"
