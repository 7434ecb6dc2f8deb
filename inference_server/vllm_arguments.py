"""What the engine is started with: every option that anybody said, through vLLM's own parser.

In: the settings. Out: one value for each option, with the words that say where it comes from, and the parsed
arguments. Precedence, the weakest first: the device's defaults, the preset, flags, `--engine-arg` and what follows
`--`, the configuration file (docs/serving.md). Everything that vLLM knows can be said, in its own words, nested
options included; what it does not know is an error with the nearest name.
"""

from __future__ import annotations

from argparse import Namespace
from typing import Any, NoReturn

from inference_server import memory
from inference_server.adapters.limits import LOADED_ADAPTERS, engine_rank
from inference_server.options import Layer, Merged, arguments, check_ours, merge
from inference_server.protocol import EngineFailed
from inference_server.settings import ServeSettings, did_you_mean, model_config

_CPU_SEQUENCES = 16  # a batch that two cores still answer at reading speed


def choose(settings: ServeSettings, *, cpu: bool) -> Merged:
    """All options, the weakest first (docs/serving.md)."""
    for options in (settings.engine_args, settings.engine_options):
        check_ours(options)
    layers = [
        Layer(
            "for the device",
            {
                "dtype": "bfloat16" if cpu else "auto",
                # -1 lets the engine shorten the context until it fits the memory, instead of failing.
                "max_model_len": -1,
                "max_num_seqs": _CPU_SEQUENCES if cpu else None,
                # Compiling takes half a minute and gains nothing measurable on a CPU.
                "enforce_eager": True if cpu else None,
            },
        ),
        Layer("by the preset", settings.preset_options),
        Layer("as asked", _flags(settings)),
        Layer("as asked", settings.engine_args),
        Layer("by the configuration file", settings.engine_options),
    ]
    merged = merge(layers)
    if cpu and "kv_cache_memory_bytes" not in merged.options:
        length = _positive(merged.options.get("max_model_len"))
        size, reason = memory.kv_cache_bytes(
            model_config(str(merged.options["model"])),
            memory.available_memory(),
            _positive(merged.options.get("max_num_seqs")) or _CPU_SEQUENCES,
            length,
        )
        merged = merge([Layer(reason, {"kv_cache_memory_bytes": size}), *layers])
    return merged


def _flags(settings: ServeSettings) -> dict[str, Any]:
    flags: dict[str, Any] = {
        "model": settings.model,
        "served_model_name": [settings.name],
        "max_model_len": _length(settings),
        "dtype": settings.dtype,
        "max_num_seqs": settings.max_num_seqs,
        "kv_cache_memory_bytes": settings.kv_cache_bytes,
        "trust_remote_code": settings.trust_remote_code or None,
        "use_tqdm_on_load": False,
    } | settings.parallel.options()
    if settings.adapters is not None:
        flags |= {
            "enable_lora": True,
            "max_loras": settings.max_loras,
            "max_lora_rank": engine_rank(settings.max_lora_rank),
            # The set in force, the next one and what still drains. It costs only what is loaded.
            "max_cpu_loras": max(LOADED_ADAPTERS, settings.max_loras),
        }
    return flags


def _length(settings: ServeSettings) -> int | None:
    """The longest request: as asked, but no longer than the model takes.

    The operator sizes for the preset, and what is served may be a smaller stand-in for it.
    """
    config = model_config(settings.model)
    longest, stretched = config.get("max_position_embeddings"), config.get("rope_parameters") or {}
    plain = stretched.get("rope_type", "default") == "default" and not config.get("rope_scaling")
    if settings.max_model_len is None or not plain or not isinstance(longest, int):
        return settings.max_model_len
    return min(settings.max_model_len, longest)


def parse(merged: Merged) -> Namespace:
    """The options through vLLM's own parser, so that everything that vLLM knows can be said, in its own words.

    Raises EngineFailed for a name that it does not know, with the nearest one, and for a value that does not fit.
    """
    from vllm.entrypoints.launchers.cli_args import make_arg_parser, validate_parsed_serve_args
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    class Parser(FlexibleArgumentParser):  # type: ignore[misc]
        def error(self, message: str) -> NoReturn:
            raise EngineFailed(f"engine options: {message}")

    parser = make_arg_parser(Parser(prog="engine", allow_abbrev=False))
    known = sorted(
        {
            option.removeprefix("--").replace("-", "_")
            for action in parser._actions
            for option in action.option_strings
        }
    )
    for name in merged.options:
        if name.partition(".")[0].removesuffix("+") not in known:
            source = merged.sources[name]
            raise EngineFailed(f"unknown engine option {name!r} ({source}){did_you_mean(name, known)}")
    try:
        args = Namespace()
        parser.parse_args(arguments(merged.options), args)
        validate_parsed_serve_args(args)
    except (ValueError, TypeError) as error:
        raise EngineFailed(f"engine options: {' '.join(str(error).split())[:500]}") from error
    except SystemExit as error:
        raise EngineFailed("engine options: help is not an option here") from error
    return args


def _positive(value: Any) -> int | None:
    """A plain number above 0, or None for "auto", "4k" and the like."""
    text = str(value)
    return int(text) if text.isdigit() and int(text) > 0 else None
