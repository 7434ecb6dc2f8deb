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
    ctx: typer.Context,
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
    engine_arg: Annotated[
        list[str] | None,
        typer.Option(
            help="key=value of any option of the engine; repeat it, or write the engine's words after --."
        ),
    ] = None,
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Run Python code that comes with the model.")
    ] = False,
    tensor_parallel_size: Annotated[
        int, typer.Option("--tensor-parallel-size", min=0, help="GPUs that share each layer; 0: one.")
    ] = 0,
    pipeline_parallel_size: Annotated[
        int, typer.Option("--pipeline-parallel-size", min=0, help="Groups of GPUs in a row; 0: one.")
    ] = 0,
    nodes: Annotated[int, typer.Option(min=1, help="Nodes that serve the model together.")] = 1,
    node_rank: Annotated[
        str, typer.Option(help="This node's number from 0, or the pod's name that ends in it.")
    ] = "0",
    leader_address: Annotated[str, typer.Option(help="host:port of node 0, where the nodes meet.")] = "",
    api_key_file: Annotated[
        Path | None,
        typer.Option(help="File of API keys, one per line. Without it: $KAITO_API_KEY, if that is set."),
    ] = None,
    max_queue: Annotated[
        int,
        typer.Option(min=-1, help="Requests that may wait; beyond: 429.  -1: as many as are answered at a time."),
    ] = -1,
    disable_rate_limit: Annotated[
        bool, typer.Option("--disable-rate-limit", "--kaito-disable-rate-limit", help="Never answer 429.")
    ] = False,
    request_timeout: Annotated[
        float, typer.Option(min=0, help="Seconds for one answer; a client can ask for less (X-Request-Timeout).")
    ] = 0.0,
    body_timeout: Annotated[float, typer.Option(min=0, help="Seconds for a body to arrive.")] = 30.0,
    idle_timeout: Annotated[
        float, typer.Option(min=1, help="Seconds for a connection's next request to arrive, headers complete.")
    ] = 75.0,
    stall_timeout: Annotated[
        float, typer.Option(min=0, help="Seconds after which a stream that nobody reads is cut off.")
    ] = 60.0,
    hang_timeout: Annotated[
        float,
        typer.Option(min=0, help="Seconds without a step of a busy engine until it counts as dead; 0: never."),
    ] = 300.0,
    cache: Annotated[
        Path | None,
        typer.Option(
            "--cache",
            "--adapter-cache",
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
    """Serve a model: POST /chat, OpenAI's /v1, GET /healthz, /metrics. Runs until SIGTERM.

    What follows -- goes to the engine as it is, for example:
    kaito serve --model /models/phi -- --gpu-memory-utilization 0.9 --compilation-config.mode 0
    """
    import logging
    import os
    import sys

    from inference_server import options
    from inference_server.adapters.model import Adapters
    from inference_server.adapters.setup import make_manager
    from inference_server.engine import VllmEngine, prepare_environment, require_engine
    from inference_server.loop import run_loop
    from inference_server.oci.errors import FetchError
    from inference_server.protocol import Engine, EngineError
    from inference_server.server import ListenError, OnProgress
    from inference_server.server import serve as run
    from inference_server.settings import (
        ServeSettings,
        SettingsError,
        check_model,
        default_cache,
        insecure_registries,
        parallel,
        read_api_keys,
        read_config_file,
    )
    from inference_server.sources.model import FetchedModel
    from inference_server.sources.setup import fetch_model
    from inference_server.vllm_worker import VllmWorker
    from kaito.errors import CliError
    from kaito.presetargs import preset_options

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
            preset_options=preset_options(preset, model),
            engine_args=dict(map(options.read_assignment, engine_arg or ())) | options.read_words(ctx.args),
            trust_remote_code=trust_remote_code,
            parallel=parallel(tensor_parallel_size, pipeline_parallel_size, nodes, node_rank, leader_address),
            max_queue=None if max_queue < 0 else max_queue,
            rate_limit=not disable_rate_limit,
            request_seconds=request_timeout,
            body_seconds=body_timeout,
            idle_seconds=idle_timeout,
            stall_seconds=stall_timeout,
            hang_seconds=hang_timeout,
            api_keys=read_api_keys(api_key_file, os.environ.pop("KAITO_API_KEY", None)),
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
        kept: list[FetchedModel] = []  # held until this process ends, so that nobody clears the files away

        async def fetch(report: OnProgress) -> Path:
            kept.append(await fetch_model(settings, report))
            return kept[0].path

        def manager(engine: Engine, folder: Path | None) -> Adapters | None:
            # On a node that only computes the leader's word loads an adapter.
            return None if settings.parallel.rank else make_manager(engine, settings, model_folder=folder)

        engine = VllmWorker(settings) if settings.parallel.rank else VllmEngine(settings)
        code = run_loop(run(settings, engine, fetch=fetch, adapters=manager))
    except FetchError as error:
        raise CliError(error.message, error.next_step) from error
    except (SettingsError, EngineError, ListenError) as error:
        raise CliError(str(error)) from error
    # Not sys.exit: an engine thread that still loads when the signal came would hold the interpreter.
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
