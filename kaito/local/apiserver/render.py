"""Objects, lists and watch events as response bytes, in the shape that the client asked for.

In: stored records or objects at the request's version. Out: bytes. Stored JSON is sent as it lies in storage
wherever shape and version allow: a list of a thousand pods is then a join of byte strings.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable
from typing import Literal, cast

import orjson

from kaito.local.apiserver.conversion import from_storage
from kaito.local.apiserver.negotiation import Shape, encode
from kaito.local.apiserver.registry import ResourceType
from kaito.local.apiserver.storage import Record
from kaito.local.apiserver.tables import render_table
from kaito.local.apiserver.watches import Event
from manager.types import Obj

__all__ = ["Renderer"]

Include = Literal["Metadata", "None", "Object"]


class Renderer:
    """Renders for one request."""

    def __init__(self, shape: Shape, include: str, clock: Callable[[], dt.datetime]) -> None:
        self.shape = shape
        self._include: Include = cast("Include", include if include in ("None", "Object") else "Metadata")
        self._clock = clock  # asked for every table: a watch renders its rows over minutes

    def object(self, resource: ResourceType, obj: Obj, raw: bytes | None = None) -> bytes:
        """One object."""
        if self.shape.form == "full" and not self.shape.yaml and raw is not None:
            return raw
        return encode(self.shape, self._shaped(resource, obj))

    def record(self, resource: ResourceType, record: Record) -> bytes:
        """One stored object."""
        raw = record.raw if resource.is_storage_version else None
        return self.object(resource, from_storage(resource, record.obj), raw)

    def list(self, resource: ResourceType, records: Iterable[Record], meta: Obj) -> bytes:
        """A list."""
        shape = self.shape
        if shape.form == "full" and not shape.yaml and resource.is_storage_version:
            head = orjson.dumps({"kind": resource.list_kind, "apiVersion": resource.api_version, "metadata": meta})
            return b'%s,"items":[%s]}' % (head[:-1], b",".join(record.raw for record in records))
        objects = [from_storage(resource, record.obj) for record in records]
        return encode(shape, self._list(resource, objects, meta))

    def objects(self, resource: ResourceType, objects: Iterable[Obj], meta: Obj) -> bytes:
        """A list of objects that are not in storage any more."""
        return encode(self.shape, self._list(resource, objects, meta))

    def _list(self, resource: ResourceType, objects: Iterable[Obj], meta: Obj) -> Obj:
        form = self.shape.form
        if form == "table":
            return self._table(resource, objects, meta)
        if form in ("partial", "partial-list"):
            return {
                "kind": "PartialObjectMetadataList",
                "apiVersion": f"meta.k8s.io/{self.shape.version}",
                "metadata": meta,
                "items": [self._partial(obj) for obj in objects],
            }
        return {
            "kind": resource.list_kind,
            "apiVersion": resource.api_version,
            "metadata": meta,
            "items": [*objects],
        }

    def _shaped(self, resource: ResourceType, obj: Obj) -> Obj:
        if self.shape.form == "table":
            return self._table(resource, [obj], {"resourceVersion": obj["metadata"].get("resourceVersion", "")})
        if self.shape.form == "partial":
            return self._partial(obj)
        return obj

    def _partial(self, obj: Obj) -> Obj:
        return {
            "kind": "PartialObjectMetadata",
            "apiVersion": f"meta.k8s.io/{self.shape.version}",
            "metadata": obj["metadata"],
        }

    def _table(self, resource: ResourceType, objects: Iterable[Obj], meta: Obj, *, headings: bool = True) -> Obj:
        table = render_table(
            resource, objects, now=self._clock(), include=self._include, list_meta=meta, headings=headings
        )
        table["apiVersion"] = f"meta.k8s.io/{self.shape.version}"
        return table

    def event(self, resource: ResourceType, event: Event, *, headings: bool) -> bytes:
        """One line of a watch stream."""
        shape = self.shape
        if event.type == "ERROR" or shape.form == "full":
            raw = event.raw or orjson.dumps(event.obj)
        elif shape.form == "table":
            meta = {"resourceVersion": event.obj["metadata"]["resourceVersion"]}
            objects = [] if event.type == "BOOKMARK" else [event.obj]
            raw = orjson.dumps(self._table(resource, objects, meta, headings=headings))
        else:
            raw = orjson.dumps(self._partial(event.obj))
        return b'{"type":"%s","object":%s}\n' % (event.type.encode(), raw)
