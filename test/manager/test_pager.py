"""Large collections in pages (behaviours A of the acceptance list)."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from manager.client import ObjectList
from manager.errors import ApiError, Gone, ServerError
from manager.pager import Pager, Query
from manager.testing.scripted import config_map


class Pages:
    """A server that holds numbered objects and answers in pages; it records what it was asked for."""

    def __init__(self, count: int, *, fail: dict[int, Exception] | None = None) -> None:
        self.count = count
        self.fail = fail or {}
        self.asked: list[dict[str, Any]] = []

    async def fetch(self, query: Query) -> ObjectList:
        self.asked.append({name: value for name, value in query.items() if value is not None})
        if error := self.fail.get(len(self.asked)):
            raise error
        start = int(str(query.get("continue") or 0))
        end = self.count if query.get("limit") is None else min(start + int(str(query["limit"])), self.count)
        items = [config_map(f"c{number}", "1") for number in range(start, end)]
        # A version per page: the whole list has that of the first.
        return ObjectList(items, str(100 + len(self.asked)), str(end) if end < self.count else "")


def names(items: list[dict[str, Any]]) -> list[str]:
    return [item["metadata"]["name"] for item in items]


@pytest.mark.acceptance("FW-A27")
@pytest.mark.parametrize(
    ("count", "size", "requests"),
    [(0, 10, 1), (1, 10, 1), (10, 10, 1), (11, 10, 2), (35, 10, 4), (35, 0, 1)],
)
async def test_a_list_is_fetched_in_chunks_and_keeps_its_order(count: int, size: int, requests: int) -> None:
    """As many requests as there are pages; the whole is in order, at the first page's version."""
    server = Pages(count)

    found = await Pager(server.fetch, page_size=size).list({"resourceVersion": "0"})

    assert names(found.items) == [f"c{number}" for number in range(count)]
    assert (found.resource_version, found.paginated) == ("101", requests > 1)
    assert len(server.asked) == requests
    assert [asked.get("limit") for asked in server.asked] == [size or None] * requests


@pytest.mark.acceptance("FW-A27")
async def test_a_continuation_names_no_version() -> None:
    """Only the first request carries the version and how to match it."""
    server = Pages(25)

    await Pager(server.fetch, page_size=10).list(
        {"resourceVersion": "7", "resourceVersionMatch": "NotOlderThan", "labelSelector": "a=b"}
    )

    first, *later = server.asked
    assert first == {
        "resourceVersion": "7",
        "resourceVersionMatch": "NotOlderThan",
        "labelSelector": "a=b",
        "limit": 10,
    }
    assert later == [
        {"labelSelector": "a=b", "limit": 10, "continue": "10"},
        {"labelSelector": "a=b", "limit": 10, "continue": "20"},
    ]


@pytest.mark.acceptance("FW-A27")
async def test_a_limit_of_the_query_goes_before_the_page_size() -> None:
    """Who asks for pages of a size gets them."""
    server = Pages(6)

    await Pager(server.fetch, page_size=500).list({"limit": 3})

    assert [asked["limit"] for asked in server.asked] == [3, 3]


@pytest.mark.acceptance("FW-A27")
async def test_a_rest_that_expired_leads_to_one_full_list_at_the_first_version() -> None:
    """410 on a later page: everything once more, unpaged, at the version that was asked for."""
    server = Pages(25, fail={2: Gone(410, "Expired")})

    found = await Pager(server.fetch, page_size=10).list({"resourceVersion": "7"})

    assert names(found.items) == [f"c{number}" for number in range(25)]
    assert (found.resource_version, found.paginated) == ("103", True)
    assert server.asked[2] == {"resourceVersion": "7"}


@pytest.mark.acceptance("FW-A27")
@pytest.mark.parametrize(
    ("fail", "full_list", "requests"),
    [
        ({1: Gone(410, "Expired")}, True, 1),
        ({2: Gone(410, "Expired")}, False, 2),
        ({2: Gone(410, "Expired"), 3: Gone(410, "Expired")}, True, 3),
        ({2: ServerError(500, "InternalError")}, True, 2),
    ],
    ids=["first-page-expired", "no-full-list-wanted", "full-list-expired-too", "another-error"],
)
async def test_what_a_full_list_cannot_mend_is_raised(
    fail: dict[int, Exception], full_list: bool, requests: int
) -> None:
    """An expired first page, an expired full list, and every other error."""
    server = Pages(25, fail=fail)
    with pytest.raises(ApiError):
        await Pager(server.fetch, page_size=10, full_list_if_expired=full_list).list({})

    assert len(server.asked) == requests


@pytest.mark.acceptance("FW-A27")
async def test_each_object_comes_once_and_in_order() -> None:
    """A pass over all pages."""
    server = Pages(35)

    assert [obj["metadata"]["name"] async for obj in Pager(server.fetch, page_size=10).each({})] == [
        f"c{number}" for number in range(35)
    ]


@pytest.mark.acceptance("FW-A27")
@pytest.mark.looptime
async def test_pages_are_fetched_ahead_up_to_the_buffer() -> None:
    """While the reader works on the first page, the buffer fills and then waits."""
    server = Pages(100)
    pages = Pager(server.fetch, page_size=10, buffer=3).pages({})
    await anext(pages)
    await asyncio.sleep(1)

    assert len(server.asked) == 5  # one read, three in the buffer, one at its door
    await pages.aclose()
    await asyncio.sleep(1)
    assert len(server.asked) == 5


@pytest.mark.acceptance("FW-A27")
async def test_a_failing_page_comes_after_those_before_it() -> None:
    """The reader gets every page that there was, then the error."""
    server = Pages(50, fail={3: ServerError(500, "InternalError")})
    seen: list[int] = []
    with pytest.raises(ServerError):
        async for page in Pager(server.fetch, page_size=10).pages({}):
            seen += [len(page.items)]

    assert seen == [10, 10]


@pytest.mark.acceptance("FW-A27")
async def test_a_reader_that_stops_early_stops_the_fetching() -> None:
    """An error in the loop's body ends the producer too; no task is left."""
    server = Pages(1000)
    pages = Pager(server.fetch, page_size=10, buffer=1).pages({})
    with pytest.raises(LookupError):
        async for _ in pages:
            raise LookupError
    await pages.aclose()

    assert len(server.asked) <= 3
    assert [task for task in asyncio.all_tasks() if task.get_name() == "pager"] == []
