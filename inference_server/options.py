"""Options of the engine on their way from people to the engine's own argument parser. Pure.

In: layers of options, each with the words that say where it comes from: the device's defaults, the preset, flags,
`--engine-arg`, what follows `--`, the configuration file. Out: one mapping, where the later layer wins, and the
argument list that the engine's parser reads. Names have underscores inside; dots lead into nested options, such as
`compilation_config.pass_config.fuse_allreduce_rms`. Whether a name exists is the engine's parser's to say.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from inference_server.settings import SettingsError

# Options of the engine's own HTTP server, which does not run here, and what stands in their place.
_NOT_HERE: dict[str, str] = {
    "host": "--host",
    "port": "--port",
    "api_key": "--api-key-file",
    "headless": "--node-rank",
    "config": "--config-file",
    "lora_modules": "--adapters",
} | dict.fromkeys(
    (
        "uds", "grpc", "grpc_port", "api_server_count", "middleware", "root_path", "ssl_keyfile", "ssl_certfile",
        "ssl_ca_certs", "ssl_cert_reqs", "ssl_ciphers", "enable_ssl_refresh", "allow_credentials",
        "allowed_origins", "allowed_methods", "allowed_headers", "uvicorn_log_level",
        "disable_uvicorn_access_log", "disable_access_log_for_endpoints", "h11_max_incomplete_event_size",
        "h11_max_header_count", "disable_fastapi_docs", "enable_offline_docs", "model_tag",
    ),
    "",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Layer:
    """Options and, for the start-up report, where they come from."""

    source: str
    options: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Merged:
    """All layers in one, and for each name the source that won."""

    options: Mapping[str, Any]
    sources: Mapping[str, str]


def merge(layers: Iterable[Layer]) -> Merged:
    """Later layers win. None means "not said" and overrides nothing."""
    options: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for layer in layers:
        for name, value in layer.options.items():
            if value is not None:
                options[name] = value
                sources[name] = layer.source
    return Merged(options, sources)


def check_ours(names: Iterable[str]) -> None:
    """Raises SettingsError for an option of the engine's own HTTP server."""
    for name in names:
        if name in _NOT_HERE:
            instead = f"; use {_NOT_HERE[name]}" if _NOT_HERE[name] else ""
            raise SettingsError(f"the engine option {name!r} is for the engine's own HTTP server{instead}")


def read_assignment(text: str) -> tuple[str, Any]:
    """``key=value`` of ``--engine-arg``; a key alone is a switch. Raises SettingsError."""
    key, separator, value = text.partition("=")
    if not key.strip():
        raise SettingsError(f"--engine-arg {text!r}: expected key=value")
    return option_name(key), value if separator else True


def read_words(words: Sequence[str]) -> dict[str, Any]:
    """What follows ``--``, as the engine's own command line writes it. Raises SettingsError."""
    options: dict[str, Any] = {}
    name: str | None = None
    for word in words:
        if word.startswith("--"):
            key, separator, value = word[2:].partition("=")
            if not key:
                raise SettingsError(f"after --: {word!r} is no option of the engine")
            name = None if separator else option_name(key)
            options[option_name(key)] = value if separator else True
        elif name is None:
            raise SettingsError(f"after --: expected an option such as --max-num-seqs, found {word!r}")
        elif options[name] is True:
            options[name] = word
        else:  # an option that takes several values
            earlier = options[name]
            options[name] = [*(earlier if isinstance(earlier, list) else [earlier]), word]
    return options


def option_name(key: str) -> str:
    """``--max-model-len`` as ``max_model_len``."""
    return key.strip().removeprefix("--").replace("-", "_")


def arguments(options: Mapping[str, Any]) -> list[str]:
    """The options as words for the engine's parser."""
    words: list[str] = []
    for name, value in options.items():
        top, dot, rest = name.partition(".")
        flag = f"--{top.replace('_', '-')}{dot}{rest}"
        if isinstance(value, bool) and dot:
            words.append(f"{flag}={str(value).lower()}")  # a nested value is read as JSON
        elif value is True or value == "":
            words.append(flag)
        elif value is False:
            words.append(f"--no-{top.replace('_', '-')}")
        elif isinstance(value, Mapping):
            words.append(f"{flag}={json.dumps(value)}")
        elif isinstance(value, list | tuple):
            words += [flag, *(item if isinstance(item, str) else json.dumps(item) for item in value)]
        else:
            words.append(f"{flag}={value}")
    return words
