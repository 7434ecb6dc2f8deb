"""Admission: from a request to a response, by code that users write on plain dicts.

A handler takes an :class:`AdmissionRequest` and returns a :class:`Response`. Most programs write none: they have a
``Validator`` or a ``Defaulter`` and the adapters here make handlers of them. Both may be synchronous or not, raise
``Denied`` or an ``ApiError`` to refuse, and find user, operation, dry run and old object in the request. Whatever
else is raised is a bug of theirs: it is counted, logged and answered with 500 and the request's uid.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol, TypeVar, cast

import orjson

from manager.errors import ApiError, ManagerError
from manager.types import Obj, Resource
from manager.webhooks.diff import diff
from manager.webhooks.review import (
    AdmissionRequest,
    Denied,
    Response,
    UnreadableReview,
    allowed,
    decode,
    encode,
    errored,
    patched,
    refused,
)

log = logging.getLogger("kaito.manager.webhooks")

T = TypeVar("T")
Warnings = Sequence[str] | None
Handler = Callable[[AdmissionRequest], Response | Awaitable[Response]]
BODY_LIMIT = 7 * 1024 * 1024
"""Bytes: an object of etcd's limit, old and new, with room to spare."""


class Validator(Protocol):
    """Judges objects. Each method returns warnings, or raises ``Denied`` or ``ApiError``; it may be async."""

    def validate_create(self, obj: Obj, request: AdmissionRequest) -> Warnings | Awaitable[Warnings]:
        """May this object be created?"""
        ...

    def validate_update(self, old: Obj, new: Obj, request: AdmissionRequest) -> Warnings | Awaitable[Warnings]:
        """May the object change like this?"""
        ...

    def validate_delete(self, obj: Obj, request: AdmissionRequest) -> Warnings | Awaitable[Warnings]:
        """May this object be deleted?"""
        ...


class Defaulter(Protocol):
    """Completes objects."""

    def default(self, obj: Obj, request: AdmissionRequest) -> Obj | Awaitable[Obj]:
        """The object as it should be. ``obj`` is a copy that may be changed and returned. It may be async."""
        ...


def validating(validator: Validator) -> Handler:
    """A handler that asks a validator. CONNECT, and operations that it does not know, are allowed."""

    async def handle(request: AdmissionRequest) -> Response:
        new, old = request.object, request.old_object
        if request.operation == "CREATE":
            warnings = await _result(validator.validate_create(_needed(new, "object"), request))
        elif request.operation == "UPDATE":
            judged = validator.validate_update(_needed(old, "oldObject"), _needed(new, "object"), request)
            warnings = await _result(judged)
        elif request.operation == "DELETE":
            warnings = await _result(validator.validate_delete(_needed(old, "oldObject"), request))
        else:
            warnings = None
        return allowed(warnings=warnings)

    return handle


def mutating(defaulter: Defaulter) -> Handler:
    """A handler that patches what a defaulter changed, and nothing else. Deletions and connections pass."""

    async def handle(request: AdmissionRequest) -> Response:
        if request.operation not in ("CREATE", "UPDATE"):
            return allowed()
        sent = _needed(request.object, "object")
        completed = await _result(defaulter.default(orjson.loads(orjson.dumps(sent)), request))
        if not isinstance(completed, dict):
            raise TypeError(f"the defaulter returned {type(completed).__name__}, not an object")
        return patched(diff(sent, completed))

    return handle


def chain(*handlers: Handler) -> Handler:
    """One handler of several, in their order: each sees what those before it have patched; the first refusal ends
    it and drops all patches; warnings and audit annotations add up."""

    async def handle(request: AdmissionRequest) -> Response:
        total = Response(True)
        for handler in handlers:
            response = await handled(handler, request)
            total = Response(  # a new one: a handler may answer with one object for ever
                response.allowed,
                response.status,
                [*total.patch, *response.patch] if response.allowed else [],
                [*total.warnings, *response.warnings],
                total.audit_annotations | response.audit_annotations,
            )
            if not response.allowed:
                break
            if response.patch:
                request = request.with_object(_apply(response.patch, _needed(request.object, "object")))
        return total

    return handle


async def handled(handler: Handler, request: AdmissionRequest) -> Response:
    """The handler's response; its refusals are turned into one, its bugs are raised."""
    try:
        return await _result(handler(request))
    except (Denied, ApiError) as error:
        return refused(error)
    except ManagerError as error:  # such as an API server that does not answer: no bug of the handler's
        return errored(500, str(error))


class AdmissionEndpoint:
    """What a server calls for one path: bytes in, bytes out, never an exception."""

    limit = BODY_LIMIT

    def __init__(self, handler: Handler, *, panicked: Callable[[], None] = lambda: None) -> None:
        self._handler = handler
        self._panicked = panicked

    async def answer(self, body: bytes, content_type: str) -> tuple[int, bytes]:
        """HTTP status, which is always 200 (the verdict has its own code), and the review."""
        try:
            version, request = decode(body, content_type)
        except UnreadableReview as error:
            return 200, encode(error.version, "", errored(400, str(error)))
        try:
            response = await handled(self._handler, request)
            return 200, encode(version, request.uid, response)
        except Exception as error:
            self._panicked()
            log.exception("admission handler failed kind=%s name=%s", request.kind.get("kind"), request.name)
            message = f"panic: {type(error).__name__}: {error} [recovered]"
            return 200, encode(version, request.uid, errored(500, message))

    def refuse(self, code: int, message: str) -> tuple[int, bytes]:
        """The answer to a body that was not read."""
        return 200, encode("admission.k8s.io/v1", "", errored(code, message))


def mutate_path(resource: Resource) -> str:
    """Where controller-gen's manifests expect the mutating webhook of a kind."""
    return _path("mutate", resource)


def validate_path(resource: Resource) -> str:
    """Where controller-gen's manifests expect the validating webhook of a kind."""
    return _path("validate", resource)


def _path(verb: str, resource: Resource) -> str:
    return f"/{verb}-{resource.group.replace('.', '-')}-{resource.version}-{resource.kind.lower()}"


async def _result(value: T | Awaitable[T]) -> T:
    if inspect.isawaitable(value):
        return cast("T", await value)
    return value  # pyright: ignore[reportReturnType] - it is no awaitable


def _needed(obj: Obj | None, name: str) -> Obj:
    if obj is None:
        raise Denied(f"the request has no {name}", code=400)
    return obj


def _apply(patch: list[Obj], obj: Obj) -> Obj:
    import jsonpatch

    result: Obj = jsonpatch.JsonPatch(patch).apply(obj)
    return result
