"""Every request to an API server: typed in its verbs, untyped in its objects.

In: a ``RestConfig``. Out: plain dicts, or errors of ``manager.errors``. A write goes to the server at once;
nothing is cached here. Semantics: Kubernetes API concepts, "verbs", "server-side apply",
"efficient detection of changes".
"""

from __future__ import annotations

import builtins
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from enum import StrEnum
from types import TracebackType
from typing import Self, TypedDict, Unpack

import orjson

from manager.config import RestConfig
from manager.errors import ApiError, NotFound
from manager.rest_metrics import RestObserver
from manager.transport import Query, Transport
from manager.types import Obj, Resource
from manager.watch import (
    ACCEPT_METADATA,
    ACCEPT_METADATA_LIST,
    ACCEPT_OBJECTS,
    INACTIVITY_SECONDS,
    WATCH_SLACK,
    decode,
    table_refused,
    watch_events,
)
from manager.watch import WatchEvent as WatchEvent

_PAGE = 500


class PatchType(StrEnum):
    """The kinds of patch; the values are the content types."""

    JSON = "application/json-patch+json"
    MERGE = "application/merge-patch+json"
    STRATEGIC = "application/strategic-merge-patch+json"
    APPLY = "application/apply-patch+yaml"


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


Body = Obj | list[Obj]


