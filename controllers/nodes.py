"""What both reconcilers read off a Node. Pure functions over the plain dict."""

from __future__ import annotations

from api.errors import InvalidQuantity
from api.quantity import parse
from manager.types import Obj


def readiness(node: Obj) -> tuple[bool, str]:
    """Whether the node's Ready condition is True, and what it says otherwise."""
    for condition in (node.get("status") or {}).get("conditions") or []:
        if condition.get("type") == "Ready":
            return condition.get("status") == "True", str(condition.get("message") or "the node is not Ready")
    return False, "the node has not reported yet"


def offers(node: Obj, resource: str) -> bool:
    """Whether the node has any of this resource to give."""
    status = node.get("status") or {}
    amount = (status.get("allocatable") or status.get("capacity") or {}).get(resource, "0")
    return positive(amount)


def positive(quantity: str | int) -> bool:
    """Whether a quantity is more than nothing; an unreadable one is nothing."""
    try:
        return parse(quantity) > 0
    except InvalidQuantity:
        return False
