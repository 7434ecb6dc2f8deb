"""What `kaito serve` was asked to serve, checked before anything heavy is imported.

In: command line values and upstream's configuration file (`inference_config.yaml`: a map `vllm` of engine options,
beside legacy keys). Out: `ServeSettings`. Precedence, lowest first: defaults chosen for the device, the preset,
the command line, the file's `vllm` map (upstream's order: the file belongs to the user, the command line to the
operator; docs/serving.md). A value that cannot work is a SettingsError that says what to write instead; nothing is
guessed.
"""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
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
class Parallel:
    """How the model is spread: over the GPUs of a node, and over nodes of which this is one."""

    tensor: int | None = None
    pipeline: int | None = None
    nodes: int = 1
    rank: int = 0
    leader: str | None = None  # host:port where the nodes meet

    def options(self) -> dict[str, Any]:
        """The engine's own options."""
        found: dict[str, Any] = {"tensor_parallel_size": self.tensor, "pipeline_parallel_size": self.pipeline}
        if self.nodes > 1:
            host, _, port = (self.leader or "").rpartition(":")
            found |= {
                "nnodes": self.nodes,
                "node_rank": self.rank,
                "master_addr": host.strip("[]"),
                "master_port": int(port),
                "distributed_executor_backend": "mp",
            }
        return found


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
    preset_options: Mapping[str, Any] = field(default_factory=dict)
    engine_args: Mapping[str, Any] = field(default_factory=dict)  # --engine-arg, and what follows --
    trust_remote_code: bool = False
    parallel: Parallel = field(default_factory=Parallel)
    max_queue: int | None = None  # requests that wait; None: as many as are answered at a time (upstream's rule)
    rate_limit: bool = True
    request_seconds: float = 0.0  # for one answer; 0: no limit
    body_seconds: float = 30.0  # for a request's body to arrive
    idle_seconds: float = 75.0  # for a connection's next request to arrive, its head complete
    stall_seconds: float = 60.0  # for a reader of a stream to take the next part
    hang_seconds: float = 300.0  # without a step of the engine while requests run; 0: no watchdog
    api_keys: frozenset[str] = field(default=frozenset(), repr=False)
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

    def at(self, folder: Path) -> ServeSettings:
        """The same with the model's files in this folder. What clients see keeps its name."""
        return replace(self, model=str(folder), served_model_name=self.name)

    @property
    def trusts_code(self) -> bool:
        """True if Python code that comes with the model may run."""
        said = [options.get("trust_remote_code") for options in (self.engine_args, self.engine_options)]
        return self.trust_remote_code or any(value in (True, "", "true", "True") for value in said)

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
    return {str(key).strip().removeprefix("--").replace("-", "_"): value for key, value in options.items()}


def parallel(tensor: int, pipeline: int, nodes: int, rank: str, leader: str) -> Parallel:
    """The flags as one value. ``rank`` may be a pod's name, whose last number counts. Raises SettingsError."""
    number = node_rank(rank)
    if not 0 <= number < nodes:
        raise SettingsError(f"--node-rank {rank}: must lie between 0 and {nodes - 1} (--nodes {nodes})")
    if nodes > 1:
        host, _, port = leader.rpartition(":")
        if not host or not port.isdigit() or not 0 < int(port) < 65536:
            raise SettingsError("--nodes above 1 needs --leader-address host:port, where the nodes meet")
    return Parallel(tensor or None, pipeline or None, nodes, number, leader or None)


def node_rank(text: str) -> int:
    """3 of "3" and of the pod name "phi-3"; the first pod of a StatefulSet leads. Raises SettingsError."""
    number = text.strip().rpartition("-")[2]
    if not number.isdigit():
        raise SettingsError(f"--node-rank {text!r}: expected a number, or a pod's name that ends in -<number>")
    return int(number)


def read_api_keys(path: Path | None, environment: str | None) -> frozenset[str]:
    """The keys that a client may show: one per line of the file, or the environment's. Raises SettingsError."""
    if path is None:
        return frozenset({environment.strip()}) if environment and environment.strip() else frozenset()
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise SettingsError(f"--api-key-file {path}: {error.strerror}") from None
    keys = frozenset(line.strip() for line in lines if line.strip())
    if not keys:
        raise SettingsError(f"--api-key-file {path}: holds no key; write one per line")
    return keys


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


def weights_bytes(model: str) -> int:
    """Size of the weights on this machine; 0 if they are not here."""
    path = Path(model)
    return sum(file.stat().st_size for pattern in _WEIGHTS for file in path.glob(pattern)) if path.is_dir() else 0


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
