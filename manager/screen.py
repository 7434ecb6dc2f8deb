"""What a server sends, made fit for a sink: wrong objects are dropped, right ones are shaped.

In: items of a list, events of a watch. Out: objects of the one kind that was asked for, transformed once, with
their true apiVersion and kind also where only metadata was asked for. Nothing that a server sends makes this fail,
except a Table: that is a server (or a proxy) that did not understand what was asked for. Semantics: client-go's
``handleAnyWatch`` and its transformers.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from manager.types import Obj, Resource
from manager.watch import WatchEvent, table_refused

log = logging.getLogger("kaito.manager.reflector")

Transform = Callable[[Obj], Obj]
"""May change the object in place and return it, or return another. It must give the same when applied twice, and
leave name, namespace, uid and resource version alone."""

_CHANGES = frozenset({"ADDED", "MODIFIED", "DELETED"})
_PARTIAL = ("meta.k8s.io/v1", "PartialObjectMetadata")


class Screen:
    """See the module. It has no state of its own; one serves all lists and watches of a reflector."""

    __slots__ = ("_api_version", "_kind", "_metadata_only", "_plural", "_transform")

    def __init__(self, resource: Resource, transform: Transform | None, *, metadata_only: bool) -> None:
        self._kind, self._api_version, self._plural = resource.kind, resource.api_version, resource.plural
        self._transform = transform
        self._metadata_only = metadata_only

    def admit(self, event: WatchEvent) -> dict[str, Any] | None:
        """The metadata of an event that counts; None, with a log, for one that does not.

        Raises:
            ApiError: a Table.
        """
        obj = event.object
        try:
            metadata: dict[str, Any] = obj["metadata"]
            if (
                obj["kind"] == self._kind
                and obj["apiVersion"] == self._api_version
                and (metadata["name"] if event.type in _CHANGES else event.type == "BOOKMARK")
            ):
                return metadata
            if self._metadata_only and (obj["apiVersion"], obj["kind"]) == _PARTIAL:
                obj["apiVersion"], obj["kind"] = self._api_version, self._kind
                return self.admit(event)
        except (KeyError, TypeError):
            pass
        kind = obj.get("kind") if isinstance(obj, dict) else type(obj).__name__
        if kind == "Table":
            raise table_refused()
        log.warning("unexpected event skipped resource=%s type=%s kind=%s", self._plural, event.type, kind)
        return None

    def shape(self, obj: Obj) -> Obj | None:
        """The object as the sink gets it; None, with a log, when the transform failed."""
        if self._metadata_only:
            obj = {"apiVersion": self._api_version, "kind": self._kind, "metadata": obj["metadata"]}
        if self._transform is None:
            return obj
        try:
            return self._transform(obj)
        except Exception:
            log.exception("transform failed, object dropped resource=%s", self._plural)
            return None
