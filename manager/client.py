"""Every request to an API server: typed in its verbs, untyped in its objects.

In: a ``RestConfig``. Out: plain dicts, or errors of ``manager.errors``. A write goes to the server at once;
nothing is cached here. :meth:`Client.with_defaults`, :meth:`Client.in_namespace` and :meth:`Client.metadata_only`
give the same client with something fixed; they share its connections. Semantics: Kubernetes API concepts, "verbs",
"server-side apply", "efficient detection of changes"; controller-runtime's client.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from types import TracebackType
from typing import Self

from manager import verbs
from manager.config import RestConfig
from manager.errors import InvalidRequest
from manager.patches import merge_patch
from manager.reads import Body, Reads
from manager.reads import ObjectList as ObjectList
from manager.reads import WatchOptions as WatchOptions
from manager.rest_metrics import RestObserver
from manager.throttle import RateLimit
from manager.transport import REQUEST_SECONDS, Transport
from manager.types import Obj, Resource
from manager.verbs import FieldValidation as FieldValidation
from manager.verbs import PatchType as PatchType
from manager.watch import WatchEvent as WatchEvent
from manager.writes import Write, WriteObserver

_Target = tuple[str, str, Resource, str | None, str, str | None]  # verb, method, and what Write is made of


class _Shared:
    """What a client and its views have in common."""

    def __init__(self, write_observer: WriteObserver | None) -> None:
        self.write_observer = write_observer


class Client(Reads):
    """A client of one API server. Use it as an async context manager, or call :meth:`close`.

    All verbs raise ``ApiError`` and its kinds for what a server answers, ``ConnectionFailed`` when there is no
    answer, ``ConfigError`` when there are no credentials, and ``InvalidRequest`` for what was not even sent.

    Args:
        config: where and as whom.
        user_agent: shown in the server's audit log.
        field_manager: owner of the fields that writes set, unless a call names another; at most 128 bytes.
        field_validation: what the server does about unknown fields, unless a call says otherwise; None leaves it
            to the server (Warn).
        dry_run: no write changes anything.
        observer: told of every finished request, for metrics.
        write_observer: told of every write of one object; may also be set later.
        on_warning: called with each different warning of the server, once; default logs it.
        rate_limit: of requests; None: the server's own (priority and fairness) is enough.
        timeout: seconds that one request may take; streams have limits of their own.
    """

    def __init__(
        self,
        config: RestConfig,
        *,
        user_agent: str = "kaito",
        field_manager: str = "kaito",
        field_validation: FieldValidation | None = None,
        dry_run: bool = False,
        observer: RestObserver | None = None,
        write_observer: WriteObserver | None = None,
        on_warning: Callable[[str], None] | None = None,
        rate_limit: RateLimit | None = None,
        timeout: float = REQUEST_SECONDS,
    ) -> None:
        verbs.write_query(field_manager, False, None)  # a bad name is refused here, not at the first write
        super().__init__(
            Transport(
                config,
                user_agent=user_agent,
                observer=observer,
                rate_limit=rate_limit,
                timeout=timeout,
                on_warning=on_warning,
            )
        )
        self.config = config
        self.field_manager = field_manager
        self._field_validation = field_validation
        self._dry_run = dry_run
        self._is_view = False
        self._shared = _Shared(write_observer)

    def __repr__(self) -> str:
        words = [f"<Client {self._transport.base} as {self.field_manager}"]
        words += [f"in {self._namespace}"] if self._namespace else []
        words += ["metadata-only"] if self._metadata_only else []
        words += ["dry-run"] if self._dry_run else []
        return " ".join(words) + ">"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections; running watches, and every later request, end with ``ConnectionFailed``. A view
        closes nothing."""
        if not self._is_view:
            await self._transport.close()

    @property
    def write_observer(self) -> WriteObserver | None:
        """Who is told of every write of one object, through this client and all its views."""
        return self._shared.write_observer

    @write_observer.setter
    def write_observer(self, observer: WriteObserver | None) -> None:
        self._shared.write_observer = observer

    # ------------------------------------------------------------------ views

    def with_defaults(
        self,
        *,
        field_manager: str | None = None,
        field_validation: FieldValidation | None = None,
        dry_run: bool = False,
    ) -> Self:
        """This client with other defaults for writes; a dry run cannot be undone."""
        view = self._view()
        if field_manager is not None:
            verbs.write_query(field_manager, False, None)
            view.field_manager = field_manager
        view._field_validation = field_validation or self._field_validation
        view._dry_run = self._dry_run or dry_run
        return view

    def in_namespace(self, namespace: str) -> Self:
        """This client confined to one namespace: it need not be named, another one is ``InvalidRequest``, and so
        is a cluster-scoped resource. :meth:`request`, :meth:`text` and :meth:`stream_lines` take paths and are
        not confined."""
        verbs.segment(namespace, "namespace")
        if self._namespace is not None and namespace != self._namespace:
            raise InvalidRequest(f"a client of namespace {self._namespace} cannot work in {namespace}")
        view = self._view()
        view._namespace = namespace
        return view

    def metadata_only(self) -> Self:
        """This client without contents: objects have apiVersion, kind and metadata, whatever their kind. They can
        be read, watched, patched and deleted; ``create``, ``replace`` and ``apply`` are ``InvalidRequest``."""
        view = self._view()
        view._metadata_only = True
        return view

    def _view(self) -> Self:
        view = copy.copy(self)
        view._is_view = True
        return view

    # ------------------------------------------------------------------ writes

    async def create(
        self,
        resource: Resource,
        obj: Obj,
        *,
        namespace: str | None = None,
        name: str | None = None,
        subresource: str | None = None,
        dry_run: bool = False,
        field_manager: str | None = None,
        field_validation: FieldValidation | None = None,
    ) -> Obj:
        """Create an object; apiVersion and kind may be left out. Raises ``AlreadyExists``.

        With ``subresource`` (``eviction``, ``binding``, ``token``) it is created under the object ``name``; the
        answer is then what that subresource answers, often a Status.
        """
        self._refuse_metadata_only("created")
        meta = obj.get("metadata") or {}
        where = self._confined(resource, namespace or meta.get("namespace"))
        name = name or str(meta.get("name") or "")
        if subresource:
            path = verbs.object_path(resource, where, name, subresource)
        else:
            path = verbs.collection_path(resource, where)
        query = self._write_query(dry_run, field_manager, field_validation)
        write = ("create", "POST", resource, where, name, subresource)
        return await self._write(write, path + query, verbs.typed(resource, obj, subresource), verbs.JSON, dry_run)

    async def replace(
        self,
        resource: Resource,
        obj: Obj,
        *,
        namespace: str | None = None,
        name: str | None = None,
        subresource: str | None = None,
        dry_run: bool = False,
        field_manager: str | None = None,
        field_validation: FieldValidation | None = None,
    ) -> Obj:
        """Replace a whole object; raises ``Conflict`` unless its resourceVersion is the current one."""
        self._refuse_metadata_only("replaced")
        where, name = self._named(resource, obj, namespace, name)
        path = verbs.object_path(resource, where, name, subresource)
        query = self._write_query(dry_run, field_manager, field_validation)
        write = ("update", "PUT", resource, where, name, subresource)
        return await self._write(write, path + query, verbs.typed(resource, obj, subresource), verbs.JSON, dry_run)

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
        field_manager: str | None = None,
        field_validation: FieldValidation | None = None,
    ) -> Obj:
        """Change parts of an object. A ``metadata.resourceVersion`` in a merge patch makes it conditional."""
        if self._namespace is not None:
            namespace = self._confined(resource, namespace)
        path = verbs.object_path(resource, namespace, name, subresource)
        query = self._write_query(dry_run, field_manager, field_validation)
        write = ("patch", "PATCH", resource, namespace, name, subresource)
        answer = await self._write(write, path + query, patch, type, dry_run)
        return verbs.metadata_of(resource, answer) if self._metadata_only else answer

    async def patch_status(
        self,
        resource: Resource,
        obj: Obj,
        status: Obj,
        *,
        optimistic_lock: bool = False,
        dry_run: bool = False,
        field_manager: str | None = None,
    ) -> Obj:
        """Make the status of an object, as it was read, this one; if it is so already nothing is sent, and ``obj``
        is the answer. What changed goes as a merge patch to the status subresource.

        Args:
            optimistic_lock: raise ``Conflict`` if the object is no longer as it was read.
        """
        if not (patch := merge_patch({"status": obj.get("status") or {}}, {"status": status})):
            return obj
        meta = obj.get("metadata") or {}
        if optimistic_lock:
            patch = merge_patch(obj, {**obj, "status": status}, optimistic_lock=True)
        return await self.patch(
            resource,
            str(meta.get("name") or ""),
            patch,
            namespace=meta.get("namespace"),
            subresource="status",
            dry_run=dry_run,
            field_manager=field_manager,
        )

    async def apply(
        self,
        resource: Resource,
        obj: Obj,
        *,
        namespace: str | None = None,
        name: str | None = None,
        field_manager: str | None = None,
        force: bool = True,
        subresource: str | None = None,
        dry_run: bool = False,
    ) -> Obj:
        """Server-side apply: create the object or make the given fields so; fields left out are given up.

        Unknown fields are refused, whatever the defaults. managedFields, if there are any, are not sent.

        Raises:
            ApplyConflict: without ``force``, when fields belong to other managers; it names them.
        """
        self._refuse_metadata_only("applied")
        where, name = self._named(resource, obj, namespace, name)
        path = verbs.object_path(resource, where, name, subresource)
        manager = self.field_manager if field_manager is None else field_manager
        if not manager:
            raise InvalidRequest("an apply needs a field manager")
        query = verbs.write_query(manager, dry_run or self._dry_run, FieldValidation.STRICT, force)
        write = ("apply", "PATCH", resource, where, name, subresource)
        body = verbs.applied(verbs.typed(resource, obj, subresource))
        return await self._write(write, path + query, body, PatchType.APPLY, dry_run)

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
        dry_run: bool = False,
    ) -> None:
        """Ask for deletion; finalizers may keep the object a while. Raises ``NotFound``, or ``Conflict`` when the
        object is not the one with this uid or resource version."""
        where = self._confined(resource, namespace)
        options = verbs.delete_options(
            propagation=propagation,
            grace_seconds=grace_seconds,
            dry_run=dry_run or self._dry_run,
            uid=uid,
            resource_version=resource_version,
        )
        write = ("delete", "DELETE", resource, where, name, None)
        await self._write(write, verbs.object_path(resource, where, name, None), options, verbs.JSON, dry_run)

    async def delete_all_of(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        label_selector: str | None = None,
        field_selector: str | None = None,
        propagation: str | None = None,
        grace_seconds: int | None = None,
        dry_run: bool = False,
    ) -> None:
        """Ask for the deletion of all objects of a collection that are selected. One request; no write observer is
        told. Raises ``MethodNotAllowed`` for kinds that have no such verb."""
        options = verbs.delete_options(
            propagation=propagation, grace_seconds=grace_seconds, dry_run=dry_run or self._dry_run
        )
        query = {"labelSelector": label_selector, "fieldSelector": field_selector}
        await self.request("DELETE", self._collection(resource, namespace), query=query, body=options)

    # ------------------------------------------------------------------ common to all writes

    async def _write(self, write: _Target, target: str, body: Body, content: str, dry_run: bool) -> Obj:
        """Send it, and tell the observer before and after, whatever comes of it."""
        observer = self._shared.write_observer
        headers = verbs.HEADERS[content, self._metadata_only]
        if observer is None:
            return await self.send(write[1], target, body, headers)
        verb, method, resource, namespace, name, subresource = write
        place = namespace if resource.namespaced and namespace else ""
        token = observer.began(Write(verb, resource, place, name, subresource, dry_run or self._dry_run))
        try:
            answer = await self.send(method, target, body, headers)
        except BaseException:
            observer.ended(token, None)
            raise
        observer.ended(token, answer)
        return answer

    def _write_query(
        self, dry_run: bool, field_manager: str | None, field_validation: FieldValidation | None
    ) -> str:
        return verbs.write_query(
            self.field_manager if field_manager is None else field_manager,
            dry_run or self._dry_run,
            field_validation or self._field_validation,
        )

    def _named(
        self, resource: Resource, obj: Obj, namespace: str | None, name: str | None
    ) -> tuple[str | None, str]:
        meta = obj.get("metadata") or {}
        return self._confined(resource, namespace or meta.get("namespace")), name or str(meta.get("name") or "")

    def _refuse_metadata_only(self, done: str) -> None:
        if self._metadata_only:
            raise InvalidRequest(f"an object of which only the metadata is known cannot be {done}; patch it")
