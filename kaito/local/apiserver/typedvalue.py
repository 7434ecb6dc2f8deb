"""Walks over typed values: which fields there are, what differs, how two configurations merge.

In: JSON values and their schema node. Out: field sets, comparisons and new values; inputs are never changed.
The rules are those of Kubernetes' structured merge: scalars and atomic lists or maps are one field; maps and
structs are walked by name, ``map`` lists by their keys, ``set`` lists by value; a struct field is a member of a
set only when it is a leaf, a map key and a list item always. Values without a schema are walked as granular maps
with atomic lists.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from manager.types import Obj

from .errors_patch import PatchError
from .fieldpath import FieldSet, Path, field_element, key_element, text, value_element
from .structure import ANY, MISSING, Node


@dataclass(frozen=True, slots=True)
class Comparison:
    """How a value became another one."""

    added: FieldSet
    removed: FieldSet
    modified: FieldSet

    @property
    def same(self) -> bool:
        """Nothing differs."""
        return not (self.added or self.removed or self.modified)


def _child(node: Node, name: str) -> Node:
    return node.field(name) or ANY


def _items(node: Node) -> Node:
    return node.items or ANY


def _is_list(value: Any, node: Node) -> bool:
    """Whether a value is walked as an associative list."""
    return isinstance(value, list) and node is not ANY and node.list_type in ("map", "set")


def _is_map(value: Any, node: Node) -> bool:
    return isinstance(value, dict) and not node.atomic


def element(node: Node, index: int, item: Any, path: Path = ()) -> str:
    """The path element of a list's item.

    Raises:
        PatchError: the item lacks a merge key that has no default, or is no object.
    """
    if node.list_type == "set":
        return value_element(item)
    if not isinstance(item, dict):
        raise PatchError(
            400, f"{text(path)}: element {index}: associative list with keys may not have non-map elements"
        )
    keys: Obj = {}
    for key in node.list_keys:
        found = item.get(key)
        if found is None:
            found = node.key_default(key)
        if found is not MISSING:
            keys[key] = found
    if not keys:
        listed = ", ".join(f'"{key}"' for key in node.list_keys)
        raise PatchError(
            400,
            f"{text(path)}: element {index}: associative list with keys has an element that omits all key fields "
            f"[{listed}] (and doesn't have default values for any key fields)",
        )
    return key_element(keys)


def _indexed(items: Any, node: Node, path: Path, *, strict: bool) -> dict[str, Any]:
    """The items of a list by element; the first of duplicates wins unless ``strict`` refuses them."""
    found: dict[str, Any] = {}
    for index, item in enumerate(items if isinstance(items, list) else ()):
        key = element(node, index, item, path)
        if key in found:
            if strict:
                raise PatchError(400, f"{text(path)}: duplicate entries for key {text((key,))}")
            continue
        found[key] = item
    return found


# ---------------------------------------------------------------------- the fields of a value


def field_set(value: Any, node: Node) -> FieldSet:
    """Every field that a configuration sets.

    Raises:
        PatchError: a list's items cannot be told apart.
    """
    return frozenset(_fields(value, node, ()))


def _fields(value: Any, node: Node, path: Path) -> Iterator[Path]:
    if _is_map(value, node):
        for name, item in value.items():
            here = (*path, field_element(name))
            yield from _fields(item, _child(node, name), here)
            if item is None or item == {} or name not in node.properties:
                yield here
    elif _is_list(value, node):
        for key, item in _indexed(value, node, path, strict=True).items():
            here = (*path, key)
            yield from _fields(item, _items(node), here)
            yield here
    elif path:
        yield path


def with_named_fields(fields: FieldSet, node: Node) -> FieldSet:
    """The set, with every struct field on the way to a member a member too."""
    found = set(fields)
    for path in fields:
        here: Node = node
        for length, step in enumerate(path[:-1], 1):
            if step.startswith("f:"):
                name = step[2:]
                if name in here.properties:
                    found.add(path[:length])
                here = _child(here, name)
            else:
                here = _items(here)
    return frozenset(found)


# ---------------------------------------------------------------------- comparing


def compare(old: Any, new: Any, node: Node) -> Comparison:
    """What was added, removed and modified between two values of one type."""
    found: tuple[set[Path], set[Path], set[Path]] = (set(), set(), set())
    _compare(old, new, node, (), found)
    return Comparison(frozenset(found[0]), frozenset(found[1]), frozenset(found[2]))


def _compare(old: Any, new: Any, node: Node, path: Path, found: tuple[set[Path], set[Path], set[Path]]) -> None:
    added, removed, modified = found
    if old is MISSING:
        added_here: set[Path] | None = added
    elif new is MISSING:
        added_here = removed
    else:
        added_here = None
    pairs = _pairs(old, new, node, path)
    if pairs is not None:
        for step, child, before, after in pairs:
            _compare(before, after, child, (*path, step), found)
        if added_here is not None:
            added_here.add(path)
    elif added_here is not None:
        added_here.add(path)
    elif old != new or (isinstance(old, bool) != isinstance(new, bool)):
        modified.add(path)


def _pairs(old: Any, new: Any, node: Node, path: Path) -> Iterator[tuple[str, Node, Any, Any]] | None:
    """The children of two values side by side, or None where the place is a leaf."""
    present = [value for value in (old, new) if value is not MISSING and value is not None]
    if not any(present):
        return None  # nothing, nulls or empties: a leaf, so that empty and absent stay distinct
    if all(_is_map(value, node) for value in present):
        return _map_pairs(old, new, node)
    if all(_is_list(value, node) for value in present):
        return _list_pairs(old, new, node, path)
    return None


def _map_pairs(old: Any, new: Any, node: Node) -> Iterator[tuple[str, Node, Any, Any]]:
    before = old if isinstance(old, dict) else {}
    after = new if isinstance(new, dict) else {}
    for name in dict.fromkeys((*before, *after)):
        yield (
            field_element(name),
            _child(node, name),
            before.get(name, MISSING),
            after.get(name, MISSING),
        )


def _list_pairs(old: Any, new: Any, node: Node, path: Path) -> Iterator[tuple[str, Node, Any, Any]]:
    before = _indexed(old, node, path, strict=False)
    after = _indexed(new, node, path, strict=False)
    for key in dict.fromkeys((*before, *after)):
        yield key, _items(node), before.get(key, MISSING), after.get(key, MISSING)


# ---------------------------------------------------------------------- merging


def merge(live: Any, config: Any, node: Node, path: Path = ()) -> Any:
    """``config`` over ``live``: what it sets wins, everything else stays.

    The items of associative lists come in the order of the configuration; items that only the live object has
    keep their place between those that both have.
    """
    if config is MISSING:
        return live
    if live is MISSING:
        return config
    if not live and not config:
        return config
    if _is_map(live, node) and _is_map(config, node):
        result = dict(live)
        for name, value in config.items():
            here = (*path, field_element(name))
            result[name] = merge(live.get(name, MISSING), value, _child(node, name), here)
        return result
    if _is_list(live, node) and _is_list(config, node):
        return _merge_lists(live, config, node, path)
    return config


def _merge_lists(live: list[Any], config: list[Any], node: Node, path: Path) -> list[Any]:
    before = _indexed(live, node, path, strict=False)
    after = _indexed(config, node, path, strict=True)
    left, right = list(before), list(after)
    shared = [key for key in right if key in before]
    result: list[Any] = []

    def take(key: str) -> None:
        here = (*path, key)
        result.append(merge(before.get(key, MISSING), after.get(key, MISSING), _items(node), here))

    i = j = 0
    while i < len(left) or j < len(right):
        if i < len(left) and j < len(right):
            if left[i] == right[j]:
                take(left[i])
                i, j, shared = i + 1, j + 1, shared[1:]
                continue
            if left[i] in after and shared and shared[0] != left[i]:
                i += 1  # it comes when the configuration's order reaches it
                continue
        if i < len(left) and left[i] not in after:
            take(left[i])
            i += 1
            continue
        if j < len(right):
            take(right[j])
            if shared and shared[0] == right[j]:
                shared = shared[1:]
            j += 1
            continue
        i += 1  # a shared item that was taken already
    return result


# ---------------------------------------------------------------------- removing


def remove(value: Any, gone: Obj, node: Node) -> Any:
    """The value without the members of a trie (see ``fieldpath.tree``). Containers that become empty go too."""
    if _is_map(value, node):
        result = {}
        for name, item in value.items():
            below = gone.get(field_element(name))
            if below is None:
                result[name] = item
            elif "." not in below:
                kept = remove(item, below, _child(node, name))
                if kept is not MISSING:
                    result[name] = kept
        return result or MISSING
    if _is_list(value, node):
        kept_items = []
        for index, item in enumerate(value):
            below = gone.get(element(node, index, item))
            if below is None:
                kept_items.append(item)
            elif "." not in below:
                kept = remove(item, below, _items(node))
                if kept is not MISSING:
                    kept_items.append(kept)
        return kept_items or MISSING
    return value
