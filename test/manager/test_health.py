"""The words of the probes, and where they are spoken."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest
from aiohttp.test_utils import TestClient, TestServer

from manager.health import Check, Probes, ping, probe_app

GOOD: Check = ping
BAD: Check = lambda: "broken"  # noqa: E731
FAILED = "[+]a ok\n[-]b failed: reason withheld\nreadyz check failed\n"


async def patient() -> str | None:
    await asyncio.sleep(0)
    return None


async def impatient() -> str | None:
    return "no disk"


@asynccontextmanager
async def probing(probes: Probes) -> AsyncIterator[TestClient]:  # type: ignore[type-arg]
    async with TestClient(TestServer(probe_app(probes))) as client:
        yield client


async def ask(probes: Probes, path: str) -> tuple[int, str]:
    async with probing(probes) as client:
        answer = await client.get(path)
        return answer.status, await answer.text()


@pytest.mark.acceptance("FW-F20")
@pytest.mark.parametrize(
    ("path", "checks", "status", "body"),
    [
        ("/readyz", {"a": GOOD, "b": GOOD}, 200, "ok"),
        ("/readyz/", {"a": GOOD}, 200, "ok"),
        ("/readyz?verbose", {"b": GOOD, "a": GOOD}, 200, "[+]a ok\n[+]b ok\nreadyz check passed\n"),
        ("/readyz?verbose=1", {"a": patient}, 200, "[+]a ok\nreadyz check passed\n"),
        ("/readyz", {"a": GOOD, "b": BAD}, 500, FAILED),
        ("/readyz?verbose", {"a": GOOD, "b": impatient}, 500, FAILED),
        ("/readyz?exclude=b", {"a": GOOD, "b": BAD}, 200, "ok"),
        (
            "/readyz?exclude=b&exclude=c&verbose",
            {"a": GOOD, "b": BAD, "c": BAD},
            200,
            "[+]a ok\n[+]b excluded: ok\n[+]c excluded: ok\nreadyz check passed\n",
        ),
        ("/readyz?exclude=x", {"a": GOOD}, 200, "ok"),
        (
            "/readyz?exclude=y&exclude=x&verbose",
            {"a": GOOD},
            200,
            '[+]a ok\nwarn: some health checks cannot be excluded: no matches for "x", "y"\nreadyz check passed\n',
        ),
        ("/readyz/a", {"a": GOOD, "b": BAD}, 200, "ok"),
        ("/readyz/a/", {"a": GOOD, "b": BAD}, 200, "ok"),
        ("/readyz/a?verbose", {"a": GOOD, "b": BAD}, 200, "[+]a ok\nreadyz check passed\n"),
        ("/readyz/b", {"a": GOOD, "b": BAD}, 500, "[-]b failed: reason withheld\nreadyz check failed\n"),
        ("/readyz/b?exclude=b", {"b": BAD}, 500, "[-]b failed: reason withheld\nreadyz check failed\n"),
        ("/readyz/c", {"a": GOOD}, 404, "404 page not found\n"),
        ("/readyz/ping", {"a": GOOD}, 404, "404 page not found\n"),
        ("/readyz/ping", {"ping": ping}, 200, "ok"),
    ],
)
async def test_a_probe_answers_as_kubernetes_does(
    path: str, checks: dict[str, Check], status: int, body: str
) -> None:
    """Any failure is 500 and always verbose; exclusion, warnings and single checks; asynchronous checks alike."""
    assert await ask(Probes(ready=checks), path) == (status, body)


@pytest.mark.acceptance("FW-F20")
async def test_an_endpoint_is_there_once_a_check_of_its_sort_was_added() -> None:
    """A readiness check makes no liveness endpoint."""
    probes = Probes(ready={"a": GOOD})
    assert (await ask(probes, "/healthz"))[0] == 404
    assert (await ask(probes, "/healthz/ping"))[0] == 404
    probes.health["b"] = BAD

    assert await ask(probes, "/healthz") == (500, "[-]b failed: reason withheld\nhealthz check failed\n")


@pytest.mark.acceptance("FW-F20")
@pytest.mark.parametrize(("verbose", "body"), [(False, "ok"), (True, "[+]ping ok\nhealthz check passed\n")])
async def test_no_checks_are_a_ping(verbose: bool, body: str) -> None:
    """A set of checks without any passes."""
    answer = await Probes().answer("healthz", {}, excluded=frozenset(), verbose=verbose)

    assert answer == (200, body)
    assert (await Probes().answer("healthz", {}, single="ping", excluded=frozenset(), verbose=False))[0] == 200


@pytest.mark.acceptance("FW-F20")
async def test_no_browser_guesses_what_a_probe_says() -> None:
    """The content type is text, and says that it is meant."""
    async with probing(Probes(ready={"a": BAD})) as client:
        answer = await client.get("/readyz")

    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"


async def test_a_check_that_raises_has_failed_and_its_words_stay_inside(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A broken check is a failed check, not a broken probe; the reason is in the log."""

    def broken() -> str | None:
        raise RuntimeError("secret")

    with caplog.at_level("INFO", "kaito.manager.health"):
        status, body = await ask(Probes(health={"a": broken}), "/healthz")

    assert (status, "secret" in body) == (500, False)
    assert "secret" in caplog.text


@pytest.mark.looptime
async def test_a_check_that_does_not_answer_has_failed_and_holds_up_no_other() -> None:
    """Ten seconds for all of them together."""

    async def hangs() -> str | None:
        await asyncio.Event().wait()
        return None

    checks = {"a": hangs, "b": hangs, "c": GOOD}
    status, body = await Probes().answer("readyz", checks, excluded=frozenset(), verbose=False)

    assert status == 500
    assert body.startswith("[-]a failed: reason withheld\n[-]b failed: reason withheld\n[+]c ok\n")
    assert asyncio.get_running_loop().time() == 10


async def test_a_probe_takes_gets_only() -> None:
    """Whatever else is sent is refused."""
    async with probing(Probes(ready={"a": GOOD})) as client:
        answer: aiohttp.ClientResponse = await client.post("/readyz")

    assert answer.status == 405
