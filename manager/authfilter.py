"""Who may read the metrics: the API server is asked, as kubelets and kube-rbac-proxy do.

In: a bearer token, the path, the verb. Out: None, or 401, 403, 500. The token becomes a user by a TokenReview,
the user's right to the path by a SubjectAccessReview of a non-resource URL with the HTTP verb in lower case.
Answers are kept for a while, so that a scraper does not become load; failures to ask are not. Tokens are kept as
their hashes. The process needs the right to create both reviews, which the ClusterRole ``system:auth-delegator``
gives. Semantics: controller-runtime's metrics filter, which is kube-apiserver's delegated authentication and
authorization.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import random
from collections import OrderedDict
from typing import Generic, TypeVar

from aiohttp import web

from manager.client import Client
from manager.errors import ApiError, ConnectionFailed, ManagerError
from manager.types import Obj

log = logging.getLogger("kaito.manager.authfilter")

TOKEN_SECONDS = 60.0
ALLOW_SECONDS = 300.0
DENY_SECONDS = 30.0
REVIEW_SECONDS = 10.0
_KEPT = 1024
_TRIES, _FIRST_PAUSE, _FACTOR, _JITTER = 5, 0.5, 1.5, 0.2
_TOKEN_REVIEWS = "/apis/authentication.k8s.io/v1/tokenreviews"  # noqa: S105 - a path
_ACCESS_REVIEWS = "/apis/authorization.k8s.io/v1/subjectaccessreviews"

T = TypeVar("T")


class _Kept(Generic[T]):
    """Answers with an end, the least recently made dropped first."""

    def __init__(self) -> None:
        self._answers: OrderedDict[str, tuple[float, T]] = OrderedDict()

    def get(self, key: str, now: float) -> T | None:
        found = self._answers.get(key)
        return found[1] if found is not None and now < found[0] else None

    def put(self, key: str, answer: T, until: float) -> None:
        self._answers[key] = (until, answer)
        self._answers.move_to_end(key)
        while len(self._answers) > _KEPT:
            self._answers.popitem(last=False)


class AuthFilter:
    """See the module. An instance is the filter of ``servers.metrics_app``."""

    def __init__(self, client: Client, *, rng: random.Random | None = None) -> None:
        self._client = client
        self._rng = rng or random.Random()  # noqa: S311 - spreads retries, guards nothing
        self._users: _Kept[Obj] = _Kept()  # an empty user: the token is nobody's
        self._rights: _Kept[bool] = _Kept()

    async def __call__(self, request: web.Request) -> web.Response | None:
        """None lets the request through."""
        status, words = await self.judge(
            request.headers.get("Authorization", ""), request.method.lower(), request.path
        )
        return None if status == 200 else web.Response(status=status, text=f"{words}\n")

    async def judge(self, authorization: str, verb: str, path: str) -> tuple[int, str]:
        """The status and the words for it; 200 lets pass."""
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            return 401, "Unauthorized"
        try:
            user = await self._user(token.strip())
        except ManagerError as error:
            log.error("authentication failed error=%s", error)
            return 500, "Authentication failed"
        if not user:
            return 401, "Unauthorized"
        name = user.get("username", "")
        try:
            allowed = await self._may(user, verb, path)
        except ManagerError as error:
            log.error("authorization failed user=%s error=%s", name, error)
            return 500, f"Authorization for user {name} failed"
        if not allowed:
            log.info("authorization denied user=%s verb=%s path=%s", name, verb, path)
            return 403, f"Authorization denied for user {name}"
        return 200, ""

    async def _user(self, token: str) -> Obj:
        now = asyncio.get_running_loop().time()
        key = hashlib.sha256(token.encode()).hexdigest()
        known = self._users.get(key, now)
        if known is not None:
            return known
        review = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token}}
        status = await self._ask(_TOKEN_REVIEWS, review)
        user: Obj = dict(status.get("user") or {}) if status.get("authenticated") else {}
        self._users.put(key, user, now + TOKEN_SECONDS)
        return user

    async def _may(self, user: Obj, verb: str, path: str) -> bool:
        spec: Obj = {
            "user": user.get("username", ""),
            "nonResourceAttributes": {"path": path, "verb": verb},
            **{field: user[field] for field in ("groups", "extra", "uid") if user.get(field)},
        }
        now = asyncio.get_running_loop().time()
        key = json.dumps(spec, sort_keys=True)
        known = self._rights.get(key, now)
        if known is not None:
            return known
        review = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec}
        allowed = bool((await self._ask(_ACCESS_REVIEWS, review)).get("allowed"))
        self._rights.put(key, allowed, now + (ALLOW_SECONDS if allowed else DENY_SECONDS))
        return allowed

    async def _ask(self, path: str, review: Obj) -> Obj:
        """The status of a review. What may pass by itself is tried again; each try has ten seconds."""
        pause = _FIRST_PAUSE
        failure: ManagerError = ConnectionFailed("no review was asked for")
        for attempt in range(1, _TRIES + 1):
            try:
                async with asyncio.timeout(REVIEW_SECONDS):
                    answer = await self._client.request("POST", path, body=review)
                return dict(answer.get("status") or {})
            except TimeoutError as error:
                failure = ConnectionFailed(f"no review within {REVIEW_SECONDS:g} s")
                failure.__cause__ = error
            except ConnectionFailed as error:
                failure = error
            except ApiError as error:
                if error.status < 500 and error.status != 429:
                    raise
                failure = error
            if attempt < _TRIES:
                await asyncio.sleep(pause * (1 + self._rng.random() * _JITTER))
                pause *= _FACTOR
        raise failure
