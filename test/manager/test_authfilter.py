"""The filter before the metrics: who is asked, how often, and what its answers mean."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from manager.authfilter import AuthFilter
from manager.client import Client
from manager.config import RestConfig
from manager.errors import ApiError, ConnectionFailed, Forbidden, ManagerError, ServerError, TooManyRequests
from manager.types import Obj

pytestmark = pytest.mark.looptime

USER = {"username": "prometheus", "groups": ["scrapers"], "uid": "1", "extra": {"scopes": ["a"]}}


class Reviews(Client):
    """An API server that reviews as it is told, and remembers what it was asked."""

    def __init__(self, *failures: ManagerError | str) -> None:
        super().__init__(RestConfig(server="http://127.0.0.1:1"))
        self.asked: list[tuple[str, Obj]] = []
        self.failures = list(failures)
        self.user: Obj | None = USER
        self.allowed = True

    async def request(self, method: str, path: str, **options: Any) -> Obj:
        body = options["body"]
        self.asked.append((body["kind"], body["spec"]))
        if self.failures:
            failure = self.failures.pop(0)
            if isinstance(failure, str):
                await asyncio.sleep(3600)
            else:
                raise failure
        if body["kind"] == "TokenReview":
            known = self.user is not None and body["spec"]["token"] == "good"
            return {"status": {"authenticated": True, "user": self.user} if known else {"user": {}}}
        return {"status": {"allowed": self.allowed}}

    @property
    def kinds(self) -> list[str]:
        return [kind.removesuffix("Review") for kind, _ in self.asked]


def auth(reviews: Reviews) -> AuthFilter:
    return AuthFilter(reviews, rng=random.Random(1))


async def judge(judged: AuthFilter, token: str = "Bearer good") -> tuple[int, str]:
    return await judged.judge(token, "get", "/metrics")


async def test_a_known_user_with_the_right_passes() -> None:
    """The right is asked for the path and the verb in lower case, for all that is known of the user."""
    reviews = Reviews()

    assert await judge(auth(reviews)) == (200, "")
    spec = {
        "user": "prometheus",
        "groups": ["scrapers"],
        "uid": "1",
        "extra": {"scopes": ["a"]},
        "nonResourceAttributes": {"path": "/metrics", "verb": "get"},
    }
    assert reviews.asked == [("TokenReview", {"token": "good"}), ("SubjectAccessReview", spec)]


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer  ", "Basic Z29vZA==", "good", "Bearer bad"])
async def test_who_is_not_known_is_401(header: str) -> None:
    """And nobody asks what an unknown user may do."""
    reviews = Reviews()

    assert await judge(auth(reviews), header) == (401, "Unauthorized")
    assert "SubjectAccess" not in reviews.kinds


async def test_who_has_no_right_is_403() -> None:
    """The user is told who it is."""
    reviews = Reviews()
    reviews.allowed = False

    assert await judge(auth(reviews)) == (403, "Authorization denied for user prometheus")


@pytest.mark.parametrize("which", [0, 1])
async def test_what_cannot_be_asked_is_500(which: int) -> None:
    """A refusal of the question, such as missing rights of this process, is not tried again and not kept."""
    reviews = Reviews()
    judged = auth(reviews)
    if which:
        await judged._user("good")
    reviews.failures = [Forbidden(403, "Forbidden", "cannot create")]
    status, words = await judge(judged)

    assert (status, words) == (500, ["Authentication failed", "Authorization for user prometheus failed"][which])
    assert asyncio.get_running_loop().time() == 0
    assert (await judge(judged))[0] == 200


@pytest.mark.parametrize(
    "error",
    [ServerError(500, "InternalError"), ServerError(503), TooManyRequests(429), ConnectionFailed("reset")],
)
async def test_what_may_pass_is_asked_five_times(error: ApiError) -> None:
    """After 0.5 s, each time half as long again, stretched by up to a fifth."""
    assert (await judge(auth(Reviews(*[error] * 4))))[0] == 200
    took = asyncio.get_running_loop().time()
    reviews = Reviews(*[error] * 5)

    assert 0.5 * 8.125 <= took <= 0.5 * 8.125 * 1.2
    assert (await judge(auth(reviews)))[0] == 500
    assert reviews.kinds == ["Token"] * 5


async def test_a_review_has_ten_seconds() -> None:
    """Then it counts as one that may pass."""
    assert (await judge(auth(Reviews("hangs"))))[0] == 200
    assert 10.5 <= asyncio.get_running_loop().time() <= 10.6


async def test_answers_are_kept_for_their_time() -> None:
    """A user for a minute, a right for five, a refusal for half a minute, an unknown token for a minute."""
    reviews = Reviews()
    judged = auth(reviews)
    asked: list[list[str]] = []
    for second in (0, 59, 61, 299, 301):
        await asyncio.sleep(second - asyncio.get_running_loop().time())
        reviews.asked.clear()
        await judge(judged)
        asked.append(reviews.kinds)
    assert asked == [["Token", "SubjectAccess"], [], ["Token"], ["Token"], ["SubjectAccess"]]

    reviews, asked = Reviews(), []
    reviews.allowed = False
    judged = auth(reviews)
    begin = asyncio.get_running_loop().time()
    for second in (0, 29, 31):
        await asyncio.sleep(begin + second - asyncio.get_running_loop().time())
        reviews.asked.clear()
        await judge(judged)
        asked.append(reviews.kinds)
    assert asked == [["Token", "SubjectAccess"], [], ["SubjectAccess"]]


async def test_what_is_kept_is_bounded_and_holds_no_token() -> None:
    """Anybody can send tokens."""
    reviews = Reviews()
    judged = auth(reviews)
    for number in range(2000):
        await judge(judged, f"Bearer token-{number}")

    assert len(judged._users._answers) == 1024
    assert not any("token" in key for key in judged._users._answers)
