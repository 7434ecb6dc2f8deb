"""The verbs of a resource over HTTP: what each request does and what it answers.

In: an authenticated request with its parsed path. Out: a response. Reads go to storage, writes to the writer;
this module joins them with selectors, shapes and streams. Subresources with a life of their own are in
:mod:`subresources`. A failed request has changed nothing.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import functools
import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from aiohttp import web

from kaito.local.apiserver.conversion import from_storage
from kaito.local.apiserver.copying import copied
from kaito.local.apiserver.crds import CrdKeeper
from kaito.local.apiserver.deletion import DeleteOptions
from kaito.local.apiserver.errors import (
    StatusError,
    conflict,
    method_not_allowed,
    status_success,
    too_large_revision,
)
from kaito.local.apiserver.hooks.converting import Converter
from kaito.local.apiserver.hooks.drafts import attributes, take
from kaito.local.apiserver.hooks.gate import Gate
from kaito.local.apiserver.hooks.matching import Attributes
from kaito.local.apiserver.negotiation import Shape, negotiate
from kaito.local.apiserver.reads import check_revision, check_watch_options, get, list_page
from kaito.local.apiserver.registry import ResourceType
from kaito.local.apiserver.render import Renderer
from kaito.local.apiserver.requests import Body, Options, Path, decode_body
from kaito.local.apiserver.selection import Selection
from kaito.local.apiserver.storage import Missing, Record, Stale, Storage
from kaito.local.apiserver.watches import Watch, error_event
from kaito.local.apiserver.writes import Draft, Outcome, Writer
from manager.types import Obj

__all__ = ["Call", "Handlers", "json_response"]

BOOKMARK_SECONDS = 60.0
_WATCH_SECONDS = 1800  # the least length of a watch that names none; the most is twice that
_ATTEMPTS = 5  # of a patch whose object changes under it
_RETURNED_WHEN_GONE = {
    "pods",
    "services",
    "serviceaccounts",
    "persistentvolumeclaims",
    "persistentvolumes",
    "replicationcontrollers",
    "resourcequotas",
    "podtemplates",
}


class Call:
    """One request for a resource."""

    def __init__(
        self,
        request: web.BaseRequest,
        path: Path,
        resource: ResourceType,
        clock: Callable[[], dt.datetime],
        user: Obj | None = None,
    ) -> None:
        self.request = request
        self.user: Obj = user or {}
        self.path = path
        self.resource = resource
        self.query: Mapping[str, str] = request.query
        self.options = Options.parse(self.query, request.headers.get("User-Agent", ""))
        self.shape: Shape = negotiate(request.headers.get("Accept", ""))
        self.renderer = Renderer(self.shape, self.query.get("includeObject", ""), clock)
        if resource.deprecation_warning:
            self.options.warnings.append(resource.deprecation_warning)

    @property
    def namespace(self) -> str:
        """The namespace of the path; empty for cluster-scoped resources and for all namespaces."""
        return self.path.namespace

    @property
    def content_type(self) -> str:
        """The media type of the body."""
        return self.request.headers.get("Content-Type", "application/json")

    async def body(self) -> Body:
        """The decoded request body."""
        raw = await self.request.read()
        return decode_body(raw, self.content_type, want_duplicates=self.options.field_validation != "Ignore")

    async def delete_options(self) -> DeleteOptions:
        """The options of a delete: those of the body over those of the query."""
        raw = await self.request.read()
        options = DeleteOptions.parse(decode_body(raw, self.content_type).obj() if raw.strip() else {})
        query = self.options
        if options.grace_seconds is None:
            options.grace_seconds = query.grace_seconds
        options.propagation = options.propagation or query.propagation
        options.orphan = query.orphan if options.orphan is None else options.orphan
        options.dry_run = options.dry_run or query.dry_run
        options.check()
        return options

    def respond(self, body: bytes, status: int = 200) -> web.Response:
        """A response of the negotiated type, with the warnings so far."""
        response = web.Response(body=body, status=status, content_type=self.shape.content_type)
        add_warnings(response, self.options.warnings)
        return response


def add_warnings(response: web.Response, warnings: Iterable[str]) -> None:
    """Tell the client these things besides (RFC 7234)."""
    for warning in warnings:
        text = warning.replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ")
        response.headers.add("Warning", f'299 - "{text}"')


def json_response(value: bytes, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """A JSON response of bytes that are JSON already."""
    return web.Response(body=value, status=status, content_type="application/json", headers=headers)


class Handlers:
    """Resource verbs."""

    def __init__(
        self,
        storage: Storage,
        writer: Writer,
        crds: CrdKeeper,
        clock: Callable[[], dt.datetime],
        gate: Gate,
        converter: Converter,
        *,
        bookmark_seconds: float = BOOKMARK_SECONDS,
    ) -> None:
        self.storage = storage
        self.writer = writer
        self.gate = gate
        self.converter = converter
        self._crds = crds
        self._clock = clock
        self._bookmark_seconds = bookmark_seconds
        self._stop = asyncio.Event()
        self._watches: set[Watch] = set()
        self._chance = random.Random()  # noqa: S311 - spreads the ends of watches

    def stop(self) -> None:
        """End every watch now."""
        self._stop.set()
        for watch in self._watches:
            watch.wake()

    @property
    def open_watches(self) -> int:
        """How many watches are open."""
        return len(self._watches)

    async def handle(self, call: Call) -> web.StreamResponse:
        """Answer a request that is for no special subresource."""
        method, path = call.request.method, call.path
        if not path.name:
            if method in ("GET", "HEAD"):
                if call.options.watch:
                    return await self._watch(call)
                return await self._list(call)
            if method == "POST":
                return await self._create(call)
            if method == "DELETE" and "deletecollection" in call.resource.verbs:
                return await self._delete_collection(call)
        elif method in ("GET", "HEAD"):
            if call.options.watch and not path.subresource:
                call.options.field_selector = f"metadata.name={path.name}"
                return await self._watch(call)
            return await self._get(call)
        elif method == "PUT":
            return await self._update(call)
        elif method == "PATCH":
            return await self._patch(call)
        elif method == "DELETE" and not path.subresource:
            return await self._delete(call)
        raise method_not_allowed()

    # ------------------------------------------------------------------ reads

    def _selection(self, call: Call) -> Selection:
        selectable: list[str] = []
        if call.resource.is_crd and call.options.field_selector:
            crd = self._crds.crd(call.resource) or {}
            for version in (crd.get("spec") or {}).get("versions") or ():
                if version.get("name") == call.resource.version:
                    selectable = [str(f.get("jsonPath")) for f in version.get("selectableFields") or ()]
        return Selection.parse(call.resource, call.options.label_selector, call.options.field_selector, selectable)

    async def _get(self, call: Call) -> web.Response:
        record = get(self.storage, call.resource, call.namespace, call.path.name)
        return call.respond(await self.converter.run(lambda: call.renderer.record(call.resource, record)))

    async def _list(self, call: Call) -> web.Response:
        namespace = call.namespace or None
        if call.resource.table is not None:
            await self.converter.prepare(call.resource, self.storage.all(call.resource.storage_key, namespace))

        def body() -> bytes:
            page = list_page(self.storage, call.resource, namespace, self._selection(call), call.options)
            return call.renderer.list(call.resource, page.records, page.meta)

        return call.respond(await self.converter.run(body))

    async def _watch(self, call: Call) -> web.StreamResponse:
        options = call.options
        check_watch_options(options)
        asked = check_revision(options.resource_version)
        initial = options.send_initial_events
        if initial and asked > self.storage.revision:
            raise too_large_revision(asked, self.storage.revision)
        # Without sendInitialEvents, "" and "0" mean: what is there first, then the changes.
        from_scratch = initial if initial is not None else not asked
        seconds = options.timeout_seconds or self._chance.randint(_WATCH_SECONDS, 2 * _WATCH_SECONDS)
        revision = None if from_scratch else (asked or self.storage.revision)
        watch = Watch(
            self.storage,
            call.resource,
            call.namespace or None,
            self._selection(call),
            revision=revision,
            bookmark_every=self._bookmark_seconds,
            bookmarks=options.bookmarks,
            initial_end=bool(initial),
            deadline=asyncio.get_running_loop().time() + seconds,
            stop=self._stop,
            prepare=self.converter.prepare,
        )
        response = web.StreamResponse(
            headers={"Content-Type": "application/json", "Cache-Control": "no-cache, private"}
        )
        response.enable_chunked_encoding()
        self._watches.add(watch)
        try:
            with watch:
                await response.prepare(call.request)
                headings = True
                try:
                    await self.converter.prepare(
                        call.resource, self.storage.all(call.resource.storage_key, call.namespace or None)
                    )
                    first = await self.converter.run(watch.start)
                except StatusError as error:
                    first = [error_event(error)]
                    await response.write(call.renderer.event(call.resource, first[0], headings=True))
                    await response.write_eof()
                    return response
                if first:
                    for start in range(0, len(first), 500):
                        lines = []
                        for event in first[start : start + 500]:
                            lines.append(call.renderer.event(call.resource, event, headings=headings))
                            headings = False
                        await response.write(b"".join(lines))
                try:
                    async for batch in watch.events():
                        lines = []
                        for event in batch:
                            lines.append(call.renderer.event(call.resource, event, headings=headings))
                            headings = False
                        await response.write(b"".join(lines))
                except StatusError as error:  # a conversion webhook failed
                    await response.write(call.renderer.event(call.resource, error_event(error), headings=False))
                await response.write_eof()
        except ConnectionError:
            pass  # the client has gone; nobody is left to tell
        finally:
            self._watches.discard(watch)
        return response

    # ------------------------------------------------------------------ writes

    async def _create(self, call: Call) -> web.Response:
        body = await call.body()

        def draft(body: Body) -> Draft:
            return self.writer.draft_create(call.resource, call.namespace, body, call.options)

        return await self._written(call, await self._commit(call, body, draft))

    async def _update(self, call: Call) -> web.Response:
        body = await call.body()
        path = call.path

        def draft(body: Body) -> Draft:
            return self.writer.draft_update(
                call.resource, call.namespace, path.name, path.subresource, body, call.options
            )

        return await self._written(call, await self._commit(call, body, draft))

    async def _patch(self, call: Call) -> web.Response:
        body = await call.body()
        path = call.path

        def draft(body: Body) -> Draft:
            return self.writer.draft_patch(
                call.resource,
                call.namespace,
                path.name,
                path.subresource,
                call.content_type,
                body,
                call.options,
            )

        return await self._written(call, await self._commit(call, body, draft))

    async def _commit(self, call: Call, body: Body, draft_of: Callable[[Body], Draft]) -> Outcome:
        """The second half of a write, in which admission webhooks have their say.

        They take time, in which the object may change. A write that names no version does not mind: it is drafted
        from the new state and admitted again, as on the real server.
        """
        if self.gate.open and call.resource.table is None:
            return self.writer.commit(draft_of(body))
        for attempt in range(_ATTEMPTS):
            draft = await self.converter.run(lambda: draft_of(replace(body, value=copied(body.value))))
            await self._admit(call, draft)
            try:
                return await self.converter.run(functools.partial(self.writer.commit, draft))
            except StatusError as error:
                raced = error.reason == "Conflict" or (
                    error.reason == "AlreadyExists" and call.request.method == "PATCH"
                )
                if not raced or attempt == _ATTEMPTS - 1:
                    raise
        raise AssertionError("unreachable")

    async def _admit(self, call: Call, draft: Draft) -> None:
        if self.gate.open:
            return
        try:
            await self._admitted(call, draft)
        except StatusError as error:
            error.warnings = call.options.warnings
            raise

    async def _admitted(self, call: Call, draft: Draft) -> None:
        warnings = call.options.warnings
        request = attributes(draft, call.user)
        changed = await self.gate.mutate(request, warnings)
        if changed is not None:
            take(draft, changed)
            request = attributes(draft, call.user)
        if self.gate.validators(request):
            complete = self.writer.rehearse(draft)
            await self.gate.validate(attributes(draft, call.user, obj=complete), warnings)

    async def admit_delete(self, call: Call, record: Record, options: DeleteOptions) -> None:
        """Let webhooks judge the deletion of one object."""
        if self.gate.open:
            return
        resource = call.resource
        request = Attributes(
            operation="DELETE",
            resource=resource,
            name=record.name,
            namespace=record.namespace,
            kind=(resource.group, resource.version, resource.kind),
            old=await self.converter.run(lambda: from_storage(resource, record.obj)),
            user=call.user,
            dry_run=options.dry_run,
            options=options.render(),
        )
        await self.gate.mutate(request, call.options.warnings)
        await self.gate.validate(request, call.options.warnings)

    async def _written(self, call: Call, outcome: Outcome) -> web.Response:
        status = 201 if outcome.created else 200
        obj = await self.converter.run(lambda: from_storage(call.resource, outcome.obj))
        return call.respond(call.renderer.object(call.resource, obj), status)

    async def _delete(self, call: Call) -> web.Response:
        options = await call.delete_options()
        name = call.path.name
        await self.admit_delete(call, get(self.storage, call.resource, call.namespace, name), options)
        try:
            deleted = self.writer.delete(call.resource, call.namespace, name, options)
        except (Stale, Missing):
            raise conflict(call.resource, name) from None
        if deleted.gone and not (not call.resource.group and call.resource.plural in _RETURNED_WHEN_GONE):
            status: Obj = status_success(call.resource, name, deleted.obj["metadata"].get("uid", ""))
            return call.respond(
                Renderer(Shape(yaml=call.shape.yaml), "", self._clock).object(call.resource, status)
            )
        obj = await self.converter.run(lambda: from_storage(call.resource, deleted.obj))
        return call.respond(call.renderer.object(call.resource, obj))

    async def _delete_collection(self, call: Call) -> web.Response:
        options = await call.delete_options()
        selection = self._selection(call)
        listing = functools.partial(
            list_page, self.storage, call.resource, call.namespace or None, selection, call.options
        )
        page = await self.converter.run(listing)
        objects: list[Obj] = []
        for index, record in enumerate(page.records):
            try:
                await self.admit_delete(call, record, options)
                deleted = self.writer.delete(call.resource, record.namespace, record.name, options)
                view = functools.partial(from_storage, call.resource, deleted.obj)
                objects.append(await self.converter.run(view))
            except StatusError as error:
                if error.code != 404:
                    raise
            except Missing:
                continue
            if index % 100 == 99:
                await asyncio.sleep(0)
        return call.respond(call.renderer.objects(call.resource, objects, page.meta))
