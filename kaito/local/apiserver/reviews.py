"""Answers to "who am I" and "may I": the review kinds, which are asked and never stored.

In: a review object and the identity that sent it. Out: the same review with its status. Every authenticated
identity may do everything at this stage, so the access reviews say yes; what they must not do is claim that
of somebody who cannot authenticate.
"""

from __future__ import annotations

from collections.abc import Callable

from kaito.local.apiserver.auth import Identity
from kaito.local.apiserver.errors import bad_request
from kaito.local.apiserver.registry import ResourceType
from manager.types import Obj

__all__ = ["answer", "is_review"]

_ANONYMOUS = "system:anonymous"
_KINDS = {
    "SelfSubjectReview",
    "TokenReview",
    "SelfSubjectAccessReview",
    "SubjectAccessReview",
    "LocalSubjectAccessReview",
    "SelfSubjectRulesReview",
}


def is_review(resource: ResourceType) -> bool:
    """Whether the type is a question."""
    return resource.group in ("authentication.k8s.io", "authorization.k8s.io") and resource.kind in _KINDS


def answer(
    resource: ResourceType, review: Obj, identity: Identity, by_token: Callable[[str], Identity | None]
) -> Obj:
    """The review with its ``status``.

    Raises:
        StatusError: 400, the question is incomplete.
    """
    spec = review.get("spec") or {}
    review = review | {"metadata": {"creationTimestamp": None, **(review.get("metadata") or {})}}
    kind = resource.kind
    if kind == "SelfSubjectReview":
        return review | {"status": {"userInfo": identity.user_info()}}
    if kind == "TokenReview":
        found = by_token(str(spec.get("token") or ""))
        if found is None:
            return review | {"status": {"user": {}, "error": "invalid bearer token"}}
        return review | {"status": {"authenticated": True, "user": found.user_info()}}
    if kind == "SelfSubjectRulesReview":
        status = {
            "incomplete": False,
            "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}],
            "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
        }
        return review | {"status": status}
    if not (spec.get("resourceAttributes") or spec.get("nonResourceAttributes")):
        raise bad_request("exactly one of nonResourceAttributes or resourceAttributes must be specified")
    user = identity.name
    if kind != "SelfSubjectAccessReview":
        user = str(spec.get("user") or "")
        if not user and not spec.get("groups"):
            raise bad_request("at least one of user or group must be specified")
    allowed = user != _ANONYMOUS
    reason = "every authenticated user of this local cluster may do everything" if allowed else "not authenticated"
    return review | {"status": {"allowed": allowed, "reason": reason}}
