"""Reading manifests: files, folders or standard input become plain objects, with the place of every mistake."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import yaml
from manager.types import Obj

from kaito.errors import CliError

_MAX_BYTES = 16 * 1024 * 1024  # a manifest larger than this is a mistake, and the server would refuse it anyway


def read(sources: list[str]) -> list[Obj]:
    """The objects of all sources, in order; ``-`` is standard input, a folder gives its .yaml, .yml and .json.

    Raises:
        CliError: a source is missing, too large, not YAML, or holds something that is not an object.
    """
    objects: list[Obj] = []
    for source in sources:
        for name, text in _texts(source):
            objects += _parse(name, text)
    if not objects:
        raise CliError(f"no objects in {', '.join(sources)}", "give a manifest; config/samples has examples")
    return objects


def _texts(source: str) -> Iterator[tuple[str, str]]:
    if source == "-":
        yield "standard input", sys.stdin.read(_MAX_BYTES)
        return
    path = Path(source)
    if path.is_dir():
        files = sorted(p for p in path.iterdir() if p.suffix in (".yaml", ".yml", ".json"))
        if not files:
            raise CliError(f"the folder {source} holds no .yaml, .yml or .json file")
    elif path.is_file():
        files = [path]
    else:
        raise CliError(f"no such file: {source}")
    for file in files:
        if file.stat().st_size > _MAX_BYTES:
            raise CliError(f"{file} is larger than {_MAX_BYTES // 2**20} MiB")
        yield str(file), file.read_text(encoding="utf-8", errors="replace")


def _parse(name: str, text: str) -> list[Obj]:
    objects: list[Obj] = []
    try:
        documents = list(yaml.safe_load_all(text))
    except yaml.YAMLError as error:
        raise CliError(f"{name} is not YAML: {' '.join(str(error).split())}") from error
    for document in documents:
        if document is None:
            continue
        if not isinstance(document, dict):
            raise CliError(f"{name} holds a {type(document).__name__} where an object belongs")
        if str(document.get("kind", "")).endswith("List") and isinstance(document.get("items"), list):
            objects += document["items"]
        else:
            objects.append(document)
    return objects