class Client:
    """A client of one API server. Use it as an async context manager, or call :meth:`close`.

    Args:
        config: where and as whom.
        user_agent: shown in the server's audit log.
        field_manager: owner of the fields that writes set, unless a call names another.
        observer: told of every finished request, for metrics.
    """

    def __init__(
        self,
        config: RestConfig,
        *,
        user_agent: str = "kaito",
        field_manager: str = "kaito",
        observer: RestObserver | None = None,
    ) -> None:
        self.config = config
        self.field_manager = field_manager
        self._transport = Transport(config, user_agent=user_agent, observer=observer)

    def __repr__(self) -> str:
        return f"<Client {self._transport.base} as {self.field_manager}>"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections; running watches, and every later request, end with ``ConnectionFailed``."""
        await self._transport.close()

    # ------------------------------------------------------------------ verbs

    async def get(
        self, resource: Resource, name: str, namespace: str | None = None, *, resource_version: str | None = None
    ) -> Obj:
        """One object. Raises ``NotFound``."""
        return await self.request(
            "GET", resource.path(namespace, name), query={"resourceVersion": resource_version}
        )

    async def list(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        label_selector: str | None = None,
        field_selector: str | None = None,
        limit: int | None = None,
        resource_version: str | None = None,
    ) -> ObjectList:
        """The whole collection, fetched page by page; ``limit`` is the size of a page.

        If the token of a later page has expired, the whole list is asked for once more without pages.
        """
        query: dict[str, str | int | bool | None] = {
            "labelSelector": label_selector,
            "fieldSelector": field_selector,
            "limit": _PAGE if limit is None else limit or None,
            "resourceVersion": resource_version,
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
            token = page.continue_token
            if not token:
                return ObjectList(items, page.resource_version)
            query["resourceVersion"] = None  # a continuation carries its version in the token

    async def list_page(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        query: Query | None = None,
        metadata_only: bool = False,
    ) -> ObjectList:
        """One page, exactly as asked for. Items carry apiVersion and kind.

        ``metadata_only``: the server leaves out everything but the metadata (``PartialObjectMetadata``).
        """
        headers = {"Accept": ACCEPT_METADATA_LIST} if metadata_only else None
        reply = await self.request("GET", resource.path(namespace), query=query, headers=headers)
        if reply.get("kind") == "Table":
            raise table_refused()
        metadata = reply.get("metadata") or {}
        items = reply.get("items") or []
        for item in items:
            item.setdefault("apiVersion", resource.api_version)
            item.setdefault("kind", resource.kind)
        return ObjectList(items, str(metadata.get("resourceVersion", "")), str(metadata.get("continue", "")))

    async def create(
        self, resource: Resource, obj: Obj, *, namespace: str | None = None, dry_run: bool = False
    ) -> Obj:
        """Create an object; apiVersion and kind may be left out. Raises ``AlreadyExists``."""
        where = namespace or obj.get("metadata", {}).get("namespace")
        return await self.request(
            "POST", resource.path(where), query=self._write(dry_run), body=_typed(resource, obj)
        )

    async def replace(
        self, resource: Resource, obj: Obj, *, subresource: str | None = None, dry_run: bool = False
    ) -> Obj:
        """Replace a whole object; raises ``Conflict`` unless its resourceVersion is the current one."""
        meta = obj["metadata"]
        path = resource.path(meta.get("namespace"), meta["name"], subresource)
        return await self.request("PUT", path, query=self._write(dry_run), body=_typed(resource, obj))

    async def patch(
        self,
        resource: Resource,
        name: str,
        patch: Body,
        *,
        namespace: str | None = None,
        type: PatchType = PatchType.MERGE,
        subresource: str | None = None,
        dry_run: bool = False,
    ) -> Obj:
        """Change parts of an object. A ``metadata.resourceVersion`` in a merge patch makes it conditional."""
        return await self.request(
            "PATCH",
            resource.path(namespace, name, subresource),
            query=self._write(dry_run),
            body=patch,
            headers={"Content-Type": type.value},
        )

    async def apply(
        self,
        resource: Resource,
        obj: Obj,
        *,
        field_manager: str | None = None,
        force: bool = True,
        subresource: str | None = None,
        dry_run: bool = False,
    ) -> Obj:
        """Server-side apply: create the object or make the given fields so; fields left out are given up."""
        meta = obj["metadata"]
        return await self.request(
            "PATCH",
            resource.path(meta.get("namespace"), meta["name"], subresource),
            query={**self._write(dry_run, field_manager), "force": force},
            body=_typed(resource, obj),
            headers={"Content-Type": PatchType.APPLY.value},
        )

    async def delete(
        self,
        resource: Resource,
        name: str,
        namespace: str | None = None,
        *,
        propagation: str | None = None,
        grace_seconds: int | None = None,
        uid: str | None = None,
        resource_version: str | None = None,
    ) -> None:
        """Ask for deletion; finalizers may keep the object a while. Raises ``NotFound``, or ``Conflict`` when the
        object is not the one with this uid or resource version."""
        preconditions = {"uid": uid, "resourceVersion": resource_version}
        body: Obj = {"apiVersion": "v1", "kind": "DeleteOptions"}
        if propagation is not None:
            body["propagationPolicy"] = propagation
        if grace_seconds is not None:
            body["gracePeriodSeconds"] = grace_seconds
        if uid or resource_version:
            body["preconditions"] = {key: value for key, value in preconditions.items() if value}
        await self.request("DELETE", resource.path(namespace, name), body=body)

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
            ConnectionFailed: the connection broke; ``StreamSilent``: it was silent, and bookmarks were asked for.
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
            resource.path(namespace),
            query,
            silence=silence if allow_bookmarks else None,
            total=timeout_seconds + WATCH_SLACK if timeout_seconds else None,
            accept=ACCEPT_METADATA if metadata_only else ACCEPT_OBJECTS,
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
            for entry in listing.get("resources", []):
                if entry.get("kind") == kind and "/" not in entry.get("name", ""):
                    return Resource(group, version, entry["name"], kind, bool(entry.get("namespaced")))
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
        """One request with a JSON answer, which must be an object."""
        data = orjson.dumps(body) if body is not None else None
        raw = await self._transport.request(method, path, query, data, headers)
        return decode(raw) if raw else {}

    async def text(self, path: str, *, query: Query | None = None) -> str:
        """GET with an answer that is text."""
        return (await self._transport.request("GET", path, query, None, {"Accept": "*/*"})).decode(
            "utf-8", "replace"
        )

    def _write(self, dry_run: bool, field_manager: str | None = None) -> dict[str, str | int | bool | None]:
        return {"fieldManager": field_manager or self.field_manager, "dryRun": "All" if dry_run else None}


def _typed(resource: Resource, obj: Obj) -> Obj:
    return {"apiVersion": resource.api_version, "kind": resource.kind, **obj}
