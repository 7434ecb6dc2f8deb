"""The client against a scripted server: errors, retries, secrets."""

from __future__ import annotations

import asyncio
import logging

import pytest
from aiohttp import web

from manager import errors
from manager.client import Client
from manager.config import RestConfig
from manager.resources import CONFIGMAPS
from manager.testing.scripted import Script, config_map, failing, listing, watching


@pytest.mark.parametrize(
    ("status", "reason", "kind"),
    [
        (400, "BadRequest", errors.BadRequest),
        (401, "Unauthorized", errors.Unauthorized),
        (403, "Forbidden", errors.Forbidden),
        (404, "NotFound", errors.NotFound),
        (405, "MethodNotAllowed", errors.MethodNotAllowed),
        (409, "AlreadyExists", errors.AlreadyExists),
        (409, "Conflict", errors.Conflict),
        (410, "Expired", errors.Gone),
        (415, "UnsupportedMediaType", errors.UnsupportedMediaType),
        (422, "Invalid", errors.Invalid),
        (429, "TooManyRequests", errors.TooManyRequests),
        (500, "InternalError", errors.ServerError),
        (502, "", errors.ServerError),
    ],
)
async def test_an_answer_becomes_the_error_of_its_kind(
    client: Client, script: Script, status: int, reason: str, kind: type[errors.ApiError]
) -> None:
    """Status code and reason choose the class; the server's words are kept."""
    script.lists = [failing(status, reason, "the server's words")]
    with pytest.raises(kind) as caught:
        await client.get(CONFIGMAPS, "a", "n")

    assert (caught.value.status, caught.value.message) == (status, "the server's words")


async def test_retry_after_is_obeyed(client: Client, script: Script) -> None:
    """A 429 or 503 that names a time is tried again after it, and succeeds."""
    script.lists = [
        failing(429, headers={"Retry-After": "0"}),
        failing(503, headers={"Retry-After": "0"}),
        listing("a"),
    ]

    assert len((await client.list(CONFIGMAPS)).items) == 1
    assert len(script.seen) == 3


async def test_an_error_without_a_time_is_not_retried(client: Client, script: Script) -> None:
    """Nothing promises that the request had no effect, so it is the caller's to decide."""
    script.lists = [failing(503), listing("a")]
    with pytest.raises(errors.ServerError):
        await client.list(CONFIGMAPS)

    assert len(script.seen) == 1


async def _html(_: web.Request) -> web.StreamResponse:
    return web.Response(text="<html>502 Bad Gateway</html>")


async def _reset(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


@pytest.mark.parametrize("handler", [_html, _reset], ids=["not-json", "reset"])
async def test_foreign_exceptions_do_not_get_out_of_a_request(
    client: Client, script: Script, handler: object
) -> None:
    """Nonsense and broken connections are this room's own error."""
    script.lists = [handler] * 2  # type: ignore[list-item]  # the HTTP library repeats a GET that was reset once
    with pytest.raises(errors.ConnectionFailed):
        await client.get(CONFIGMAPS, "a", "n")


async def test_foreign_exceptions_do_not_get_out_of_a_watch(client: Client, script: Script) -> None:
    """A line that is not JSON ends the watch with this room's own error."""

    async def nonsense(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"<html>\n")
        return response

    script.watches = [nonsense]
    with pytest.raises(errors.ConnectionFailed):
        _ = [event async for event in client.watch(CONFIGMAPS)]


async def test_a_refused_connection_names_the_server() -> None:
    """The message says who could not be reached."""
    async with Client(RestConfig(server="http://127.0.0.1:1")) as nobody:
        with pytest.raises(errors.ConnectionFailed, match=r"http://127\.0\.0\.1:1/"):
            await nobody.get(CONFIGMAPS, "a", "n")


async def test_a_line_of_many_megabytes_is_one_event(client: Client, script: Script) -> None:
    """An object larger than any buffer arrives whole."""
    large = config_map("large", "11", blob="x" * 6_000_000)
    script.watches = [watching(("ADDED", large))]

    events = [event async for event in client.watch(CONFIGMAPS)]

    assert len(events[0].object["data"]["blob"]) == 6_000_000


async def test_the_token_is_sent_and_never_shown(
    client: Client, script: Script, caplog: pytest.LogCaptureFixture
) -> None:
    """The bearer token is in the header, and in no repr and no log."""
    caplog.set_level(logging.DEBUG)
    sent: list[str] = []

    async def record(request: web.Request) -> web.StreamResponse:
        sent.append(request.headers["Authorization"])
        return await failing(401, "Unauthorized")(request)

    script.lists = [record]
    with pytest.raises(errors.Unauthorized) as caught:
        await client.get(CONFIGMAPS, "a", "n")

    assert sent == ["Bearer secret-token"]
    assert "secret-token" not in f"{client!r} {client.config!r} {caught.value!r} {caplog.text}"


async def test_cancelling_a_watch_closes_it_at_once(client: Client, script: Script) -> None:
    """A task that waits for events ends when it is cancelled."""
    script.watches = [watching(hold=True)]

    async def consume() -> None:
        async for _ in client.watch(CONFIGMAPS):
            pass

    task = asyncio.create_task(consume())
    await asyncio.sleep(0.05)
    task.cancel()
    async with asyncio.timeout(1):
        await asyncio.gather(task, return_exceptions=True)

    assert task.cancelled()
