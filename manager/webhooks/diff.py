"""The JSON patch (RFC 6902) between two JSON values: what a defaulter has changed.

Maps are walked here, which is most of an object and ten times faster than the library; lists whose length differs
go to ``jsonpatch``, which finds the fewest insertions and removals. Numbers, booleans and null are told apart by
type: to Python ``1 == True``, to JSON it is not.
"""

from __future__ import annotations

from typing import Any

from manager.types import Obj


def diff(old: Any, new: Any, path: str = "") -> list[Obj]:
    """Operations that turn ``old`` into ``new``; none of the two is changed. Empty when they are equal."""
    operations: list[Obj] = []
    _compare(old, new, path, operations)
    return operations


def _compare(old: Any, new: Any, path: str, operations: list[Obj]) -> None:
    if old is new:
        return
    kind = type(old)
    if kind is not type(new):
        operations.append({"op": "replace", "path": path, "value": new})
    elif kind is dict:
        operations += [{"op": "remove", "path": f"{path}/{_escaped(key)}"} for key in old if key not in new]
        for key, value in new.items():
            if key in old:
                _compare(old[key], value, f"{path}/{_escaped(key)}", operations)
            else:
                operations.append({"op": "add", "path": f"{path}/{_escaped(key)}", "value": value})
    elif kind is list:
        if len(old) == len(new):
            for index, value in enumerate(new):
                _compare(old[index], value, f"{path}/{index}", operations)
        else:
            _edit_list(old, new, path, operations)
    elif old != new:
        operations.append({"op": "replace", "path": path, "value": new})


def _edit_list(old: list[Any], new: list[Any], path: str, operations: list[Obj]) -> None:
    import jsonpatch

    for operation in jsonpatch.make_patch(old, new):
        moved = {"from": path + operation["from"]} if "from" in operation else {}
        operations.append({**operation, "path": path + operation["path"], **moved})


def _escaped(key: str) -> str:
    return key.replace("~", "~0").replace("/", "~1") if "~" in key or "/" in key else key
