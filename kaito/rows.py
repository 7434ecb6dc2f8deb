"""Rows of data for a person or a program: what the catalogue commands share.

In: frozen values, rows, labelled lines. Out: text on standard output. JSON has the camelCase names of the
catalogue's files, which are stable.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from kaito.console import note, out, table

Obj = dict[str, Any]


def plain(item: object) -> Obj:
    """The fields of a frozen value as JSON, with plain lists and maps in place of tuples and proxies."""
    found: Obj = {}
    for name in item.__dataclass_fields__:  # type: ignore[attr-defined]
        value = getattr(item, name)
        if isinstance(value, Mapping):
            value = dict(value)
        found[_camel(name)] = list(value) if isinstance(value, tuple) else value
    return found


def print_table(head: list[str], rows: list[list[str]]) -> None:
    """A table, or a word beside the output where it would be empty."""
    if rows:
        out(table([head, *rows]))
    else:
        note("none matches")


def print_facts(facts: Iterable[tuple[str, str]]) -> None:
    """Labelled lines; those without a text are left out."""
    shown = [(label, text) for label, text in facts if text]
    width = max(len(label) for label, _ in shown)
    for label, text in shown:
        out(f"{label.ljust(width)}   {text}")


def print_data(obj: object, names: list[str], output: str) -> None:
    """The object as JSON or YAML, or its names."""
    if output == "name":
        out("\n".join(names))
    elif output == "json":
        out(json.dumps(obj, indent=2, ensure_ascii=False))
    else:
        import yaml

        out(yaml.safe_dump(obj, allow_unicode=True, sort_keys=False).rstrip())


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(part.capitalize() for part in rest)
