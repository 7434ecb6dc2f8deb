"""``kaito serve``: the program in the inference pod.

In: flags, and optionally upstream's configuration file. Out: a server on a port, exit code 0 after a signal,
1 when it cannot start. Flags and file are checked before the engine is imported, so that a mistake costs no
half minute.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def serve(
    preset: Annotated[str, typer.Option(help="Preset that the weights belong to; gives the served name.")] = "",
    model: Annotated[
        str, typer.Option(help="Folder with the model's files, or a name on the model hub.")
    ] = "/workspace/weights",
    served_model_name: Annotated[str, typer.Option(help="Name that clients see.  [default: the preset]")] = "",
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "0.0.0.0",  # noqa: S104  the pod's own
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 5000,
    max_model_len: Annotated[
        int, typer.Option(min=0, help="Longest prompt and answer in tokens; 0: what model and memory allow.")
    ] = 0,
    dtype: Annotated[str, typer.Option(help="Number format of the weights.  [default: for the device]")] = "",
    kv_cache_bytes: Annotated[
        int, typer.Option(min=0, help="Memory for running sequences; 0: sized by model and free memory.")
    ] = 0,
    max_num_seqs: Annotated[int, typer.Option(min=0, help="Requests in one batch; 0: for the device.")] = 0,
    config_file: Annotated[
        Path | None,
        typer.Option("--config-file", "--kaito-config-file", help="inference_config.yaml; it wins over flags."),
    ] = None,
    adapters: Annotated[
        Path | None,
        typer.Option(
            help="File (or folder with adapters.json) that lists the adapters; it may change at any time."
        ),
    ] = None,
    max_loras: Annotated[int, typer.Option(min=1, help="Different adapters in one batch.")] = 4,
    max_lora_rank: Annotated[
        int,
        typer.Option(min=1, max=512, help="Highest rank of an adapter, and of the sum of all that are combined."),
    ] = 64,
    cache: Annotated[
        Path | None,
        typer.Option(
            envvar="KAITO_CACHE",
            help="Folder for what is fetched; pods of one node may share it.  [default: ~/.cache/kaito]",
        ),
    ] = None,
    pull_secrets: Annotated[
        Path | None, typer.Option(help="Folder of pull secrets: NAME/.dockerconfigjson for each.")
    ] = None,
    insecure_registry: Annotated[
        list[str] | None,
        typer.Option(help="HOST[:PORT] of a registry without TLS; repeatable. This machine's own need no word."),
    ] = None,
    identity: Annotated[
        str,
        typer.Option(envvar="KAITO_WORKSPACE", help="Whose last good adapters these are, in a cache for several."),
    ] = "",
    max_body_bytes: Annotated[int, typer.Option(min=1, help="Largest request body.")] = 1 << 20,
    drain_seconds: Annotated[
        float, typer.Option(min=0, help="How long running requests may take after SIGTERM.")
    ] = 20.0,
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error.")] = "info",
) -> None:
    """Serve a model: POST /chat, GET /healthz, /metrics. Runs until SIGTERM."""
    import asyncio
    import logging
    import os
    import sys

    from inference_server.engine import VllmEngine, prepare_environment, require_engine
    from inference_server.protocol import EngineError
    from inference_server.server import ListenError
    from inference_server.server import serve as run
    from inference_server.settings import (
        ServeSettings,
        SettingsError,
        check_model,
        default_cache,
        insecure_registries,
        read_config_file,
    )
    from kaito.errors import CliError

    level = log_level.upper()
    if level not in ("DEBUG", "INFO", "WARNING", "ERROR"):
        raise CliError(f"--log-level {log_level}: expected debug, info, warning or error", exit_code=2)
    logging.basicConfig(
        level="WARNING", format="%(asctime)s %(levelname)s %(name)s %(message)s", stream=sys.stderr
    )
    logging.getLogger("kaito").setLevel(level)
    try:
        settings = ServeSettings(
            model=model,
            preset=preset or None,
            served_model_name=served_model_name or None,
            host=host,
            port=port,
            max_model_len=max_model_len or None,
            dtype=dtype or None,
            kv_cache_bytes=kv_cache_bytes or None,
            max_num_seqs=max_num_seqs or None,
            max_body_bytes=max_body_bytes,
            drain_seconds=drain_seconds,
            adapters=adapters,
            max_loras=max_loras,
            max_lora_rank=max_lora_rank,
            cache=cache or default_cache(),
            pull_secrets=pull_secrets,
            insecure_registries=insecure_registries(insecure_registry or ()),
            identity=identity,
            engine_options=read_config_file(config_file) if config_file else {},
        )
        check_model(model)
        require_engine()
        # The engine's own log is a hundred lines of internals; it is worth them only when something is looked for.
        prepare_environment(settings, {"DEBUG": "DEBUG", "INFO": "ERROR"}.get(level, level))
        code = asyncio.run(run(settings, VllmEngine(settings)))
    except (SettingsError, EngineError, ListenError) as error:
        raise CliError(str(error)) from error
    # Not sys.exit: an engine thread that still loads when the signal came would hold the interpreter.
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
