"""The half of a client that reads: objects, collections, streams of changes, and what a server serves.

In: a transport, and what a view has fixed (a namespace, or metadata only). Out: plain dicts. Nothing is cached.
Semantics: Kubernetes API concepts, "retrieving large result sets in chunks", "efficient detection of changes",
"metadata-only".
"""

from __future__ import annotations

import builtins
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import TypedDict, Unpack

import orjson

from manager import listbody, verbs
from manager.errors import ApiError, ConnectionFailed, InvalidRequest, NotFound
from manager.transport import Query, Transport, header_lines, target_of
from manager.types import Obj, Resource
from manager.watch import (
    ACCEPT_METADATA,
    ACCEPT_METADATA_LIST,
    ACCEPT_OBJECTS,
    INACTIVITY_SECONDS,
    WATCH_SLACK,
    WatchEvent,
    decode,
    table_refused,
    watch_events,
)

_PAGE = 500
_LIST_HEADERS = [header_lines({"Accept": accept}) for accept in (ACCEPT_OBJECTS, ACCEPT_METADATA_LIST)]

Body = Obj | list[Obj]


@dataclass(frozen=True, slots=True)
class ObjectList:
    """A collection as it was at one resource version."""

    items: list[Obj]
    resource_version: str
    continue_token: str = ""


class WatchOptions(TypedDict, total=False):
    """What :meth:`Client.watch_batches` takes by name."""

    resource_version: str | None
    label_selector: str | None
    field_selector: str | None
    timeout_seconds: int | None
    allow_bookmarks: bool
    send_initial_events: bool
    metadata_only: bool
    silence: float | None


