"""The JSON patch (RFC 6902) between two JSON values: what a defaulter has changed.

Maps are walked here, which is most of an object and ten times faster than the library; lists whose length differs
go to ``jsonpatch``, which finds the fewest insertions and removals. Numbers, booleans and null are told apart by
type: to Python ``1 == True``, to JSON it is not. Pointers are spelled out for operations only: most of an object
has not changed.
"""

from __future__ import annotations

from typing import Any

from manager.types import Obj


def diff(old: Any, new: Any) -> list[Obj]:
    """Operations that turn ``old`` into ``new``; none of the two is changed. Empty when they are equal."""
    operations: list[Obj] = []
    _compare(old, new, [], operations)
    return operations


def _compare(old: Any, new: Any, path: list[str], operations: list[Obj]) -> None:
    kind = type(new)
    if kind is not type(old):
        operations.append({"op": "replace", "path": _pointer(path), "value": new})
    elif kind is dict:
        _compare_maps(old, new, path, operations)
    elif kind is list:
        if len(old) != len(new):
            _edit_list(old, new, _pointer(path), operations)
            return
        for index, value in enumerate(new):
            path.append(str(index))
            _compare(old[index], value, path, operations)
            path.pop()
    elif old != new:
        operations.append({"op": "replace", "path": _pointer(path), "value": new})


def _compare_maps(old: Obj, new: Obj, path: list[str], operations: list[Obj]) -> None:
    if not old.keys() <= new.keys():
        operations += [{"op": "remove", "path": _pointer([*path, key])} for key in old if key not in new]
    for key, value in new.items():
        if key not in old:
            operations.append({"op": "add", "path": _pointer([*path, key]), "value": value})
            continue
        before = old[key]
        if type(value) is str and before == value:
            continue  # most leaves, and worth no call
        path.append(key)
        _compare(before, value, path, operations)
        path.pop()


def _edit_list(old: list[Any], new: list[Any], pointer: str, operations: list[Obj]) -> None:
    import jsonpatch

    for operation in jsonpatch.make_patch(old, new):
        moved = {"from": pointer + operation["from"]} if "from" in operation else {}
        operations.append({**operation, "path": pointer + operation["path"], **moved})


def _pointer(path: list[str]) -> str:
    return "".join("/" + key.replace("~", "~0").replace("/", "~1") for key in path)
