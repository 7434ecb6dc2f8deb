"""Image references → how to run them here.

In: the packaged table `kaito/local/images.yaml`, a user's table before it, and `--weights` folders. Out: an
`Image` (argv rules, environment, path map) or `ImageUnknown`, whose message says how to map the image: the
agent shows it as the kubelet shows a failed pull. Nothing is downloaded, ever. The table is read once;
lookups are pure but for the question whether a program exists on this machine.
"""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

import kaito

_ROOT = Path(kaito.__file__).resolve().parent
PACKAGED_TABLE = _ROOT / "local" / "images.yaml"
_KEYS = {"match", "entrypoint", "cmd", "unless", "commands", "needs", "fallback", "env", "paths", "presets"}


class ImageTableError(Exception):
    """A table of images that cannot be read; the message names the file and the entry."""


class ImageUnknown(Exception):
    """The image cannot be run here; the message says what to do about it."""


@dataclass(frozen=True, slots=True)
class Image:
    """How one image is run."""

    reference: str
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    unless: frozenset[str] = frozenset()
    commands: Mapping[str, Sequence[str]] = field(default_factory=dict)
    fallback: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    paths: Mapping[str, str] = field(default_factory=dict)

    def argv(self, command: Sequence[str], args: Sequence[str]) -> list[str]:
        """The image's and the pod's words put together, as a container runtime does."""
        if command:
            return [*command, *args]
        words = list(args) or list(self.cmd)
        if words and words[0] in self.unless:
            return words
        return [*self.entrypoint, *words]

    def resolve(self, argv: Sequence[str], search_path: str) -> list[str]:
        """Replace a name that stands for a program of this installation; leave the rest to exec."""
        if not argv:
            return []
        name, rest = argv[0], list(argv[1:])
        if name in self.commands:
            return [*self.commands[name], *rest]
        if self.fallback and shutil.which(name, path=search_path) is None and shutil.which(self.fallback[0]):
            return [*self.fallback, Path(name).name, *rest]
        return [name, *rest]


@dataclass(frozen=True, slots=True)
class _Entry:
    patterns: tuple[re.Pattern[str], ...]
    raw: Mapping[str, Any]
    base: Path


class ImageTable:
    """The known images, in order of precedence."""

    def __init__(self, entries: Sequence[_Entry], weights: Mapping[str, Path]) -> None:
        self._entries = entries
        self._weights = weights

    @classmethod
    def load(cls, extra: Path | None = None, weights: Mapping[str, Path] | None = None) -> ImageTable:
        """Read the packaged table, and `extra` before it.

        Raises:
            ImageTableError: a file is missing or broken, or a weights folder does not exist.
        """
        for preset, folder in (weights or {}).items():
            if not folder.is_dir():
                raise ImageTableError(f"--weights {preset}={folder}: no such folder")
        files = [extra, PACKAGED_TABLE] if extra else [PACKAGED_TABLE]
        return cls([entry for file in files for entry in _read(file)], dict(weights or {}))

    def lookup(self, reference: str) -> Image:
        """How to run `reference`.

        Raises:
            ImageUnknown: no entry matches, a program is missing, or the preset has no weights here.
        """
        normal = _normalize(reference)
        for entry in self._entries:
            for pattern in entry.patterns:
                found = pattern.fullmatch(normal)
                if found:
                    return self._image(reference, entry, found.groupdict().get("preset"))
        names = {str(p).rpartition("/")[2].partition(":")[0] for e in self._entries for p in e.raw["match"]}
        known = sorted(name.replace("{preset}", "PRESET") for name in names)
        raise ImageUnknown(
            f'image "{reference}" is not known on this machine, where containers are local processes: '
            f"describe it in a file for `kaito node --images FILE` (see kaito/local/images.yaml), "
            f"or use one of: {', '.join(known)}"
        )

    def _image(self, reference: str, entry: _Entry, preset: str | None) -> Image:
        raw = entry.raw
        for program, package in (raw.get("needs") or {}).items():
            if shutil.which(program) is None:
                raise ImageUnknown(
                    f'image "{reference}" needs the command "{program}", which this machine lacks: '
                    f'install the package "{package}" and try again'
                )
        paths = {}
        for inside, outside in (raw.get("paths") or {}).items():
            if outside == "{weights}":
                paths[inside] = str(self._weights_of(reference, preset or "", entry))
            else:
                paths[inside] = str((entry.base / outside).resolve())
        commands = {
            name: [word.replace("{python}", sys.executable) for word in words]
            for name, words in (raw.get("commands") or {}).items()
        }
        return Image(
            reference=reference,
            entrypoint=tuple(raw.get("entrypoint") or ()),
            cmd=tuple(raw.get("cmd") or ()),
            unless=frozenset(raw.get("unless") or ()),
            commands=commands,
            fallback=tuple(raw.get("fallback") or ()),
            env={k: str(v).replace("{root}", str(_ROOT.parent)) for k, v in (raw.get("env") or {}).items()},
            paths=paths,
        )

    def _weights_of(self, reference: str, preset: str, entry: _Entry) -> Path:
        if preset in self._weights:
            return self._weights[preset].resolve()
        for pattern, folder in (entry.raw.get("presets") or {}).items():
            if _glob(pattern).fullmatch(preset):
                return (entry.base / str(folder)).resolve()
        raise ImageUnknown(
            f'image "{reference}" holds the weights of preset "{preset}", which this machine does not have: '
            f"start the node with --weights {preset}=FOLDER"
        )


def parse_weights(entries: Sequence[str]) -> dict[str, Path]:
    """`PRESET=FOLDER` options as a mapping.

    Raises:
        ImageTableError: an entry without preset or folder.
    """
    found = {}
    for entry in entries:
        preset, equals, folder = entry.partition("=")
        if not (preset and equals and folder):
            raise ImageTableError(f"--weights {entry}: write PRESET=FOLDER")
        found[preset] = Path(folder).expanduser()
    return found


def _normalize(reference: str) -> str:
    """`docker.io/library/busybox@sha256:..` and `busybox` are the same image to the table."""
    name = reference.partition("@")[0]
    return name.removeprefix("docker.io/").removeprefix("library/")


def _glob(pattern: str) -> re.Pattern[str]:
    text = re.escape(pattern).replace(r"\*", ".*").replace(r"\?", ".").replace(r"\{preset\}", "(?P<preset>[^/:]+)")
    return re.compile(text)


def _read(file: Path) -> list[_Entry]:
    try:
        document = yaml.safe_load(file.read_text())
    except (OSError, yaml.YAMLError) as err:
        raise ImageTableError(f"cannot read the table of images {file}: {err}") from err
    images = document.get("images") if isinstance(document, dict) else None
    if not isinstance(images, list):
        raise ImageTableError(f'{file}: the table of images is a list below the key "images"')
    entries = []
    for number, raw in enumerate(images, 1):
        if not isinstance(raw, dict) or not isinstance(raw.get("match"), list) or set(raw) - _KEYS:
            raise ImageTableError(f'{file}: entry {number} needs a list "match" and only {sorted(_KEYS)}')
        entries.append(_Entry(tuple(_glob(str(p)) for p in raw["match"]), raw, file.resolve().parent))
    return entries
