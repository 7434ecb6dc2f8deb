"""Reading manifests: files, folders or standard input become plain objects, with the place of every mistake."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from kaito.errors import CliError
from manager.types import Obj

_MAX_BYTES = 16 * 1024 * 1024  # a manifest larger than this is a mistake, and the server would refuse it anyway
_EXAMPLES = "config/samples has complete ones"


class _Loader(yaml.SafeLoader):
    """YAML as Kubernetes reads it: a key given twice is a mistake, and a date is text."""


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[object] = set()
    for key_node, _ in node.value:
        key = key_node.value
        if isinstance(key, str) and key in seen and key != "<<":
            raise yaml.constructor.ConstructorError(
                None, None, f'the key "{key}" is there twice', key_node.start_mark
            )
        seen.add(key if isinstance(key, str) else id(key))
    loader.flatten_mapping(node)
    return loader.construct_mapping(node, deep=True)


def _text(loader: _Loader, node: yaml.ScalarNode) -> str:
    return str(loader.construct_scalar(node))


_Loader.add_constructor("tag:yaml.org,2002:map", _mapping)
_Loader.add_constructor("tag:yaml.org,2002:timestamp", _text)


def read(sources: list[str]) -> list[Obj]:
    """The objects of all sources, in order; ``-`` is standard input, a folder gives its .yaml, .yml and .json.

    Each has an apiVersion, a kind and a metadata.name, all of them strings.

    Raises:
        CliError: a source is missing, too large, not YAML, or holds something that is not an object.
    """
    objects: list[Obj] = []
    for source in sources:
        for name, text in _texts(source):
            objects += parse(name, text)
    if not objects:
        raise CliError(f"no objects in {', '.join(sources)}", f"give a manifest; {_EXAMPLES}")
    return objects


def _texts(source: str) -> Iterator[tuple[str, str]]:
    if source == "-":
        yield "standard input", sys.stdin.read(_MAX_BYTES)
        return
    path = Path(source)
    try:
        if path.is_dir():
            files = sorted(p for p in path.iterdir() if p.suffix in (".yaml", ".yml", ".json"))
            if not files:
                raise CliError(
                    f"the folder {source} holds no .yaml, .yml or .json file", "name a manifest with -f"
                )
        elif path.is_file():
            files = [path]
        else:
            raise CliError(f"no such file: {source}", f"name a manifest with -f; {_EXAMPLES}")
        for file in files:
            if file.stat().st_size > _MAX_BYTES:
                raise CliError(f"{file} is larger than {_MAX_BYTES // 2**20} MiB", "is it a manifest?")
            yield str(file), file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise CliError(f"{source} is not text: {error.reason}", "manifests are YAML or JSON in UTF-8") from error
    except (OSError, ValueError) as error:  # ValueError: a name with a null byte
        raise CliError(f"{source} cannot be read: {getattr(error, 'strerror', None) or error}") from error


def parse(name: str, text: str) -> list[Obj]:
    """The objects of one text; ``name`` is what messages call it.

    Raises:
        CliError: it is not YAML, or holds something that is not an object.
    """
    objects: list[Obj] = []
    try:
        documents = list(yaml.load_all(text, Loader=_Loader))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        place, why = _place(error)
        raise CliError(f"{name}{place} is not YAML: {why}", "correct it; indent with spaces, not tabs") from error
    for document in documents:
        if document is None:
            continue
        is_list = isinstance(document, dict) and str(document.get("kind", "")).endswith("List")
        if is_list and isinstance(document.get("items"), list):
            objects += [_checked(name, item) for item in document["items"]]
        else:
            objects.append(_checked(name, document))
    return objects


def _checked(name: str, document: object) -> Obj:
    if not isinstance(document, dict):
        raise CliError(f"{name} holds a {_noun(document)} where an object belongs", _EXAMPLES)
    for field in ("apiVersion", "kind"):
        if not isinstance(document.get(field), str) or not document[field]:
            raise CliError(f"{name}: an object has no {field}", f"add it; {_EXAMPLES}")
    metadata = document.get("metadata")
    what = f"{name}: the {document['kind']}"
    if not isinstance(metadata, dict) or metadata.get("name") in (None, ""):
        raise CliError(f"{what} has no metadata.name", "give it one")
    for field in ("name", "namespace"):
        value = metadata.get(field)
        if value is not None and not isinstance(value, str):
            raise CliError(f"{what} has a {_noun(value)} for metadata.{field}", "put it in quotes")
    return document


def _place(error: Exception) -> tuple[str, str]:
    """Where a text stops being YAML, as editors understand it, and why."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        return f":{mark.line + 1}:{mark.column + 1}", f"{error.problem or error.context}"
    return "", " ".join(str(error).split()) or type(error).__name__


def _noun(value: object) -> str:
    names = {"str": "text", "int": "number", "float": "number", "bool": "true or false", "NoneType": "nothing"}
    return names.get(type(value).__name__, type(value).__name__)
