"""Fill by a list, then watch, against a scripted server in virtual time (behaviours A of the acceptance list)."""

from __future__ import annotations

import asyncio
import itertools
import json
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web

from manager.client import Client
from manager.errors import ConnectionFailed, Gone, ServerError, TooManyRequests
from manager.reflector import Limits, Reflector
from manager.resources import CONFIGMAPS
from manager.testing.mirror import Mirror
from manager.testing.scripted import (
    Script,
    bookmark,
    config_map,
    dropping,
    failing,
    listing,
    status_object,
    streaming,
    watching,
)
from manager.types import Obj

if TYPE_CHECKING:
    from conftest import Reflecting, RefusingClient

pytestmark = pytest.mark.looptime

EXPIRED = ("ERROR", status_object(410, "Expired", "too old resource version"))
Make = type["Reflecting"]


def versions(script: Script, kind: str) -> list[str | None]:
    """The resource versions that requests of a kind named."""
    return [asked.query.get("resourceVersion") for asked in script.of(kind)]


def pauses(script: Script, kind: str) -> list[float]:
    """The seconds between requests of a kind."""
    times = [asked.at for asked in script.of(kind)]
    return [round(later - earlier, 1) for earlier, later in itertools.pairwise(times)]


# ------------------------------------------------------------------ list, then watch


@pytest.mark.acceptance("FW-A01")
async def test_list_then_watch_keeps_the_copy_true(client: Client, script: Script, reflecting: Make) -> None:
    """The watch starts at the list's version; its events change the copy and move the version on."""
    script.lists = [listing("a", "b", rv="10")]
    changes = [
        ("ADDED", config_map("c", "11")),
        ("MODIFIED", config_map("a", "12", k="v")),
        ("DELETED", config_map("b", "13")),
    ]
    script.watches = [watching(*changes, hold=True)]
    async with reflecting(client) as run:
        await run.until_names("a", "c")

        assert versions(script, "list") == ["0"]
        assert versions(script, "watch") == ["10"]
        assert script.of("watch")[0].query["allowWatchBookmarks"] == "true"
        assert run.mirror.objects["n/a"]["data"] == {"k": "v"}
        assert run.mirror.calls == [
            ("replace", "n/a n/b"),
            ("ADDED", "n/c"),
            ("MODIFIED", "n/a"),
            ("DELETED", "n/b"),
        ]
        assert run.mirror.version == run.reflector.resource_version == "13"


@pytest.mark.acceptance("FW-A02")
async def test_errors_of_list_and_watch_are_retried(client: Client, script: Script, reflecting: Make) -> None:
    """Failing lists and watches only delay; the copy ends right, and the error hook hears of each."""
    script.lists = [
        failing(500, "InternalError"),
        dropping(),
        dropping(),
        listing("a"),
        listing("a", "b", rv="20"),
    ]
    script.watches = [failing(500, "InternalError"), watching(hold=True)]
    async with reflecting(client) as run:
        await run.until_names("a", "b")

    assert versions(script, "list") == ["0", "0", "0", "0", "10"]
    assert [type(error) for error in run.errors] == [ServerError, ConnectionFailed, ServerError]


@pytest.mark.acceptance("FW-A02")
async def test_an_error_hook_that_fails_ends_nothing(client: Client, script: Script, reflecting: Make) -> None:
    """The hook is somebody else's code."""
    script.lists = [failing(500), listing("a")]
    script.watches = [watching(hold=True)]

    def hook(_: Exception) -> None:
        raise LookupError

    async with reflecting(client, on_error=hook) as run:
        await run.until_names("a")


async def test_without_a_hook_errors_are_logged_and_expired_is_no_news(
    client: Client, script: Script, reflecting: Make, caplog: pytest.LogCaptureFixture
) -> None:
    """One warning per failed try; an expired version is what a quiet time leads to."""
    script.lists = [failing(500, "InternalError", "words"), listing("a"), listing("a", "b")]
    script.watches = [watching(EXPIRED), watching(hold=True)]
    async with reflecting(client, on_error=None) as run:
        await run.until_names("a", "b")

    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert warnings == ["list or watch failed resource=configmaps retry_in=0.8 error=words (HTTP 500)"]


