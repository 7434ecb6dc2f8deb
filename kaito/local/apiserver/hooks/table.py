"""What a conversion webhook has said: the objects of one CRD in its other versions, by content.

In: an object and the version wanted. Out: the object in that version, fresh, or :class:`Unconverted`, which asks
the caller to have it converted and to try again. So everything that reads and writes objects stays synchronous,
and only its outermost caller (``converting``) waits. A CRD that changes gets a new table. What must never happen:
an answer for other content than was asked about.
"""

from __future__ import annotations

import hashlib

import orjson

from manager.types import Obj

__all__ = ["Table", "Unconverted"]

_MOST = 20_000  # objects remembered for one CRD


class Unconverted(Exception):
    """These objects are needed in this version first."""

    def __init__(self, table: Table, obj: Obj, target: str) -> None:
        super().__init__(target)
        self.table = table
        self.obj = obj
        self.target = target


class Table:
    """The conversions of one CRD in one state of it.

    Args:
        webhook: ``spec.conversion.webhook`` of the CRD.
    """

    def __init__(self, webhook: Obj) -> None:
        self.client_config: Obj = webhook.get("clientConfig") or {}
        self.review_versions: list[str] = list(webhook.get("conversionReviewVersions") or ())
        self._known: dict[bytes, bytes] = {}

    def converted(self, obj: Obj, target: str) -> Obj:
        """The object with the apiVersion ``target``; the caller owns it.

        Raises:
            Unconverted: it is not known.
        """
        if obj.get("apiVersion") == target:
            return obj
        found = self._known.get(_key(obj, target))
        if found is None:
            raise Unconverted(self, obj, target)
        fresh: Obj = orjson.loads(found)
        return fresh

    def missing(self, objects: list[Obj], target: str) -> list[Obj]:
        """Those that are not known in this version."""
        return [o for o in objects if o.get("apiVersion") != target and _key(o, target) not in self._known]

    def learn(self, obj: Obj, target: str, converted: Obj) -> None:
        """Remember an answer."""
        while len(self._known) >= _MOST:
            del self._known[next(iter(self._known))]
        self._known[_key(obj, target)] = orjson.dumps(converted)


def _key(obj: Obj, target: str) -> bytes:
    return hashlib.blake2b(target.encode() + b"\0" + orjson.dumps(obj), digest_size=16).digest()
