"""Errors of the API server, as the Status objects that clients see.

In: what went wrong, named by the place that noticed it. Out: one exception type that carries the HTTP
status, the machine-readable reason and the details that client libraries and kubectl branch on. The HTTP
layer renders it; nothing below the HTTP layer knows about responses. Texts follow those of kube-apiserver,
since kubectl and its users match on them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

from kaito.local.apiserver.fielderrors import FieldError
from manager.types import Obj

__all__ = [
    "ApiServerError",
    "StatusError",
    "already_exists",
    "bad_request",
    "conflict",
    "expired",
    "forbidden",
    "invalid",
    "method_not_allowed",
    "not_found",
    "status_success",
    "too_large_revision",
]


class ApiServerError(Exception):
    """The server cannot start or go on; the message is one line that ends in what to do next."""


class Described(Protocol):
    """What an error needs to know of a resource type."""

    @property
    def group(self) -> str: ...
    @property
    def plural(self) -> str: ...
    @property
    def kind(self) -> str: ...


class StatusError(Exception):
    """An answer of the server that is not success."""

    def __init__(
        self,
        code: int,
        reason: str,
        message: str,
        *,
        details: Obj | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.details = details
        self.headers = dict(headers or {})
        self.warnings: list[str] = []  # what the client is told besides
        self.list_meta: Obj = {}  # e.g. the token with which an expired list can be continued

    def body(self) -> Obj:
        """The ``Status`` object."""
        body: Obj = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": self.list_meta,
            "status": "Failure",
            "message": self.message,
        }
        if self.reason:
            body["reason"] = self.reason
        if self.details:
            body["details"] = self.details
        body["code"] = self.code
        return body


def status_success(resource: Described, name: str, uid: str) -> Obj:
    """The ``Status`` that answers a deletion that is complete."""
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Success",
        "details": _details(resource, name, uid=uid),
    }


def qualified(resource: Described) -> str:
    """``plural.group`` as messages name a resource; the core group has no suffix."""
    return f"{resource.plural}.{resource.group}" if resource.group else resource.plural


def _details(resource: Described, name: str, **more: object) -> Obj:
    details: Obj = {"name": name}
    if resource.group:
        details["group"] = resource.group
    details["kind"] = resource.plural
    details.update(more)
    return details


def bad_request(message: str) -> StatusError:
    """400."""
    return StatusError(400, "BadRequest", message)


def not_found(resource: Described, name: str) -> StatusError:
    """404 for one object."""
    message = f'{qualified(resource)} "{name}" not found'
    return StatusError(404, "NotFound", message, details=_details(resource, name))


def already_exists(resource: Described, name: str) -> StatusError:
    """409: the name is taken."""
    message = f'{qualified(resource)} "{name}" already exists'
    return StatusError(409, "AlreadyExists", message, details=_details(resource, name))


def conflict(resource: Described, name: str, why: str | None = None) -> StatusError:
    """409: the caller worked from an old state."""
    why = why or "the object has been modified; please apply your changes to the latest version and try again"
    message = f'Operation cannot be fulfilled on {qualified(resource)} "{name}": {why}'
    return StatusError(409, "Conflict", message, details=_details(resource, name))


def apply_conflict(message: str, causes: list[Obj]) -> StatusError:
    """409: fields of a server-side apply belong to other managers."""
    return StatusError(409, "Conflict", message, details={"causes": causes})


def forbidden(resource: Described, name: str, why: str, *, causes: list[Obj] | None = None) -> StatusError:
    """403 with the object that it is about."""
    message = f'{qualified(resource)} "{name}" is forbidden: {why}'
    details = _details(resource, name, **({"causes": causes} if causes else {}))
    return StatusError(403, "Forbidden", message, details=details)


def method_not_allowed(
    message: str = "the server does not allow this method on the requested resource",
) -> StatusError:
    """405."""
    return StatusError(405, "MethodNotAllowed", message, details={})


def expired(message: str, *, details: Obj | None = None) -> StatusError:
    """410: the history that was asked for is gone; list again."""
    return StatusError(410, "Expired", message, details=details)


def too_large_revision(asked: int, current: int) -> StatusError:
    """504: a revision that this server has not reached yet."""
    return StatusError(
        504,
        "Timeout",
        f"Too large resource version: {asked}, current: {current}",
        details={
            "causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}],
            "retryAfterSeconds": 1,
        },
        headers={"Retry-After": "1"},
    )


def invalid(group: str, kind: str, name: str, problems: Iterable[FieldError]) -> StatusError:
    """422 with one cause per field."""
    causes = [problem.cause() for problem in problems]
    lines = [f"{cause['field']}: {cause['message']}" for cause in causes]
    summary = lines[0] if len(lines) == 1 else f"[{', '.join(lines)}]"
    qualified_kind = f"{kind}.{group}" if group else kind
    details: Obj = {"name": name}
    if group:
        details["group"] = group
    details["kind"] = kind
    details["causes"] = causes
    return StatusError(422, "Invalid", f'{qualified_kind} "{name}" is invalid: {summary}', details=details)
