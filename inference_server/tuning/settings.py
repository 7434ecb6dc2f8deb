"""What one tuning run was asked to do: the command line, checked for what needs no file and no library.

In: values of ``kaito tune``. Out: ``TuneSettings``, or a ``TuneError`` that says what to write instead. The
training configuration (training_config.yaml) is another thing: see config.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from api import keys
from api.progress import TuneFailure
from api.v1alpha1.tuning import TuningMethod
from inference_server.tuning.errors import TuneError

DEFAULT_RESULTS: Final = Path("/mnt/results")
DEFAULT_PORT: Final = 5000
DEFAULT_MAX_BYTES: Final = 50 << 30
TERMINATION_LOG: Final = Path("/dev/termination-log")


@dataclass(frozen=True, slots=True)
class TuneSettings:
    """One run. Exactly one of ``urls``, ``data_image`` and ``data_dir`` is set.

    Attributes:
        sha256: digests of the downloaded files, in the order of ``urls``; empty: not checked.
        checkpoint_seconds: the longest time between two checkpoints, whatever the configuration says.
        base_name: what the adapter says that it belongs to; the model's own name when empty.
        push_secrets: files (or folders with one) in docker's format; all that know the registry are tried.
        pull_secrets: the same, for ``data_image`` and ``output_base_image``.
        output_base_image: what the adapter's layer is put on; None: nothing.
        insecure_registries: hosts that may be spoken to without TLS, as this machine itself always may.
        metrics_port: None: nothing is served.
    """

    method: TuningMethod | None = None  # None: what the configuration's bits say
    config: Path | None = None
    model: str | None = None
    revision: str | None = None
    base_name: str = ""
    urls: tuple[str, ...] = ()
    data_image: str | None = None
    data_dir: Path | None = None
    output_dir: Path | None = None
    output_image: str | None = None
    output_base_image: str | None = None
    checkpoint_dir: Path | None = None
    work_dir: Path | None = None
    push_secrets: tuple[Path, ...] = ()
    pull_secrets: tuple[Path, ...] = ()
    insecure_registries: tuple[str, ...] = ()
    resume: bool = True
    checkpoint_seconds: float = 300.0
    private_urls: bool = False
    sha256: tuple[str, ...] = ()
    max_dataset_bytes: int = DEFAULT_MAX_BYTES
    host: str = "0.0.0.0"  # noqa: S104  a pod is reached at its own address
    metrics_port: int | None = DEFAULT_PORT
    trust_remote_code: bool = False
    seed: int | None = None
    max_steps: int | None = None
    termination_log: Path = TERMINATION_LOG
    weights_path: str = field(default=keys.WEIGHTS_PATH)


def check(settings: TuneSettings) -> None:
    """Raises TuneError for what can be seen without looking anywhere."""
    sources = [bool(settings.urls), settings.data_image is not None, settings.data_dir is not None]
    if sum(sources) != 1:
        raise unusable(
            "the dataset comes from exactly one place", "give --data-url (repeatable), --data-image or --data-dir"
        )
    if settings.sha256 and len(settings.sha256) != len(settings.urls):
        text = f"{len(settings.sha256)} checksums for {len(settings.urls)} URLs"
        raise unusable(text, "give --dataset-sha256 once for each --data-url, in the same order")
    for digest in settings.sha256:
        if len(digest) != 64 or not _is_hex(digest):
            raise unusable(f"--dataset-sha256 {digest[:80]} is no SHA-256", "write 64 hexadecimal digits")
    if settings.output_base_image and settings.output_image is None:
        raise unusable("--output-base-image without --output-image", "name the image to push")
    if settings.push_secrets and settings.output_image is None:
        raise unusable("--push-secret without --output-image", "name the image to push, or leave the secret out")
    _files("--push-secret", settings.push_secrets)
    _files("--pull-secret", settings.pull_secrets)


def unusable(what: str, next_step: str) -> TuneError:
    """An error about arguments or configuration."""
    return TuneError(TuneFailure.CONFIG_INVALID, what, next_step)


def _files(option: str, paths: Sequence[Path]) -> None:
    for path in paths:
        if not path.exists():
            raise unusable(f"{option} {path} does not exist", "name the .dockerconfigjson file of a pull secret")


def _is_hex(text: str) -> bool:
    return all(char in "0123456789abcdefABCDEF" for char in text)
