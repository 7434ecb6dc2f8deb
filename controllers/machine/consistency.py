"""Whether a node still has what its Machine came with.

In: a Machine whose status says what the node had when it became usable, and the node now. Out: sentences, one for
each resource of which less than nine tenths are left. Pure. Source: Karpenter's consistency controller.
"""

from __future__ import annotations

from collections.abc import Iterator

from api.errors import InvalidQuantity
from api.quantity import parse
from manager.types import Obj

_ENOUGH = 0.9


def inconsistencies(machine: Obj, node: Obj) -> Iterator[str]:
    """What the node lacks."""
    expected = (machine.get("status") or {}).get("capacity") or {}
    found = (node.get("status") or {}).get("capacity") or {}
    for resource, wanted in sorted(expected.items()):
        if resource not in found:
            yield f'expected resource "{resource}" not found'
            continue
        try:
            want, have = parse(wanted), parse(found[resource])
        except InvalidQuantity:
            continue
        if want > 0 and float(have / want) < _ENOUGH:
            share = f"{float(have / want) * 100:.1f}% of expected"
            yield f"expected {wanted} of resource {resource}, but found {found[resource]} ({share})"
