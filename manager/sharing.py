"""Most of an object is what its last version, or its neighbour in the list, also says: kept once, not twice.

In: an object that nobody shares yet, and a cached one that it probably resembles. Out: the same object, in which
every subtree that is equal to the other's at the same place is replaced by it. The objects stay read-only dicts,
so that nobody can tell, but by the memory. Never may a subtree be shared that would be written differently as
JSON: Python takes 1, 1.0 and true for equal.

Measured with 6,000 Pods of 6.1 KB in 300 ReplicaSets, KiB of RSS per Pod: as decoded 32, without managed fields
29, with this 6 (listed in order) to 13 (in random order). Interning short strings instead gave 20 and cost
94 us a Pod; on top of this it would save 1 to 2 KiB. Cost: 15 to 26 us for a new Pod, 10 to 20 us for an update,
less than decoding it.
"""

from __future__ import annotations

from typing import Any

import orjson

from manager.types import Obj

_dumps = orjson.dumps


def share(new: Obj, like: Obj, *, exact: bool) -> None:
    """Replace what ``new`` has in common with ``like``, in place.

    Args:
        exact: compare as JSON too. Without it the types of a field must be fixed by a schema, as those of
            Kubernetes' own kinds are; a custom resource may hold anything.
    """
    for key, value in new.items():
        kind = type(value)
        if kind is str:
            other = like.get(key)
            if value == other:
                new[key] = other
        elif kind is dict:
            other = like.get(key)
            if type(other) is dict:
                if _same(value, other, exact):
                    new[key] = other
                else:
                    share(value, other, exact=exact)
        elif kind is list:
            other = like.get(key)
            if type(other) is list:
                if _same(value, other, exact):
                    new[key] = other
                else:
                    _share_items(value, other, exact)


def _share_items(new: list[Any], like: list[Any], exact: bool) -> None:
    for index, (value, other) in enumerate(zip(new, like, strict=False)):
        kind = type(value)
        if kind is dict:
            if type(other) is dict:
                if _same(value, other, exact):
                    new[index] = other
                else:
                    share(value, other, exact=exact)
        elif kind is str and value == other:
            new[index] = other


def _same(value: Any, other: Any, exact: bool) -> bool:
    return value == other and (not exact or _dumps(value) == _dumps(other))
