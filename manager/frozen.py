"""Objects that refuse to be changed: what the debug mode puts into caches.

In: a decoded object. Out: the same content in dicts and lists that raise where somebody changes them, and name the
object. They are dicts and lists still: they compare equal to plain ones, encode and validate alike, and a copy of
one is plain and may be changed. What a shallow copy shares with the cache stays frozen.
"""

from __future__ import annotations

import copy
from typing import Any

from manager.types import Obj


class CacheMutation(TypeError):
    """An object of a cache was to be changed, and all its other readers with it: build a patch, or a copy."""


def _refuses(container: FrozenDict | FrozenList, *_: object, **__: object) -> None:
    raise CacheMutation(f"{container.of} is a cached object, shared by all its readers: it must not be changed")


_refuse: Any = _refuses  # of any type: it stands for methods of many


class FrozenDict(dict[str, Any]):
    """See the module. ``of`` names the object it is part of."""

    __slots__ = ("of",)

    def __init__(self, content: dict[str, Any], of: str) -> None:
        super().__init__(content)
        self.of = of

    __setitem__ = __delitem__ = __ior__ = _refuse
    clear = pop = popitem = setdefault = update = _refuse

    def __copy__(self) -> dict[str, Any]:
        return dict(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> dict[str, Any]:
        return {key: copy.deepcopy(value, memo) for key, value in self.items()}

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (dict(self),)


class FrozenList(list[Any]):
    """See the module. ``of`` names the object it is part of."""

    __slots__ = ("of",)

    def __init__(self, content: list[Any], of: str) -> None:
        super().__init__(content)
        self.of = of

    __setitem__ = __delitem__ = __iadd__ = __imul__ = _refuse
    append = clear = extend = insert = pop = remove = reverse = sort = _refuse

    def __copy__(self) -> list[Any]:
        return list(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> list[Any]:
        return [copy.deepcopy(value, memo) for value in self]

    def __reduce__(self) -> tuple[Any, ...]:
        return list, (list(self),)


def freeze(obj: Obj, of: str) -> Obj:
    """The object, unchangeable; ``of`` says in errors what it is, such as ``Pod a/b``."""
    frozen: Obj = _freeze(obj, of)
    return frozen


def _freeze(value: Any, of: str) -> Any:
    if isinstance(value, FrozenDict | FrozenList):
        return value
    if isinstance(value, dict):
        return FrozenDict({key: _freeze(item, of) for key, item in value.items()}, of)
    if isinstance(value, list):
        return FrozenList([_freeze(item, of) for item in value], of)
    return value
