"""``kaito tune``: the program in the tuning pod, and the same on any machine.

In: a training configuration, a model, a dataset. Out: an adapter in a folder or a registry, and an exit code that
says whether to run it again (see inference_server/tuning). Arguments are checked before torch is imported.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

EXAMPLES = """Examples

  kaito tune --method qlora --show-template > training_config.yaml

  kaito tune -f training_config.yaml --model microsoft/Phi-3-mini-4k-instruct --data-dir ./data --output-dir ./out

  kaito tune -f training_config.yaml --model /workspace/weights --data-url https://example.com/train.parquet
  --output-dir /mnt/results --output-image registry.example.com/adapters/phi-3:0.0.1
  --push-secret ~/.docker/config.json

Exit code: 0 done; 1 failed, and repeating it does not help; 2 arguments or configuration are wrong; 75 failed for
a reason that may pass (the network, a registry); 76 stopped by SIGTERM with a checkpoint. After 75 and 76 the same
command goes on where it was.
"""


def tune(
    config: Annotated[
        Path | None,
        typer.Option("--file", "-f", help="training_config.yaml.", show_default="the method's template"),
    ] = None,
    method: Annotated[str, typer.Option(help="lora or qlora.", show_default="what the file's bits say")] = "",
    model: Annotated[
        str,
        typer.Option(help="Folder with the base model, or a name on the model hub.", show_default="the file's"),
    ] = "",
    revision: Annotated[str, typer.Option(help="Revision of a model on the hub.")] = "",
    base_name: Annotated[str, typer.Option(help="What the adapter calls its base.", show_default="--model")] = "",
    data_url: Annotated[
        list[str] | None, typer.Option(help="Address of a file of the dataset; may be repeated.")
    ] = None,
    data_image: Annotated[str, typer.Option(help="Image that holds the dataset under /data.")] = "",
    data_dir: Annotated[Path | None, typer.Option(help="Folder with the dataset.")] = None,
    dataset_sha256: Annotated[
        list[str] | None, typer.Option(help="Checksum of the file of the --data-url at the same position.")
    ] = None,
    max_dataset_bytes: Annotated[int, typer.Option(min=1, help="Largest dataset to download.")] = 50 << 30,
    allow_private_dataset_urls: Annotated[
        bool, typer.Option("--allow-private-dataset-urls", help="Download from private addresses too.")
    ] = False,
    output_dir: Annotated[
        Path | None, typer.Option(help="Where the adapter goes.", show_default="the file's, or /mnt/results")
    ] = None,
    output_image: Annotated[str, typer.Option(help="Image to push the adapter as: registry/repository:tag.")] = "",
    output_base_image: Annotated[
        str,
        typer.Option(
            help="Image to put the adapter on, such as busybox: upstream 0.3 runs cp inside it.",
            show_default="none",
        ),
    ] = "",
    push_secret: Annotated[
        list[Path] | None,
        typer.Option(help="Credentials to push with, in docker's format (.dockerconfigjson); may be repeated."),
    ] = None,
    pull_secret: Annotated[
        list[Path] | None, typer.Option(help="The same for --data-image; may be repeated.")
    ] = None,
    insecure_registry: Annotated[
        list[str] | None, typer.Option(help="Registry that is spoken to without TLS; may be repeated.")
    ] = None,
    checkpoint_dir: Annotated[
        Path | None, typer.Option(help="Where checkpoints go.", show_default="OUTPUT_DIR/checkpoints")
    ] = None,
    work_dir: Annotated[
        Path | None, typer.Option(help="Where downloads and tokens go.", show_default="OUTPUT_DIR/work")
    ] = None,
    checkpoint_seconds: Annotated[
        float, typer.Option(min=0, help="Longest time between two checkpoints, whatever save_strategy says.")
    ] = 300.0,
    resume: Annotated[
        bool, typer.Option("--resume/--no-resume", help="Go on from the last complete checkpoint.")
    ] = True,
    seed: Annotated[int | None, typer.Option(help="Seed, in place of the file's.", show_default="42")] = None,
    max_steps: Annotated[int | None, typer.Option(min=1, help="Stop after so many optimiser steps.")] = None,
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Run code that comes with the model.")
    ] = False,
    host: Annotated[str, typer.Option(help="Address to report progress at.")] = "0.0.0.0",  # noqa: S104  the pod's own
    metrics_port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port of /v1/progress and /metrics; 0: none.")
    ] = 5000,
    termination_log: Annotated[
        Path, typer.Option(help="Gets the last progress as JSON, where the file exists.")
    ] = Path("/dev/termination-log"),
    show_template: Annotated[
        bool, typer.Option("--show-template", help="Print the method's training_config.yaml and exit.")
    ] = False,
    log_level: Annotated[
        str,
        typer.Option(help="debug, info, warning or error.", show_default="warning on a terminal, else info"),
    ] = "",
) -> None:
    """Train a LoRA adapter for a model and push it as an image that inference can load."""
    import asyncio
    import logging
    import os
    import sys

    from api.training_templates import training_template
    from api.v1alpha1.tuning import TuningMethod
    from inference_server.tuning.run import run
    from inference_server.tuning.settings import TuneSettings
    from kaito.console import error, out
    from kaito.errors import CliError
    from kaito.tuning_progress import showing

    level = log_level.upper() or ("WARNING" if sys.stderr.isatty() else "INFO")
    if level not in ("DEBUG", "INFO", "WARNING", "ERROR"):
        raise CliError(f"--log-level {log_level}: expected debug, info, warning or error", exit_code=2)
    if method and method.lower() not in list(TuningMethod):
        raise CliError(f"--method {method}: expected lora or qlora", exit_code=2)
    chosen = TuningMethod(method.lower()) if method else None
    if show_template:
        out(training_template(chosen or TuningMethod.LORA).rstrip())
        return
    logging.basicConfig(
        level="WARNING", format="%(asctime)s %(levelname)s %(name)s %(message)s", stream=sys.stderr
    )
    logging.getLogger("kaito").setLevel(level)
    settings = TuneSettings(
        method=chosen,
        config=config,
        model=model or None,
        revision=revision or None,
        base_name=base_name,
        urls=tuple(data_url or ()),
        data_image=data_image or None,
        data_dir=data_dir,
        output_dir=output_dir,
        output_image=output_image or None,
        output_base_image=output_base_image or None,
        push_secrets=tuple(push_secret or ()),
        pull_secrets=tuple(pull_secret or ()),
        insecure_registries=tuple(insecure_registry or ()),
        checkpoint_dir=checkpoint_dir,
        work_dir=work_dir,
        resume=resume,
        checkpoint_seconds=checkpoint_seconds,
        private_urls=allow_private_dataset_urls,
        sha256=tuple(dataset_sha256 or ()),
        max_dataset_bytes=max_dataset_bytes,
        host=host,
        metrics_port=metrics_port or None,
        trust_remote_code=trust_remote_code,
        seed=seed,
        max_steps=max_steps,
        termination_log=termination_log,
    )
    with showing() as told:
        last, code = asyncio.run(run(settings, told))
    if last.reason is not None:
        error(last.message, last.next_step, f"error: {last.reason}")
    elif last.message:
        out(last.message)
    # Not sys.exit: a thread of torch that still works when the signal came would hold the interpreter.
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
