"""AdmissionReview on the wire: bytes to a request, a response to bytes, in the version in which it came.

In: the body of an API server's call. Out: an :class:`AdmissionRequest` whose objects are the very dicts that were
sent, unknown fields included, and for the way back the review in the same version (``admission.k8s.io/v1`` where
the version could not be read). Nothing here decides. Semantics: Kubernetes' "dynamic admission control", in the
shapes of controller-runtime.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import orjson

from manager.errors import ApiError, ManagerError
from manager.types import Obj

V1 = "admission.k8s.io/v1"
_VERSIONS = (V1, "admission.k8s.io/v1beta1")
_REASONS = {400: "BadRequest", 403: "Forbidden", 404: "NotFound", 409: "Conflict", 422: "Invalid"}


class UnreadableReview(ManagerError):
    """The body is no AdmissionReview; ``version`` is the one to answer in."""

    def __init__(self, message: str, version: str = V1) -> None:
        super().__init__(message)
        self.version = version


class Denied(ManagerError):
    """Raised by a validator or a defaulter: the request is refused, and the user reads the message.

    Args:
        message: what is wrong and what to do about it.
        reason: machine-readable.
        code: HTTP status of the refusal; 422 with causes is what a broken schema gives.
        causes: ``{"reason": ..., "message": ..., "field": ...}`` each, as in a Status.
        warnings: shown to the user besides.
    """

    def __init__(
        self,
        message: str,
        reason: str = "",
        code: int = 403,
        causes: Sequence[Mapping[str, str]] = (),
        warnings: Sequence[str] = (),
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.reason = reason or _REASONS.get(code, "")
        self.causes = [dict(cause) for cause in causes]
        self.warnings = list(warnings)


@dataclass(frozen=True, slots=True)
class AdmissionRequest:
    """What is about to happen.

    Attributes:
        kind, resource: of the request as converted for this webhook: group, version and kind or resource.
        request_kind, request_resource: as the client sent it.
        operation: ``CREATE``, ``UPDATE``, ``DELETE`` or ``CONNECT``.
        user: ``username``, ``uid``, ``groups``, ``extra``.
        object: the new state; None for DELETE; for CONNECT the options of the connection.
        old_object: the present state, for UPDATE and DELETE.
        dry_run: nothing will be stored, so nothing may be caused elsewhere either.
        options: of the operation, such as CreateOptions.
    """

    uid: str
    kind: Obj
    resource: Obj
    operation: str
    name: str = ""
    namespace: str = ""
    subresource: str = ""
    request_kind: Obj = field(default_factory=dict)
    request_resource: Obj = field(default_factory=dict)
    request_subresource: str = ""
    user: Obj = field(default_factory=dict)
    object: Obj | None = None
    old_object: Obj | None = None
    dry_run: bool = False
    options: Obj | None = None

    def with_object(self, obj: Obj) -> AdmissionRequest:
        """The same request about another object."""
        return replace(self, object=obj)


@dataclass(slots=True)
class Response:
    """The answer to one request; ``status`` is completed on the way out, never overwritten."""

    allowed: bool
    status: Obj = field(default_factory=dict)
    patch: list[Obj] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    audit_annotations: dict[str, str] = field(default_factory=dict)


def allowed(message: str = "", *, warnings: Sequence[str] | None = None) -> Response:
    """Let it pass."""
    return Response(True, {"message": message} if message else {}, warnings=list(warnings or ()))


def patched(patch: list[Obj], *, warnings: Sequence[str] | None = None) -> Response:
    """Let it pass, changed by these JSON patch operations."""
    return Response(True, patch=patch, warnings=list(warnings or ()))


def denied(message: str, reason: str = "Forbidden", *, warnings: Sequence[str] | None = None) -> Response:
    """Refuse it with 403."""
    return Response(False, {"code": 403, "reason": reason, "message": message}, warnings=list(warnings or ()))


def errored(code: int, message: str) -> Response:
    """It could not be judged, which refuses it too."""
    return Response(False, {"code": code, "message": message})


def refused(error: Denied | ApiError) -> Response:
    """The response that an error asks for: an API server's Status is passed on whole."""
    if isinstance(error, ApiError):
        status: Obj = {
            "status": "Failure",
            "code": error.status,
            "reason": error.reason,
            "message": error.message,
            "details": error.details,
        }
        return Response(False, {key: value for key, value in status.items() if value})
    status = {"status": "Failure", "code": error.code, "reason": error.reason, "message": error.message}
    if error.causes:
        status["details"] = {"causes": error.causes}
    return Response(False, status, warnings=error.warnings)


def decode(body: bytes, content_type: str) -> tuple[str, AdmissionRequest]:
    """The review's version and its request.

    Raises:
        UnreadableReview: no body, another content type, no JSON, no review.
    """
    if not body:
        raise UnreadableReview("request body is empty")
    if content_type.partition(";")[0].strip().lower() != "application/json":
        raise UnreadableReview(f"contentType={content_type}, expected application/json")
    try:
        review = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise UnreadableReview(f"the body is no JSON: {error}") from error
    if not isinstance(review, dict):
        raise UnreadableReview("the body is no AdmissionReview")
    version = str(review.get("apiVersion") or V1)
    version = version if version in _VERSIONS else V1
    request = review.get("request")
    if not isinstance(request, dict):
        raise UnreadableReview("the review has no request", version)
    if review.get("kind", "AdmissionReview") != "AdmissionReview":
        raise UnreadableReview(f"kind={review['kind']}, expected AdmissionReview", version)
    present = ((ours, request.get(theirs)) for ours, theirs in _FIELDS)
    values: dict[str, Any] = {ours: value for ours, value in present if value is not None}
    for name, kind in (("object", dict), ("old_object", dict), ("options", dict), ("user", dict)):
        if not isinstance(values.get(name, {}), kind):
            raise UnreadableReview(f"the request's {name} is no object", version)
    return version, AdmissionRequest(
        uid=str(values.pop("uid", "")),
        kind=values.pop("kind", {}),
        resource=values.pop("resource", {}),
        operation=str(values.pop("operation", "")),
        **values,
    )


_FIELDS = (
    ("uid", "uid"),
    ("kind", "kind"),
    ("resource", "resource"),
    ("operation", "operation"),
    ("name", "name"),
    ("namespace", "namespace"),
    ("subresource", "subResource"),
    ("request_kind", "requestKind"),
    ("request_resource", "requestResource"),
    ("request_subresource", "requestSubResource"),
    ("user", "userInfo"),
    ("object", "object"),
    ("old_object", "oldObject"),
    ("dry_run", "dryRun"),
    ("options", "options"),
)


def encode(version: str, uid: str, response: Response) -> bytes:
    """The review that answers; patches are left out of refusals."""
    answer: Obj = {"uid": uid, "allowed": response.allowed, "status": completed(response)}
    if response.patch and response.allowed:
        answer["patch"] = base64.b64encode(orjson.dumps(response.patch)).decode()
        answer["patchType"] = "JSONPatch"
    if response.warnings:
        answer["warnings"] = response.warnings
    if response.audit_annotations:
        answer["auditAnnotations"] = response.audit_annotations
    return orjson.dumps({"kind": "AdmissionReview", "apiVersion": version, "response": answer})


def completed(response: Response) -> Obj:
    """The response's status, with the code that its verdict implies where it names none."""
    return {"metadata": {}, "code": 200 if response.allowed else 403, **response.status}
