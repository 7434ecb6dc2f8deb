"""Strategic merge: RFC 7386 plus lists that merge by key, as built-in kinds declare them.

In: a value, a patch and the schema node of that place. Out: the merged value; inputs are never changed. A list
merges only where the schema says ``x-kubernetes-patch-strategy: merge``; below a place without a schema plain
merge rules hold. What must never happen: a directive (``$...``) surviving into the object.
"""

from __future__ import annotations

from typing import Any

from manager.types import Obj

from .errors_patch import PatchError
from .structure import Node

_DIRECTIVE = "$patch"
_DELETE_FROM = "$deleteFromPrimitiveList/"
_ORDER = "$setElementOrder/"
_RETAIN = "$retainKeys"


def merge(target: Obj, patch: Obj, node: Node | None) -> Obj:
    """``patch`` applied to the object ``target``."""
    directive = patch.get(_DIRECTIVE)
    if directive == "replace":
        return {key: _clean(value) for key, value in patch.items() if key != _DIRECTIVE}
    if directive == "delete":
        return {}
    if directive not in (None, "merge"):
        raise PatchError(400, f"unknown patch type found: {directive}")
    result = dict(target)
    retained = patch.get(_RETAIN)
    if retained is not None:
        if not isinstance(retained, list):
            raise PatchError(400, "invalid patch format of retainKeys: a list is expected")
        result = {key: value for key, value in result.items() if key in retained}
    deletions = {key.removeprefix(_DELETE_FROM): v for key, v in patch.items() if key.startswith(_DELETE_FROM)}
    orders = {key.removeprefix(_ORDER): v for key, v in patch.items() if key.startswith(_ORDER)}
    for key, gone in deletions.items():
        if isinstance(result.get(key), list):
            result[key] = [item for item in result[key] if item not in gone]
    for key, value in patch.items():
        if key.startswith("$"):
            continue
        child = node.field(key) if node is not None else None
        if value is None:
            result.pop(key, None)
        elif isinstance(value, dict):
            below = result.get(key)
            result[key] = merge(below if isinstance(below, dict) else {}, value, child)
            if not result[key] and value.get(_DIRECTIVE) == "delete":
                del result[key]
        elif isinstance(value, list):
            result[key] = _merge_list(result.get(key), value, child)
        else:
            result[key] = value
    for key, order in orders.items():
        if isinstance(result.get(key), list):
            child = node.field(key) if node is not None else None
            _check_order(patch.get(key), order, child)
            result[key] = _ordered(result[key], order, target.get(key) or [], child)
    return result


def _merges(node: Node | None) -> bool:
    return node is not None and "merge" in node.patch_strategies


def _merge_list(target: Any, patch: list[Any], node: Node | None) -> list[Any]:
    if any(isinstance(item, dict) and item.get(_DIRECTIVE) == "replace" for item in patch):
        return [_clean(i) for i in patch if not (isinstance(i, dict) and i.get(_DIRECTIVE) == "replace")]
    if not _merges(node) or not isinstance(target, list):
        kept = [item for item in patch if not (isinstance(item, dict) and item.get(_DIRECTIVE) == "delete")]
        return [_clean(item) for item in kept]
    assert node is not None  # noqa: S101 - _merges has seen it
    key = node.merge_key
    if key is None:
        joined = [*target, *(item for item in patch if item not in target)]
        return _ordered(joined, patch, target, node)
    result = list(target)
    for item in patch:
        if not isinstance(item, dict) or key not in item:
            raise PatchError(
                422 if isinstance(item, dict) else 400,
                f"map: {item} does not contain declared merge key: {key}",
            )
        places = [index for index, one in enumerate(result) if isinstance(one, dict) and one.get(key) == item[key]]
        if item.get(_DIRECTIVE) == "delete":
            result = [one for index, one in enumerate(result) if index not in places]
        elif places:
            # several elements may share the merge key (ports of two protocols): the first one is patched
            at = next((i for i in places if _same_identity(result[i], item, node)), places[0])
            result[at] = merge(result[at], item, node.items)
        else:
            result.append(merge({}, item, node.items))
    return _ordered(result, patch, target, node)


def _same_identity(one: Obj, item: Obj, node: Node) -> bool:
    return all(key not in item or one.get(key) == item[key] for key in node.list_keys)


def _identity(item: Any, node: Node | None) -> Any:
    key = node.merge_key if node is not None else None
    return item.get(key) if key and isinstance(item, dict) else item


def _check_order(patched: Any, order: Any, node: Node | None) -> None:
    if not isinstance(order, list):
        raise PatchError(400, "invalid $setElementOrder: a list is expected")
    wanted = [_identity(item, node) for item in order]
    for item in patched if isinstance(patched, list) else ():
        is_delete = isinstance(item, dict) and item.get(_DIRECTIVE) == "delete"
        if not is_delete and _identity(item, node) not in wanted:
            raise PatchError(
                400, f"The order in patch list:\n{patched}\n doesn't match $setElementOrder list:\n{order}\n"
            )


def _ordered(items: list[Any], order: list[Any], server: Any, node: Node | None) -> list[Any]:
    """``items`` in the order that the client gave; the others stay before those that they stood before."""
    wanted = [_identity(item, node) for item in order]
    before = [_identity(item, node) for item in server] if isinstance(server, list) else []
    named = sorted(
        (item for item in items if _identity(item, node) in wanted),
        key=lambda item: wanted.index(_identity(item, node)),
    )
    others = [item for item in items if _identity(item, node) not in wanted]
    result: list[Any] = []
    i = j = 0
    while i < len(others) and j < len(named):
        left, right = _identity(others[i], node), _identity(named[j], node)
        if left in before and right in before and before.index(left) < before.index(right):
            result.append(others[i])
            i += 1
        else:
            result.append(named[j])
            j += 1
    return [*result, *others[i:], *named[j:]]


def _clean(value: Any) -> Any:
    """Without directives and nulls: a patch that becomes the value itself."""
    if isinstance(value, dict):
        return {k: _clean(v) for k, v in value.items() if not k.startswith("$") and v is not None}
    if isinstance(value, list):
        return [_clean(v) for v in value if not (isinstance(v, dict) and v.get(_DIRECTIVE) == "delete")]
    return value