@pytest.mark.acceptance("FW-A03")
async def test_a_refused_watch_backs_off_and_lists_nothing(
    refusing_client: RefusingClient, script: Script, reflecting: Make
) -> None:
    """The same version again after each pause, and no list."""
    script.lists = [listing("a", rv="10")]
    script.watches = [watching(("ADDED", config_map("b", "11")), hold=True)]
    refusing_client.refusals = 4
    async with reflecting(refusing_client, watch_list=False) as run:
        await run.until_names("a", "b")

        assert run.reflector.watches == 5
    assert round(script.of("watch")[0].at - script.of("list")[0].at, 1) == 0.8 + 1.6 + 3.2 + 6.4
    assert versions(script, "watch") == ["10"]
    assert len(script.of("list")) == 1


@pytest.mark.acceptance("FW-A04")
async def test_a_backoff_of_ones_own_is_used(client: Client, script: Script, reflecting: Make) -> None:
    """All pauses are what it says."""

    class Seven:
        def next(self) -> float:
            return 7.0

    script.lists = [failing(500), failing(500), listing("a")]
    script.watches = [failing(429), watching(hold=True)]
    async with reflecting(client, backoff=Seven()) as run:
        await run.until(lambda: len(script.of("watch")) == 2)

    assert pauses(script, "list") == [7.0, 7.0]
    assert pauses(script, "watch") == [7.0]


@pytest.mark.acceptance("FW-A04")
async def test_the_pauses_of_the_default_double_up_to_a_limit_and_start_anew(
    client: Client, script: Script, reflecting: Make
) -> None:
    """0.8 s, 1.6 s ... 30 s without jitter; 0.8 s again after more than two minutes without an error."""
    script.lists = [*[failing(500)] * 8, listing("a")]
    script.watches = [watching(("ADDED", config_map("b", "11")), after=121), failing(429), watching(hold=True)]
    async with reflecting(client, limits=Limits(silence=None)) as run:
        await run.until(lambda: len(script.of("watch")) == 3, 600)

    assert pauses(script, "list") == [0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30.0, 30.0]
    assert pauses(script, "watch") == [121.0, 0.8]


# ------------------------------------------------------------------ too many requests, internal errors


@pytest.mark.acceptance("FW-A05", "FW-A06")
async def test_429_backs_off_and_watches_the_same_version(
    client: Client, script: Script, reflecting: Make
) -> None:
    """At the opening and as an event: pauses that grow, no list."""
    full = ("ERROR", status_object(429, "TooManyRequests"))
    script.lists = [listing("a", rv="10")]
    script.watches = [
        failing(429, "TooManyRequests"),
        failing(429, "TooManyRequests"),
        watching(("ADDED", config_map("b", "11")), full),
        watching(hold=True),
    ]
    async with reflecting(client) as run:
        await run.until(lambda: len(script.of("watch")) == 4)

    assert versions(script, "watch") == ["10", "10", "10", "11"]
    assert pauses(script, "watch") == [0.8, 1.6, 3.2]
    assert len(script.of("list")) == 1
    assert all(isinstance(error, TooManyRequests) for error in run.errors)


@pytest.mark.acceptance("FW-A05")
@pytest.mark.parametrize("where", ["header", "event"])
async def test_a_429_that_names_a_time_is_obeyed(
    client: Client, script: Script, reflecting: Make, where: str
) -> None:
    """The pause is at least the one that the server asks for, in a header or in the Status of an event."""
    status = status_object(429, "TooManyRequests", details={"retryAfterSeconds": 20})
    refusal = failing(429, headers={"Retry-After": "20"}) if where == "header" else watching(("ERROR", status))
    script.lists = [listing("a")]
    script.watches = [refusal, watching(hold=True)]
    async with reflecting(client) as run:
        await run.until(lambda: len(script.of("watch")) == 2)

    assert pauses(script, "watch") == [20.0]


@pytest.mark.acceptance("FW-A07")
@pytest.mark.parametrize(
    ("window", "watches"), [(0.0, 1), (1.0, 3), (5.0, 4), (6.0, 5)], ids=["off", "1s", "5s", "6s"]
)
async def test_internal_errors_are_retried_within_their_window_only(
    client: Client, script: Script, reflecting: Make, window: float, watches: int
) -> None:
    """Off: each is followed by a list. Else the same version is watched until the window has passed."""
    internal = ("ERROR", status_object(500, "InternalError"))
    script.lists = [listing("a", rv="10"), listing("b", rv="20")]
    script.watches = [*[watching(internal) for _ in range(watches)], watching(hold=True)]
    async with reflecting(client, limits=Limits(internal_errors=window)) as run:
        await run.until_names("b")
        await run.until(lambda: len(script.of("watch")) == watches + 1)

    assert versions(script, "watch") == ["10"] * watches + ["20"]  # pauses are 0.8, 1.6, 3.2 s
    assert versions(script, "list") == ["0", "10"]


