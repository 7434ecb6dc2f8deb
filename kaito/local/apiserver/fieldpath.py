"""Paths and sets of fields, in the form in which ``metadata.managedFields`` keeps them.

In: FieldsV1 JSON (a trie of ``f:<field>``, ``k:<keys>``, ``v:<value>``, ``i:<index>``, with ``.`` for the place
itself). Out: the same as a flat ``frozenset`` of :data:`Path`, which makes ownership plain set arithmetic, and
back. Also the human spelling of a path in conflict messages.
"""

from __future__ import annotations

from typing import Any

import orjson

from manager.types import Obj

Path = tuple[str, ...]
FieldSet = frozenset[Path]
EMPTY: FieldSet = frozenset()


def field_element(name: str) -> str:
    """The element of a struct field or map key."""
    return "f:" + name


def key_element(keys: Obj) -> str:
    """The element of an associative list's item."""
    return "k:" + orjson.dumps(keys, option=orjson.OPT_SORT_KEYS).decode()


def value_element(value: Any) -> str:
    """The element of a set's item."""
    return "v:" + orjson.dumps(value).decode()


def decode(fields: Obj) -> FieldSet:
    """FieldsV1 as a set. A place with nothing below it is a member; so is one with ``.`` below it."""
    found: set[Path] = set()

    def walk(node: Obj, path: Path) -> None:
        for element, below in node.items():
            if element == ".":
                found.add(path)
                continue
            here = (*path, _canonical(element))
            if below:
                walk(below, here)
            else:
                found.add(here)

    walk(fields, ())
    return frozenset(found)


def _canonical(element: str) -> str:
    if element[:2] == "k:":
        return key_element(orjson.loads(element[2:]))
    return element


def tree(fields: FieldSet) -> dict[str, Any]:
    """The set as a trie in which a member holds the entry ``.``: what walks over values follow."""
    root: dict[str, Any] = {}
    for path in fields:
        node = root
        for element in path:
            node = node.setdefault(element, {})
        node["."] = {}
    return root


def encode(fields: FieldSet) -> Obj:
    """The set as FieldsV1, in the order in which a real server writes it."""

    def simplify(node: Obj) -> Obj:
        if len(node) == 1 and "." in node:
            return {}
        return {element: simplify(node[element]) if element != "." else {} for element in sorted(node)}

    return simplify(tree(fields))


def text(path: Path) -> str:
    """``.spec.containers[name="a"].image``."""
    return "".join(_element_text(element) for element in path)


def _element_text(element: str) -> str:
    kind, rest = element[:2], element[2:]
    if kind == "f:":
        return "." + rest
    if kind == "k:":
        keys = orjson.loads(rest)
        return "[" + ",".join(f"{key}={orjson.dumps(keys[key]).decode()}" for key in sorted(keys)) + "]"
    if kind == "v:":
        return f"[={rest}]"
    return f"[{rest}]"


def below(fields: FieldSet, prefixes: FieldSet) -> FieldSet:
    """The members that lie at or below one of the prefixes."""
    return frozenset(
        path for path in fields if any(path[:length] in prefixes for length in range(1, len(path) + 1))
    )
