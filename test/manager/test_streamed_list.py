"""Filling a copy by a streamed list (WatchList), against a scripted server in virtual time (behaviours A)."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web

from manager.client import Client
from manager.reflector import Limits
from manager.testing.scripted import (
    Handler,
    Script,
    bookmark,
    config_map,
    failing,
    listing,
    status_object,
    streaming,
    watching,
)

if TYPE_CHECKING:
    from conftest import Reflecting, RefusingClient

pytestmark = pytest.mark.looptime

Make = type["Reflecting"]
MARK = ("BOOKMARK", bookmark("10", end=True))
A, B = ("ADDED", config_map("a", "5")), ("ADDED", config_map("b", "3"))


def error(code: int, reason: str, message: str = "") -> tuple[str, dict[str, Any]]:
    return "ERROR", status_object(code, reason, message)


def line(kind: str, obj: dict[str, Any]) -> bytes:
    return json.dumps({"type": kind, "object": obj}).encode() + b"\n"


def asked(script: Script) -> list[tuple[str, str | None]]:
    """Kind and version of every request, in order."""
    return [(one.kind, one.query.get("resourceVersion")) for one in script.asked]


@pytest.mark.acceptance("FW-A23")
async def test_a_streamed_list_fills_the_copy_and_goes_on_as_the_watch(
    client: Client, script: Script, reflecting: Make
) -> None:
    """One request: the objects, the mark, then changes. Nothing is told before the mark, nothing is listed."""
    script.streams = [
        streaming(
            "a", "b", rv="10", then=(("MODIFIED", config_map("a", "11")), ("DELETED", config_map("b", "12")))
        )
    ]
    async with reflecting(client) as run:
        await run.until(lambda: len(script.asked) == 2)

        assert run.mirror.calls == [("replace", "n/a n/b"), ("MODIFIED", "n/a"), ("DELETED", "n/b")]
    assert asked(script) == [("stream", None), ("watch", "12")]
    query = script.asked[0].query
    assert query.pop("timeoutSeconds")
    assert query == {
        "watch": "true",
        "sendInitialEvents": "true",
        "resourceVersionMatch": "NotOlderThan",
        "allowWatchBookmarks": "true",
    }


@pytest.mark.acceptance("FW-A23")
async def test_an_empty_collection_is_a_list_too(client: Client, script: Script, reflecting: Make) -> None:
    """The mark alone."""
    script.streams = [streaming(rv="10", hold=True)]
    async with reflecting(client) as run:
        await run.until(lambda: run.mirror.calls == [("replace", "")])

        assert run.reflector.resource_version == "10"


@pytest.mark.acceptance("FW-A23")
async def test_changes_before_the_mark_belong_to_the_list(
    client: Client, script: Script, reflecting: Make
) -> None:
    """What changes while the list is streamed is told in its last state only; a plain bookmark is no mark."""
    script.streams = [
        watching(
            A,
            B,
            ("BOOKMARK", bookmark("8")),
            ("MODIFIED", config_map("a", "9", k="v")),
            ("DELETED", config_map("b", "10")),
            MARK,
            hold=True,
        )
    ]
    async with reflecting(client) as run:
        await run.until_names("a")

        assert run.mirror.calls == [("replace", "n/a")]
        assert run.mirror.objects["n/a"]["data"] == {"k": "v"}


@pytest.mark.acceptance("FW-A23")
@pytest.mark.parametrize(
    ("first", "pause"),
    [
        (watching(A, B), 0.8),
        (watching(), 0.8),
        (watching(A, broken=True), 0.8),
        (failing(429, "TooManyRequests"), 0.8),
        (failing(429, "TooManyRequests", headers={"Retry-After": "9"}), 9.0),
        (watching(A, error(429, "TooManyRequests")), 0.8),
    ],
    ids=["ends-early", "ends-at-once", "breaks", "429", "429-with-a-time", "429-event"],
)
async def test_what_passes_is_streamed_again_after_a_pause(
    client: Client, script: Script, reflecting: Make, first: Handler, pause: float
) -> None:
    """What had come is dropped, the stream is asked for anew, and nothing is listed."""
    script.streams = [first, streaming("c", rv="10", hold=True)]
    async with reflecting(client) as run:
        await run.until_names("c")

        assert run.mirror.calls == [("replace", "n/c")]
    assert asked(script) == [("stream", None), ("stream", None)]
    assert round(script.asked[1].at - script.asked[0].at, 1) == pause


@pytest.mark.acceptance("FW-A23")
async def test_refused_connections_lead_to_no_list(
    refusing_client: RefusingClient, script: Script, reflecting: Make
) -> None:
    """A server that starts slowly is asked for a stream until it answers, however long that takes."""
    script.streams = [streaming("a", rv="10", hold=True)]
    refusing_client.refusals = 5
    async with reflecting(refusing_client) as run:
        await run.until_names("a")

    assert asked(script) == [("stream", None)]


@pytest.mark.acceptance("FW-A23")
async def test_streams_that_break_three_times_give_way_to_one_list(
    client: Client, script: Script, reflecting: Make
) -> None:
    """Something on the way cannot carry them; the next filling tries a stream again."""
    script.streams = [watching(A), watching(A, broken=True), watching(A), streaming("b", rv="20", hold=True)]
    script.lists = [listing("a", rv="10")]
    script.watches = [watching(error(410, "Expired"))]
    async with reflecting(client) as run:
        await run.until_names("b")

    assert [one.kind for one in script.asked] == ["stream", "stream", "stream", "list", "watch", "stream"]


EXPIRED_AT_10 = [
    failing(410, "Expired"),
    watching(error(410, "Expired")),
    failing(504, "Timeout", "Too large resource version: 11"),
]


@pytest.mark.acceptance("FW-A23", "FW-A24")
@pytest.mark.parametrize("refusal", EXPIRED_AT_10, ids=["expired", "expired-event", "too-large"])
async def test_an_unusable_version_is_streamed_anew_at_once(
    client: Client, script: Script, reflecting: Make, refusal: Handler
) -> None:
    """First without a version, then at the last, and without one again when that is refused; never at "0"."""
    script.streams = [
        streaming("a", rv="10", then=(error(410, "Expired"),)),
        refusal,
        streaming("b", rv="20", then=(error(410, "Expired"),)),
        streaming("c", rv="30", hold=True),
    ]
    async with reflecting(client) as run:
        await run.until_names("c")

    assert asked(script) == [("stream", None), ("stream", "10"), ("stream", None), ("stream", "20")]
    assert round(script.asked[2].at - script.asked[1].at, 1) == 0.0


@pytest.mark.acceptance("FW-A23")
async def test_a_server_that_expires_every_stream_is_listed(
    client: Client, script: Script, reflecting: Make
) -> None:
    """Even a stream without a version is refused: no loop, a list."""
    script.streams = [failing(410, "Expired"), failing(410, "Expired")]
    script.lists = [listing("a")]
    async with reflecting(client) as run:
        await run.until_names("a")

    assert asked(script) == [("stream", None), ("stream", None), ("list", None), ("watch", "10")]


@pytest.mark.acceptance("FW-A23")
@pytest.mark.parametrize(
    ("refusal", "remembered"),
    [
        (failing(400, "BadRequest"), True),
        (failing(405, "MethodNotAllowed"), True),
        (failing(422, "Invalid"), True),
        (failing(501, ""), True),
        (watching(A, error(422, "Invalid")), True),
        (failing(500, "InternalError"), False),
        (failing(403, "Forbidden"), False),
        (failing(404, "NotFound"), False),
        (watching(A, error(500, "InternalError")), False),
    ],
    ids=["400", "405", "422", "501", "422-event", "500", "403", "404", "500-event"],
)
async def test_any_other_error_leads_to_a_list_at_once(
    client: Client, script: Script, reflecting: Make, refusal: Handler, remembered: bool
) -> None:
    """A server that does not know streams is not asked again; one that only failed is, at the next filling."""
    script.streams = [refusal, streaming("b", rv="20", hold=True)]
    script.lists = [listing("a", rv="10"), listing("b", rv="20")]
    script.watches = [watching(error(410, "Expired")), watching(hold=True)]
    async with reflecting(client) as run:
        await run.until_names("b")

    kinds = [one.kind for one in script.asked]
    assert kinds[:4] == ["stream", "list", "watch", "list" if remembered else "stream"]
    assert round(script.asked[1].at - script.asked[0].at, 1) == 0.0


async def test_a_server_that_ignores_the_parameter_is_listed_and_remembered(
    client: Client, script: Script, reflecting: Make
) -> None:
    """It replays what there is and never sends the mark; after 30 quiet seconds a list is taken, for good."""
    script.streams = [watching(A, hold=True)]
    script.lists = [listing("a", rv="10"), listing("b", rv="20")]
    script.watches = [watching(error(410, "Expired")), watching(hold=True)]
    async with reflecting(client) as run:
        await run.until_names("b")

    assert [one.kind for one in script.asked] == ["stream", "list", "watch", "list", "watch"]
    assert round(script.asked[1].at - script.asked[0].at, 1) == 30.0


async def test_a_busy_server_that_ignores_the_parameter_is_given_up_too(
    client: Client, script: Script, reflecting: Make
) -> None:
    """Changes that go on for ever do not put the end off for ever."""

    async def busy(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(line("MODIFIED", config_map("a", "7")))
            await asyncio.sleep(20)

    script.streams = [busy]
    script.lists = [listing("a", rv="10")]
    async with reflecting(client) as run:
        await run.until(lambda: run.mirror.names == {"a"}, 100)

    assert round(script.asked[1].at - script.asked[0].at, 1) == 90.0


@pytest.mark.parametrize(("items", "remembered"), [(("a",), False), ((), True)], ids=["objects", "empty"])
async def test_a_stream_on_which_nothing_came_is_the_connections_fault_if_there_was_something(
    client: Client, script: Script, reflecting: Make, items: tuple[str, ...], remembered: bool
) -> None:
    """Silence says that the server ignores the parameter only when it had nothing to replay."""
    script.streams = [watching(hold=True), streaming("b", rv="20", hold=True)]
    script.lists = [listing(*items, rv="10"), listing("b", rv="20")]
    script.watches = [watching(error(410, "Expired")), watching(hold=True)]
    async with reflecting(client) as run:
        await run.until_names("b")

    assert script.asked[3].kind == ("list" if remembered else "stream")


@pytest.mark.acceptance("FW-A25")
async def test_waiting_for_the_mark_is_told_every_ten_quiet_seconds(
    client: Client, script: Script, reflecting: Make, caplog: pytest.LogCaptureFixture
) -> None:
    """Once per ten seconds without an event, until the mark, and never after it."""

    async def slow(request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(25)
        return await watching(A, MARK, hold=True)(request)

    script.streams = [slow]
    async with reflecting(client) as run:
        await run.until_names("a")
        told = [
            r.getMessage() for r in caplog.records if "end of the streamed list not seen yet" in r.getMessage()
        ]
        await asyncio.sleep(60)

    text = "end of the streamed list not seen yet resource=configmaps no_event_for={0} waiting_for={0}"
    assert told == [text.format(10), text.format(20)]
    assert caplog.text.count("not seen yet") == 2
    assert "slow list resource=configmaps seconds=25.0" in caplog.text


@pytest.mark.acceptance("FW-A25")
async def test_events_put_the_warning_off(
    client: Client, script: Script, reflecting: Make, caplog: pytest.LogCaptureFixture
) -> None:
    """A list that is large, but comes, is not warned of."""

    async def large(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for number in range(8):
            await response.write(line("ADDED", config_map(f"c{number}", "5")))
            await asyncio.sleep(7)
        await response.write(line("BOOKMARK", bookmark("10", end=True)))
        await asyncio.Event().wait()
        return response

    script.streams = [large]
    async with reflecting(client) as run:
        await run.until(lambda: len(run.mirror.names) == 8, 100)

    assert "not seen yet" not in caplog.text


@pytest.mark.acceptance("FW-A26")
async def test_streamed_lists_can_be_turned_off(client: Client, script: Script, reflecting: Make) -> None:
    """Then a list and a watch, also where the server could stream."""
    script.streams = [streaming("b", rv="20", hold=True)]
    script.lists = [listing("a", rv="10")]
    async with reflecting(client, watch_list=False) as run:
        await run.until_names("a")
        await run.until(lambda: len(script.asked) == 2)

    assert asked(script) == [("list", "0"), ("watch", "10")]


async def test_the_limits_of_the_mark_can_be_set(client: Client, script: Script, reflecting: Make) -> None:
    """For servers that are known to be slow, or to ignore the parameter."""
    script.streams = [watching(A, hold=True)]
    script.lists = [listing("a", rv="10")]
    async with reflecting(client, limits=Limits(mark_quiet=3)) as run:
        await run.until_names("a")

    assert round(script.asked[1].at - script.asked[0].at, 1) == 3.0
