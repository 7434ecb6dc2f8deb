"""What `kaito serve` was asked to serve, checked before anything heavy is imported.

In: command line values and upstream's configuration file (`inference_config.yaml`: a map `vllm` of engine options,
beside legacy keys). Out: `ServeSettings`. Precedence, lowest first: defaults chosen for the device, the command
line, the file's `vllm` map (upstream's order: the file belongs to the user, the command line to the operator).
A value that cannot work is a SettingsError that says what to write instead; nothing is guessed or dropped.
"""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from api.keys import INSECURE_REGISTRIES

DEFAULT_MODEL = "/workspace/weights"
DEFAULT_PORT = 5000

# What the file may hold at the top. The second and third steer programs of upstream that we do not have.
_FILE_KEYS = ("vllm", "max_probe_steps", "kv_cache_cpu_memory_utilization")
_WEIGHTS = ("*.safetensors", "*.bin", "*.gguf", "*.pt")


class SettingsError(Exception):
    """The settings cannot work. The text says which and what is expected."""


@dataclass(frozen=True, slots=True)
class ServeSettings:
    """Everything that one server process needs. None means: choose for the device and say so."""

    model: str = DEFAULT_MODEL
    preset: str | None = None
    served_model_name: str | None = None
    host: str = "0.0.0.0"  # noqa: S104  a pod is reached at its own address
    port: int = DEFAULT_PORT
    max_model_len: int | None = None
    dtype: str | None = None
    kv_cache_bytes: int | None = None
    max_num_seqs: int | None = None
    max_body_bytes: int = 1 << 20
    drain_seconds: float = 20.0
    engine_options: Mapping[str, Any] = field(default_factory=dict)
    adapters: Path | None = None  # the wanted list, or the folder that holds it; None: no adapters in this process
    max_loras: int = 4  # different adapters in one batch; requests for more take turns
    max_lora_rank: int = 64  # of one adapter, and of the sum of all that are combined
    cache: Path = field(default_factory=lambda: default_cache())  # what was fetched, and the last good adapters
    pull_secrets: Path | None = None  # a folder of mounted secrets, each with a .dockerconfigjson
    insecure_registries: tuple[str, ...] = ()
    identity: str = ""  # tells servers apart that share the cache; the name of the Workspace, where there is one

    @property
    def name(self) -> str:
        """The name that clients see."""
        return self.served_model_name or self.preset or Path(self.model).name or self.model

    @property
    def is_local(self) -> bool:
        """True if the model is a folder of this machine, and the network is not needed."""
        return Path(self.model).is_dir()


def default_cache() -> Path:
    """Where a server that was told nothing keeps what it fetches: the user's cache folder."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kaito"


def insecure_registries(named: Iterable[str]) -> tuple[str, ...]:
    """Registries without TLS: those named here, and those in ``KAITO_INSECURE_REGISTRIES`` (with commas)."""
    environment = os.environ.get(INSECURE_REGISTRIES, "").split(",")
    return tuple(dict.fromkeys(host.strip() for host in (*named, *environment) if host.strip()))


def read_config_file(path: Path) -> dict[str, Any]:
    """The file's engine options with underscores for dashes. Raises SettingsError."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise SettingsError(f"config file {path}: {error.strerror}") from None
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise SettingsError(f"config file {path} is not YAML: {' '.join(str(error).split())}") from None
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise SettingsError(f"config file {path}: expected a map with the key 'vllm'")
    for key in document:
        if key not in _FILE_KEYS:
            raise SettingsError(f"config file {path}: unknown key {key!r}{did_you_mean(str(key), _FILE_KEYS)}")
    options = document.get("vllm") or {}
    if not isinstance(options, dict):
        raise SettingsError(f"config file {path}: 'vllm' must be a map of engine options")
    return {str(key).removeprefix("--").replace("-", "_"): value for key, value in options.items()}


def check_model(model: str) -> None:
    """Raises SettingsError if the model is a path that holds no model. A hub name is left to the engine."""
    path = Path(model)
    if not path.exists():
        if model.startswith(("/", ".", "~")):
            raise SettingsError(
                f"no model at {model}: expected a folder with config.json, tokenizer files and weights "
                "(*.safetensors); mount one there or pass --model"
            )
        return
    if not path.is_dir():
        raise SettingsError(f"{model} is a file: --model takes the folder that holds config.json and the weights")
    if not (path / "config.json").is_file():
        raise SettingsError(f"{model} holds no config.json: expected the files of a model as on the model hub")
    if not any(next(path.glob(pattern), None) for pattern in _WEIGHTS):
        raise SettingsError(f"{model} holds a config.json but no weights (*.safetensors)")


def model_config(model: str) -> Mapping[str, Any]:
    """The model's config.json, or nothing if it is not on this machine."""
    try:
        fields = json.loads((Path(model) / "config.json").read_text(encoding="utf-8"))
    except OSError:
        return {}
    except ValueError as error:
        raise SettingsError(f"{model}/config.json is not JSON: {error}") from None
    return fields if isinstance(fields, dict) else {}


def did_you_mean(word: str, choices: tuple[str, ...] | list[str]) -> str:
    """``; did you mean 'x'?`` or, failing that, the choices if they are few."""
    close = difflib.get_close_matches(word, choices, n=1)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; known are {', '.join(choices)}" if len(choices) <= 10 else ""
