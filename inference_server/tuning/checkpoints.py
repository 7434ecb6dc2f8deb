"""Which checkpoints of a folder are whole and belong to this run.

In: the folder, the run's fingerprint. Out: the newest checkpoint that can be gone on from. The trainer writes a
checkpoint's files one by one; ``seal`` then writes a list of them with their digests, last, to disk, under its
name at once. A checkpoint without a list, or whose files are not as listed, was torn by a kill and is never read.
A checkpoint of another run (other data, model or settings) is not used, and makes room when this one begins.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

logger = logging.getLogger("kaito.inference_server.tuning.checkpoints")

PREFIX: Final = "checkpoint-"
SEAL: Final = "complete.json"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A whole checkpoint and the optimiser step after which it was written."""

    path: Path
    step: int


def fingerprint(**facts: Any) -> str:
    """A digest of what makes two runs the same run."""
    text = json.dumps(facts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def seal(path: Path, mark: str) -> None:
    """Declares a checkpoint whole. What it lists is on the disk before the list is."""
    files = {}
    for file in sorted(path.rglob("*")):
        if file.is_file() and file.name != SEAL:
            files[file.relative_to(path).as_posix()] = _digest(file)
            _sync(file)
    write_whole(path / SEAL, json.dumps({"fingerprint": mark, "files": files}, indent=1).encode())


def newest(folder: Path, mark: str) -> Checkpoint | None:
    """The last whole checkpoint of this run."""
    for step, path in sorted(_all(folder), reverse=True):
        listed = _listed(path)
        if listed is None:
            logger.warning("a torn checkpoint is passed over path=%s", path)
        elif listed.get("fingerprint") != mark:
            logger.info("a checkpoint of another run is passed over path=%s", path)
        else:
            return Checkpoint(path, step)
    return None


def clear(folder: Path, keep: Checkpoint | None) -> None:
    """Removes the checkpoints past ``keep`` (all, without one): the run writes these names again."""
    for step, path in _all(folder):
        if keep is None or step > keep.step:
            shutil.rmtree(path)


def write_whole(path: Path, data: bytes) -> None:
    """Writes a file so that its name only ever stands for the old or the new content, also after a crash."""
    part = path.with_name(f".{path.name}.part")
    with part.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
    _sync(path.parent)


def _all(folder: Path) -> list[tuple[int, Path]]:
    if not folder.is_dir():
        return []
    found = []
    for path in folder.glob(f"{PREFIX}*"):
        step = path.name.removeprefix(PREFIX)
        if step.isdecimal() and path.is_dir():
            found.append((int(step), path))
    return found


def _listed(path: Path) -> dict[str, Any] | None:
    """The seal of a checkpoint that is as the seal says, else None."""
    try:
        listed = json.loads((path / SEAL).read_bytes())
        if all(_digest(path / name) == digest for name, digest in listed["files"].items()):
            return dict(listed)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass  # whatever is wrong with it, it is not whole
    return None


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