@pytest.mark.acceptance("FW-A07")
async def test_internal_errors_a_minute_apart_open_a_window_each(
    client: Client, script: Script, reflecting: Make
) -> None:
    """The window is for a burst: a later error is not counted to it."""
    internal = ("ERROR", status_object(500, "InternalError"))
    late = watching(("MODIFIED", config_map("a", "11")), internal, after=0)

    async def after_a_while(request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(70)
        return await late(request)

    script.lists = [listing("a", rv="10")]
    script.watches = [watching(internal), after_a_while, after_a_while, watching(hold=True)]
    async with reflecting(client, limits=Limits(internal_errors=2, silence=None)) as run:
        await run.until(lambda: len(script.of("watch")) == 4, 300)

    assert len(script.of("list")) == 1


# ------------------------------------------------------------------ which version and which pages are listed


@pytest.mark.acceptance("FW-A08")
async def test_an_explicit_page_size_is_used_on_every_page(
    client: Client, script: Script, reflecting: Make
) -> None:
    """Each page is asked for with the limit, at any version; continuations carry no version."""
    script.lists = [listing("a", cont="t"), listing("b", rv="11"), listing("a", cont="u"), listing("b", "c")]
    script.watches = [watching(EXPIRED), watching(hold=True)]
    async with reflecting(client, page_size=1) as run:
        await run.until_names("a", "b", "c")

    assert [asked.query["limit"] for asked in script.of("list")] == ["1"] * 4
    assert versions(script, "list") == ["0", None, "10", None]
    assert script.of("list")[1].query["continue"] == "t"


@pytest.mark.acceptance("FW-A09")
async def test_a_list_at_a_version_has_no_limit(client: Client, script: Script, reflecting: Make) -> None:
    """A limit would bypass the watch cache; at "0" it does not."""
    script.lists = [listing("a", rv="10"), listing("b", rv="20")]
    script.watches = [watching(EXPIRED), watching(hold=True)]
    async with reflecting(client) as run:
        await run.until_names("b")

    assert [asked.query.get("limit") for asked in script.of("list")] == ["500", None]


@pytest.mark.acceptance("FW-A10")
async def test_pages_at_zero_show_that_there_is_no_watch_cache(
    client: Client, script: Script, reflecting: Make
) -> None:
    """From then on lists at a version come in pages too."""
    script.lists = [listing("a", cont="t"), listing("b"), listing("c", rv="20")]
    script.watches = [watching(EXPIRED), watching(hold=True)]
    async with reflecting(client) as run:
        await run.until_names("c")

    assert [asked.query.get("limit") for asked in script.of("list")] == ["500", "500", "500"]
    assert versions(script, "list") == ["0", None, "10"]


@pytest.mark.acceptance("FW-A11")
async def test_filling_anew_starts_at_the_last_version(client: Client, script: Script, reflecting: Make) -> None:
    """After an ERROR event the list is asked for at the version reached, never again at "0"."""
    script.lists = [listing("a", rv="10"), listing("a", "b", rv="12")]
    script.watches = [watching(("MODIFIED", config_map("a", "11")), EXPIRED), watching(hold=True)]
    async with reflecting(client) as run:
        await run.until_names("a", "b")

    assert versions(script, "list") == ["0", "11"]
    assert [type(error) for error in run.errors] == [Gone]


TOO_LARGE = "Too large resource version"
SHAPES = {
    "cause-type": failing(504, "Timeout", details={"causes": [{"reason": "ResourceVersionTooLarge"}]}),
    "cause-type-of-another-status": failing(
        500, "InternalError", details={"causes": [{"reason": "ResourceVersionTooLarge"}]}
    ),
    "cause-message": failing(504, "Timeout", details={"causes": [{"message": TOO_LARGE}]}),
    "message": failing(504, "Timeout", f"Timeout: {TOO_LARGE}: 99, current: 10"),
}


@pytest.mark.parametrize(
    "refusal",
    [
        pytest.param(failing(410, "Expired"), marks=pytest.mark.acceptance("FW-A12"), id="expired"),
        pytest.param(failing(410, "Gone"), marks=pytest.mark.acceptance("FW-A12"), id="gone"),
        *[pytest.param(shape, marks=pytest.mark.acceptance("FW-A14"), id=name) for name, shape in SHAPES.items()],
    ],
)
@pytest.mark.acceptance("FW-A12", "FW-A14")
async def test_an_unusable_version_is_listed_anew_at_once(
    client: Client, script: Script, reflecting: Make, refusal: Any
) -> None:
    """Expired, or too large: one more list without a version, without a pause; later lists name theirs again."""
    script.lists = [refusal, listing("a", rv="20"), listing("b", rv="30")]
    script.watches = [watching(EXPIRED), watching(hold=True)]
    async with reflecting(client) as run:
        await run.until_names("b")

    assert versions(script, "list") == ["0", None, "20"]
    assert pauses(script, "list")[0] == 0.0


@pytest.mark.acceptance("FW-A14")
@pytest.mark.parametrize(
    "refusal",
    [failing(504, "Timeout", "the request timed out"), failing(500, "InternalError", TOO_LARGE)],
    ids=["a-timeout", "words-alone"],
)
async def test_other_timeouts_say_nothing_about_the_version(
    client: Client, script: Script, reflecting: Make, refusal: Any
) -> None:
    """An error that only looks like it is an error like any other."""
    script.lists = [refusal, listing("a", rv="20")]
    script.watches = [watching(hold=True)]
    async with reflecting(client) as run:
        await run.until_names("a")

    assert versions(script, "list") == ["0", "0"]
    assert pauses(script, "list") == [0.8]


@pytest.mark.acceptance("FW-A12")
async def test_a_server_to_which_every_version_is_expired_is_not_listed_in_a_loop(
    client: Client, script: Script, reflecting: Make
) -> None:
    """Two lists, then a pause."""
    script.lists = [failing(410, "Expired")] * 4
    async with reflecting(client) as run:
        await run.until(lambda: len(script.of("list")) == 4)

    assert versions(script, "list") == ["0", None, None, None]
    assert pauses(script, "list") == [0.0, 0.8, 1.6]


@pytest.mark.acceptance("FW-A13")
async def test_an_expired_continue_token_leads_to_a_full_list(
    client: Client, script: Script, reflecting: Make
) -> None:
    """410 on a later page: everything is asked for once, without pages, at the version of the first."""
    script.lists = [listing("a", cont="t"), failing(410, "Expired"), listing("a", "b", rv="30")]
    script.watches = [watching(hold=True)]
    async with reflecting(client) as run:
        await run.until_names("a", "b")

    assert [asked.query.get("limit") for asked in script.of("list")] == ["500", "500", None]
    assert versions(script, "list") == ["0", None, "0"]


# ------------------------------------------------------------------ the watch


@pytest.mark.acceptance("FW-A15")
@pytest.mark.parametrize(("configured", "least"), [(300.0, 300), (1000.0, 1000), (10.0, 300)])
async def test_watch_timeouts_are_spread(
    client: Client, script: Script, reflecting: Make, configured: float, least: int
) -> None:
    """Between the least and twice the least, whole seconds, never under five minutes, not all the same."""
    script.lists = [listing("a")]
    script.watches = [*[watching(("MODIFIED", config_map("a", f"{n}")), after=2) for n in range(11, 31)]]
    async with reflecting(client, limits=Limits(watch_timeout=configured)) as run:
        await run.until(lambda: len(script.of("watch")) == 20, 100)

    timeouts = {int(asked.query["timeoutSeconds"]) for asked in script.of("watch")}
    assert len(timeouts) > 10
    assert least <= min(timeouts) <= max(timeouts) <= 2 * least


@pytest.mark.acceptance("FW-A16")
async def test_bookmarks_move_the_version_and_the_sink(client: Client, script: Script, reflecting: Make) -> None:
    """The next watch starts at the bookmark; the sink hears of it after the changes before it."""
    script.lists = [listing("a", rv="10")]
    script.watches = [
        watching(("ADDED", config_map("b", "11")), ("BOOKMARK", bookmark("77")), ("ADDED", config_map("c", "78"))),
        watching(hold=True),
    ]
    async with reflecting(client) as run:
        await run.until(lambda: len(script.of("watch")) == 2)

        assert versions(script, "watch") == ["10", "78"]
        assert run.mirror.calls == [
            ("replace", "n/a"),
            ("ADDED", "n/b"),
            ("BOOKMARK", "77"),
            ("ADDED", "n/c"),
        ]


async def test_a_watch_from_the_beginning_is_in_no_order_at_first(
    client: Client, script: Script, reflecting: Make
) -> None:
    """Its ADDED events do not move the version; the first other event does, and all after it."""
    script.lists = [listing(rv="")]
    unordered = [("ADDED", config_map("a", "50")), ("ADDED", config_map("b", "40"))]
    script.watches = [
        watching(*unordered),
        watching(*unordered, ("MODIFIED", config_map("a", "51")), ("ADDED", config_map("c", "52"))),
        watching(hold=True),
    ]
    async with reflecting(client) as run:
        await run.until(lambda: len(script.of("watch")) == 3)
        await run.until_names("a", "b", "c")

    assert versions(script, "watch") == [None, None, "52"]


@pytest.mark.acceptance("FW-A17")
async def test_an_error_event_of_an_unreadable_object_leads_to_a_new_list(
    client: Client, script: Script, reflecting: Make
) -> None:
    """An unsafe deletion ends the watch with an error; the new list no longer holds the object."""
    unreadable = status_object(500, "StorageReadError", "data from the storage is not transformable")
    script.lists = [listing("a", "corrupt", rv="10"), listing("a", rv="12")]
    script.watches = [watching(("ERROR", unreadable)), watching(hold=True)]
    async with reflecting(client, limits=Limits(internal_errors=60)) as run:
        await run.until_names("a")

        assert run.mirror.calls == [("replace", "n/a n/corrupt"), ("replace", "n/a")]
    assert versions(script, "list") == ["0", "10"]


def marked(obj: Obj) -> Obj:
    """A transform that shows that it ran, and how often."""
    if obj["metadata"]["name"] == "broken":
        raise ValueError("cannot be transformed")
    return {**obj, "data": {"times": obj.get("data", {}).get("times", 0) + 1}}


@pytest.mark.acceptance("FW-A18")
@pytest.mark.parametrize("mode", ["list", "stream"])
async def test_objects_are_transformed_once_in_both_modes(
    client: Client, script: Script, reflecting: Make, mode: str
) -> None:
    """Listed, streamed or watched; an object that cannot be transformed is dropped, its deletion is not."""
    changes = (
        ("MODIFIED", config_map("b", "11")),
        ("ADDED", config_map("broken", "12")),
        ("ADDED", config_map("c", "13")),
        ("DELETED", config_map("broken", "14")),
    )
    if mode == "list":
        script.lists = [listing("a", "b", "broken", rv="10")]
        script.watches = [watching(*changes, hold=True)]
    else:
        script.streams = [streaming("a", "b", "broken", rv="10", then=changes, hold=True)]
    async with reflecting(client, transform=marked) as run:
        await run.until(lambda: run.mirror.version == "14")

        assert run.mirror.names == {"a", "b", "c"}
        assert [obj["data"] for obj in run.mirror.objects.values()] == [{"times": 1}] * 3
        assert ("DELETED", "n/broken") in run.mirror.calls


@pytest.mark.acceptance("FW-A19")
@pytest.mark.parametrize("moment", ["before", "list", "backoff", "watch", "stream"])
async def test_stopping_is_prompt_and_no_error(
    client: Client, script: Script, reflecting: Make, moment: str
) -> None:
    """Whatever it is doing, it ends in no time, says nothing and leaves no request open."""
    script.lists = {"watch": [listing("a")], "backoff": [failing(500)]}.get(moment, [])
    if moment == "stream":
        script.streams = []
    loop = asyncio.get_running_loop()
    async with reflecting(client) as run:
        await asyncio.sleep(0.5 if moment != "before" else 0)
        errors = list(run.errors)
        began = loop.time()

    assert loop.time() - began < 0.1
    assert run.errors == errors
    await asyncio.sleep(30)
    assert len(script.asked) <= 3


@pytest.mark.acceptance("FW-A20")
@pytest.mark.parametrize(
    "odd",
    [
        ("ADDED", {"kind": "Secret", "apiVersion": "v1", "metadata": {"name": "x", "resourceVersion": "99"}}),
        ("ADDED", {"kind": "ConfigMap", "apiVersion": "v2", "metadata": {"name": "x", "resourceVersion": "99"}}),
        ("MOVED", {**config_map("x", "99")}),
        ("ADDED", {"kind": "ConfigMap", "apiVersion": "v1"}),
        ("ADDED", {"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"resourceVersion": "99"}}),
        ("ADDED", ["x"]),
        ("BOOKMARK", {"kind": "Secret", "apiVersion": "v1", "metadata": {"resourceVersion": "99"}}),
    ],
    ids=["kind", "version", "type", "no-metadata", "no-name", "no-object", "bookmark"],
)
async def test_an_event_of_the_wrong_sort_is_skipped(
    client: Client, script: Script, reflecting: Make, odd: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """It changes neither the copy nor the version, is logged, and the events after it count."""
    script.lists = [listing("a", rv="10")]
    script.watches = [watching(odd, ("ADDED", config_map("b", "11"))), watching(hold=True)]
    async with reflecting(client) as run:
        await run.until(lambda: len(script.of("watch")) == 2)

        assert run.mirror.calls == [("replace", "n/a"), ("ADDED", "n/b")]
    assert versions(script, "watch") == ["10", "11"]
    assert "unexpected event skipped" in caplog.text


@pytest.mark.acceptance("FW-A20")
async def test_a_watch_that_ends_at_once_with_nothing_is_an_error(
    client: Client, script: Script, reflecting: Make
) -> None:
    """It leads to a pause and a list; one that lasted, or brought something, is followed by a watch at once."""
    script.lists = [listing("a", rv="10"), listing("b", rv="20")]
    script.watches = [
        watching(after=1.5),
        watching(("MODIFIED", config_map("a", "11"))),
        watching(after=1.5),
        watching(),
        watching(hold=True),
    ]
    async with reflecting(client) as run:
        await run.until_names("b")
        await run.until(lambda: len(script.of("watch")) == 5)

    assert pauses(script, "watch") == [1.5, 0.0, 1.5, 0.8]
    assert versions(script, "list") == ["0", "11"]
    assert [type(error) for error in run.errors] == [ConnectionFailed]


@pytest.mark.acceptance("FW-A21")
async def test_resyncs_come_with_their_period_once_the_copy_is_filled(
    client: Client, script: Script, reflecting: Make
) -> None:
    """The sink is told, watch or no watch, and never before the first list."""
    script.lists = [failing(500), listing("a"), listing("a")]
    script.watches = [watching(EXPIRED), watching(hold=True)]
    async with reflecting(client, resync_period=0.5) as run:
        await asyncio.sleep(5.2)

    assert run.mirror.calls[0] == ("replace", "n/a")
    assert run.mirror.calls.count(("resync", "")) == 9  # of ten ticks the first was too early


@pytest.mark.acceptance("FW-A22")
@pytest.mark.parametrize("where", ["list", "watch", "stream"])
async def test_a_table_is_refused(client: Client, script: Script, reflecting: Make, where: str) -> None:
    """Rows of a printer are no objects: an error, in a list and in both sorts of watch."""
    table = {"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": {"resourceVersion": "11"}, "rows": []}

    async def tables(_: web.Request) -> web.StreamResponse:
        return web.json_response(table)

    in_watch = watching(("ADDED", table))
    script.lists = [tables, listing("a")] if where == "list" else [listing("a"), listing("a")]
    script.watches = [*([in_watch] if where == "watch" else []), watching(hold=True)]
    script.streams = [in_watch, streaming("a", rv="10", hold=True)] if where == "stream" else None
    async with reflecting(client) as run:
        await run.until_names("a")
        await asyncio.sleep(5)

        assert all(call[0] == "replace" for call in run.mirror.calls)
    assert ["Table" in str(error) for error in run.errors] == ([True] if where != "stream" else [])


# ------------------------------------------------------------------ ends of watches


async def test_a_normal_end_is_followed_by_a_watch_at_once(
    client: Client, script: Script, reflecting: Make
) -> None:
    """No pause, no list, no error: the server's timeout is the hot path."""
    script.lists = [listing("a", rv="10")]
    script.watches = [
        *[watching(("MODIFIED", config_map("a", f"{n}")), after=60) for n in range(11, 21)],
        watching(hold=True),
    ]
    async with reflecting(client) as run:
        await run.until(lambda: len(script.of("watch")) == 11, 700)

    assert versions(script, "watch") == [str(n) for n in range(10, 21)]
    assert pauses(script, "watch") == [60.0] * 10
    assert run.errors == []


async def test_watches_that_end_at_once_are_not_opened_in_a_loop(
    client: Client, script: Script, reflecting: Make
) -> None:
    """One hasty end is resumed at once; more in a row back off, although each brought something."""
    script.lists = [listing("a", rv="10")]
    script.watches = [watching(("BOOKMARK", bookmark("10"))) for _ in range(5)]
    async with reflecting(client) as run:
        await run.until(lambda: len(script.of("watch")) == 6)

    assert pauses(script, "watch") == [0.0, 0.8, 1.6, 3.2, 6.4]
    assert len(script.of("list")) == 1


@pytest.mark.parametrize(("after", "pause"), [(5.0, 5.0), (0.0, 0.8)], ids=["had-worked", "at-once"])
async def test_a_connection_that_breaks_is_resumed_where_it_was(
    client: Client, script: Script, reflecting: Make, after: float, pause: float
) -> None:
    """Cut in the middle of a line: what was whole counts; a watch that had worked is resumed without a pause."""
    script.lists = [listing("a", rv="10")]
    script.watches = [watching(("ADDED", config_map("b", "11")), broken=True, after=after), watching(hold=True)]
    async with reflecting(client) as run:
        await run.until(lambda: len(script.of("watch")) == 2)

        assert run.mirror.names == {"a", "b"}
    assert versions(script, "watch") == ["10", "11"]
    assert pauses(script, "watch") == [pause]
    assert len(script.of("list")) == 1


async def test_a_silent_watch_is_opened_anew_at_once_from_where_it_was(
    client: Client, script: Script, reflecting: Make
) -> None:
    """A half-open connection is noticed after 70 s without a byte, also when not even an answer came."""
    script.lists = [listing("a", rv="10")]
    script.watches = [watching(("ADDED", config_map("b", "11")), hold=True)]
    async with reflecting(client) as run:
        await run.until(lambda: len(script.of("watch")) == 4, 300)

    assert versions(script, "watch") == ["10", "11", "11", "11"]
    assert pauses(script, "watch") == [70.0, 70.0, 70.0]
    assert len(script.of("list")) == 1
    assert run.errors == []


async def test_a_watch_that_outlives_its_time_is_ended_from_this_side(
    client: Client, script: Script, reflecting: Make
) -> None:
    """A server that sends bookmarks but does not keep to timeoutSeconds is left a little after it."""

    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for version in range(11, 10_000):
            line = json.dumps({"type": "BOOKMARK", "object": bookmark(str(version))})
            await response.write(line.encode() + b"\n")
            await asyncio.sleep(50)
        return response

    script.lists = [listing("a", rv="10")]
    script.watches = [endless, watching(hold=True)]
    async with reflecting(client) as run:
        await run.until(lambda: len(script.of("watch")) == 2, 700)

    (pause,) = pauses(script, "watch")
    assert pause == int(script.of("watch")[0].query["timeoutSeconds"]) + 30


async def test_a_server_that_always_says_expired_is_not_listed_in_a_loop(
    client: Client, script: Script, reflecting: Make
) -> None:
    """Between two lists lies the back-off, whoever is to blame for the 410."""
    script.lists = [listing("a") for _ in range(50)]
    script.watches = [failing(410, "Expired") for _ in range(50)]
    async with reflecting(client):
        await asyncio.sleep(7)

    assert pauses(script, "list") == [0.8, 1.6, 3.2]


async def test_events_of_the_past_are_dropped(
    client: Client, script: Script, reflecting: Make, caplog: pytest.LogCaptureFixture
) -> None:
    """A server that replays what was told already neither undoes a deletion nor repeats a change."""
    past = [("ADDED", config_map("b", "11")), ("DELETED", config_map("a", "12"))]
    script.lists = [listing("a", rv="10")]
    script.watches = [
        watching(*past, *past, ("ADDED", config_map("a", "13"))),
        watching(*past, ("ADDED", config_map("a", "13")), ("MODIFIED", config_map("b", "14")), hold=True),
    ]
    async with reflecting(client) as run:
        await run.until(lambda: run.mirror.version == "14")

        assert run.mirror.calls[1:] == [
            ("ADDED", "n/b"),
            ("DELETED", "n/a"),
            ("ADDED", "n/a"),
            ("MODIFIED", "n/b"),
        ]
    assert "skipped count=2 version=13" in caplog.text
    assert "skipped count=3 version=14" in caplog.text


async def test_objects_that_go_together_share_a_version(client: Client, script: Script, reflecting: Make) -> None:
    """A lease of etcd that runs out deletes several Events in one revision: each of them is told, once."""
    script.lists = [listing("a", "b", "c", rv="10")]
    gone = [("DELETED", config_map(name, "11")) for name in ("a", "b", "c")]
    script.watches = [watching(*gone, *gone, hold=True)]
    async with reflecting(client) as run:
        await run.until(lambda: run.mirror.version == "11")

        assert run.mirror.calls[1:] == [("DELETED", "n/a"), ("DELETED", "n/b"), ("DELETED", "n/c")]


async def test_versions_that_are_no_numbers_are_not_compared(
    client: Client, script: Script, reflecting: Make
) -> None:
    """An aggregated server may have versions of its own; they move on as they come."""
    script.lists = [listing("a", rv="x9")]
    script.watches = [
        watching(("MODIFIED", config_map("a", "x1")), ("MODIFIED", config_map("a", "x0"))),
        watching(hold=True),
    ]
    async with reflecting(client) as run:
        await run.until(lambda: len(script.of("watch")) == 2)

        assert run.mirror.calls[1:] == [("MODIFIED", "n/a")] * 2
    assert versions(script, "watch") == ["x9", "x0"]


# ------------------------------------------------------------------ slow lists, metadata


@pytest.mark.parametrize(("seconds", "told"), [(11, True), (9, False)])
async def test_a_slow_list_is_told(
    client: Client, script: Script, reflecting: Make, seconds: int, told: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """More than ten seconds are worth a line in the log."""

    async def slow(request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(seconds)
        return await listing("a")(request)

    script.lists = [slow]
    async with reflecting(client) as run:
        await run.until_names("a")

    assert ("slow list resource=configmaps seconds=11.0 version=10" in caplog.text) is told


def _partial(names: list[str]) -> list[Obj]:
    return [
        {
            "apiVersion": "meta.k8s.io/v1",
            "kind": "PartialObjectMetadata",
            "metadata": config_map(name, "1")["metadata"],
        }
        for name in names
    ]


@pytest.mark.parametrize("mode", ["list", "stream"])
async def test_metadata_alone_keeps_its_true_kind(
    client: Client, script: Script, reflecting: Make, mode: str
) -> None:
    """The server is asked for partial objects; the sink gets them under the resource's own kind, nothing else."""
    mark = {**_partial([""])[0], "metadata": bookmark("10", end=True)["metadata"]}
    change = {**_partial(["b"])[0], "metadata": config_map("b", "11")["metadata"]}

    async def partial_list(_: web.Request) -> web.StreamResponse:
        body = {
            "kind": "PartialObjectMetadataList",
            "metadata": {"resourceVersion": "10"},
            "items": _partial(["a"]),
        }
        return web.json_response(body)

    script.lists = [partial_list]
    script.watches = [watching(("ADDED", change), hold=True)]
    if mode == "stream":
        script.streams = [
            watching(("ADDED", _partial(["a"])[0]), ("BOOKMARK", mark), ("ADDED", change), hold=True)
        ]
    async with reflecting(client, metadata_only=True) as run:
        await run.until_names("a", "b")

        for obj in run.mirror.objects.values():
            assert set(obj) == {"apiVersion", "kind", "metadata"}
            assert (obj["apiVersion"], obj["kind"]) == ("v1", "ConfigMap")
    accepted = {asked.kind: asked.accept for asked in script.asked}
    assert accepted.pop("list", "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1") == (
        "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
    )
    assert set(accepted.values()) == {"application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"}


async def test_selectors_and_namespace_are_asked_for_everywhere(
    client: Client, script: Script, reflecting: Make
) -> None:
    """In lists, watches and streamed lists alike."""
    script.streams = [failing(500)]
    script.lists = [listing("a")]
    options = {"namespace": "n", "label_selector": "a=b", "field_selector": "metadata.name=a"}
    async with reflecting(client, **options) as run:
        await run.until(lambda: len(script.of("watch")) == 1)

    assert {asked.kind for asked in script.asked} == {"stream", "list", "watch"}
    assert {asked.query["labelSelector"] for asked in script.asked} == {"a=b"}
    assert {asked.query["fieldSelector"] for asked in script.asked} == {"metadata.name=a"}
    assert {seen["path"] for seen in script.seen} == {"/api/v1/namespaces/n/configmaps"}


async def test_a_sink_that_fails_ends_the_reflector(client: Client, script: Script) -> None:
    """A bug of the program is not retried as if the network had failed."""

    class Broken(Mirror):
        def replace(self, items: list[Obj], version: str) -> None:
            raise LookupError

    script.lists = [listing("a")]
    with pytest.raises(LookupError):
        await Reflector(client, CONFIGMAPS, Broken()).run()