class Reads:
    """See the module; ``Client`` is the public face."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._namespace: str | None = None
        self._metadata_only = False

    # ------------------------------------------------------------------ objects

    async def get(
        self,
        resource: Resource,
        name: str,
        namespace: str | None = None,
        *,
        resource_version: str | None = None,
        subresource: str | None = None,
    ) -> Obj:
        """One object, or its subresource. Raises ``NotFound``."""
        if self._namespace is not None:
            namespace = self._confined(resource, namespace)
        target = verbs.object_path(resource, namespace, name, subresource)
        if resource_version is not None:
            target = target_of(target, {"resourceVersion": resource_version})
        answer = await self.send("GET", target, None, verbs.HEADERS[None, self._metadata_only])
        return verbs.metadata_of(resource, answer) if self._metadata_only else answer

    async def list(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        label_selector: str | None = None,
        field_selector: str | None = None,
        limit: int | None = None,
        resource_version: str | None = None,
        resource_version_match: str | None = None,
    ) -> ObjectList:
        """The whole collection, fetched page by page; ``limit`` is the size of a page.

        If the token of a later page has expired, the whole list is asked for once more without pages.
        """
        query: dict[str, str | int | bool | None] = {
            "labelSelector": label_selector,
            "fieldSelector": field_selector,
            "limit": _PAGE if limit is None else limit or None,
            "resourceVersion": resource_version,
            "resourceVersionMatch": resource_version_match,
        }
        items: list[Obj] = []
        token = ""
        while True:
            try:
                page = await self.list_page(resource, namespace, query={**query, "continue": token or None})
            except ApiError as error:
                if not token or error.status != 410:
                    raise
                return await self.list_page(resource, namespace, query={**query, "limit": None})
            items += page.items
            if token and page.continue_token == token:
                raise ConnectionFailed(f"the server's list of {resource.plural} comes back to the same page")
            token = page.continue_token
            if not token:
                return ObjectList(items, page.resource_version)
            # A continuation carries its version in the token.
            query["resourceVersion"] = query["resourceVersionMatch"] = None

    async def list_page(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        query: Query | None = None,
        metadata_only: bool = False,
        each: Callable[[Obj], Obj | None] = lambda item: item,
    ) -> ObjectList:
        """One page, exactly as asked for. Items carry apiVersion and kind.

        Args:
            metadata_only: the server leaves out everything but the metadata (``PartialObjectMetadata``).
            each: called with every item as it is decoded; what it returns takes the item's place, None leaves it
                out. What it drops is never in memory for more than one item at a time.
        """
        target = target_of(self._collection(resource, namespace), query)
        partial = metadata_only or self._metadata_only
        raw = await self._transport.request("GET", target, None, _LIST_HEADERS[partial])
        make = each
        if self._metadata_only:
            make = lambda item: each(verbs.metadata_of(resource, item))  # noqa: E731 - a hook around a hook
        try:
            envelope, items = await listbody.decode(raw, resource.api_version, resource.kind, make)
        except orjson.JSONDecodeError as error:
            raise ConnectionFailed(f"the server's answer is not JSON: {bytes(raw[:120])!r}") from error
        if envelope.get("kind") == "Table":
            raise table_refused()
        metadata = envelope.get("metadata") or {}
        if not isinstance(metadata, dict):
            raise ConnectionFailed(f"the server's answer to GET {target} is no list of objects")
        return ObjectList(items, str(metadata.get("resourceVersion", "")), str(metadata.get("continue", "")))

    async def watch(
        self, resource: Resource, namespace: str | None = None, **options: Unpack[WatchOptions]
    ) -> AsyncGenerator[WatchEvent, None]:
        """As :meth:`watch_batches`, one event at a time. Who leaves the loop early closes the generator
        (``contextlib.aclosing``), so that the connection ends there and then."""
        async with aclosing(self.watch_batches(resource, namespace, **options)) as batches:
            async for batch in batches:
                for event in batch:
                    yield event

    def watch_batches(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        resource_version: str | None = None,
        label_selector: str | None = None,
        field_selector: str | None = None,
        timeout_seconds: int | None = None,
        allow_bookmarks: bool = True,
        send_initial_events: bool = False,
        metadata_only: bool = False,
        silence: float | None = INACTIVITY_SECONDS,
    ) -> AsyncGenerator[builtins.list[WatchEvent], None]:
        """Changes after a resource version, until the server ends the stream; in batches as read.

        Args:
            send_initial_events: first every object that is there as ADDED, then a bookmark that is marked as their
                end (a streamed list); servers before 1.27 do not know it.
            metadata_only: the objects are ``PartialObjectMetadata``.
            silence: seconds without a byte after which the peer counts as gone; holds only with bookmarks.

        Raises:
            ApiError: the watch could not be opened, or an ERROR event came (``Gone`` when the version is too old).
            ConnectionFailed: the connection broke.
            StreamSilent: it was silent although bookmarks were asked for.
        """
        query: dict[str, str | int | bool | None] = {
            "watch": True,
            "resourceVersion": resource_version,
            "labelSelector": label_selector,
            "fieldSelector": field_selector,
            "timeoutSeconds": timeout_seconds,
            "allowWatchBookmarks": allow_bookmarks or None,
        }
        if send_initial_events:
            query |= {"sendInitialEvents": True, "resourceVersionMatch": "NotOlderThan"}
        return watch_events(
            self._transport,
            self._collection(resource, namespace),
            query,
            silence=silence if allow_bookmarks else None,
            total=timeout_seconds + WATCH_SLACK if timeout_seconds else None,
            accept=ACCEPT_METADATA if metadata_only or self._metadata_only else ACCEPT_OBJECTS,
        )

    async def stream_lines(self, path: str, *, query: Query | None = None) -> AsyncGenerator[bytes, None]:
        """The lines of an answer as they come, such as a pod's log; without limits on length or silence."""
        async with aclosing(self._transport.stream(path, query, silence=None, total=None)) as batches:
            async for lines in batches:
                for line in lines:
                    yield line

    async def discover(self, group: str, kind: str, *versions: str) -> Resource | None:
        """The resource of a kind in the first of these versions that the server serves, or None.

        Raises:
            ApiError: discovery itself failed (anything but 404).
        """
        for version in versions:
            path = f"/apis/{group}/{version}" if group else f"/api/{version}"
            try:
                listing = await self.request("GET", path)
            except NotFound:
                continue
            try:
                for entry in listing.get("resources") or []:
                    if entry.get("kind") == kind and "/" not in entry["name"]:
                        return Resource(group, version, entry["name"], kind, bool(entry.get("namespaced")))
            except (AttributeError, KeyError, TypeError) as error:
                raise ConnectionFailed(f"the server's answer to {path} is no list of resources") from error
        return None

    # ------------------------------------------------------------------ requests

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Query | None = None,
        body: Body | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Obj:
        """One request with a JSON answer, which must be an object. No default of the client applies."""
        lines = {"Accept": "application/json"}
        if body is not None:
            lines["Content-Type"] = "application/json"
        lines |= headers or {}
        return await self.send(method, target_of(path, query), body, header_lines(lines))

    async def send(self, method: str, target: str, body: Body | None, headers: bytes) -> Obj:
        """Every request of every verb that is answered with an object, as it goes out; for subclasses that look on
        or interfere. ``target`` is the encoded path and query, ``headers`` are complete lines."""
        data = verbs.encoded(body) if body is not None else None
        raw = await self._transport.request(method, target, data, headers)
        return decode(raw) if raw else {}

    async def text(self, path: str, *, query: Query | None = None) -> str:
        """GET with an answer that is text."""
        raw = await self._transport.request("GET", target_of(path, query), None, b"Accept: */*\r\n")
        return raw.decode("utf-8", "replace")

    # ------------------------------------------------------------------ what a view allows

    def _collection(self, resource: Resource, namespace: str | None) -> str:
        return verbs.collection_path(resource, self._confined(resource, namespace))

    def _confined(self, resource: Resource, namespace: str | None) -> str | None:
        """The namespace to work in."""
        if self._namespace is None:
            return namespace
        if not resource.namespaced:
            raise InvalidRequest(f"{resource.plural} have no namespace, and this client is of {self._namespace}")
        if namespace and namespace != self._namespace:
            raise InvalidRequest(f"a client of namespace {self._namespace} cannot work in {namespace}")
        return self._namespace
