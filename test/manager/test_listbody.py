"""List bodies, decoded one item at a time."""

from __future__ import annotations

import asyncio
import json
import random
from typing import Any

import orjson
import pytest

from manager import listbody
from manager.types import Obj


def body(items: list[Any], **envelope: Any) -> bytes:
    return orjson.dumps(
        {"kind": "PodList", "apiVersion": "v1", "metadata": {"resourceVersion": "7"}, **envelope, "items": items}
    )


async def decoded(raw: bytes) -> tuple[Obj, list[Obj]]:
    return await listbody.decode(raw, "v1", "Pod", lambda item: item)


def pod(name: str, **spec: Any) -> Obj:
    return {"metadata": {"name": name}, "spec": spec, "apiVersion": "v1", "kind": "Pod"}


TRAPS = [
    pod("a", templates=[{"metadata": {"name": "x"}}, {"metadata": {"name": "y"}}, {"metadata": {"name": "z"}}]),
    pod("b", text='},{"metadata":{"name":"not an item"}}'),
    pod("c", text='\\"},{"metadata":', more=[[{}, {"metadata": {}}]]),
]


@pytest.mark.parametrize(
    "items",
    [[], [pod("a")], [pod("a"), pod("b")], TRAPS, TRAPS[::-1], [{"kind": "Pod", **pod("a")}, pod("b"), pod("c")]],
    ids=["empty", "one", "two", "look-alikes inside", "look-alikes reversed", "items of different order"],
)
async def test_items_are_those_of_the_whole(items: list[Obj]) -> None:
    """Also where what an item begins with comes inside another, in lists of lists and in strings."""
    envelope, found = await decoded(body(items))

    assert found == items
    assert envelope == {"kind": "PodList", "apiVersion": "v1", "metadata": {"resourceVersion": "7"}}


def test_a_list_of_custom_resources_is_taken_apart_too() -> None:
    """API servers write their lists with the items before kind and metadata."""
    rest = {"kind": "WidgetList", "metadata": {"continue": "", "resourceVersion": "7"}}
    found = listbody.split(orjson.dumps({"apiVersion": "x/v1", "items": TRAPS, **rest}) + b"\n")
    assert found is not None
    envelope, items = found

    assert envelope == {"apiVersion": "x/v1", **rest}
    assert list(items) == TRAPS


@pytest.mark.parametrize(
    "raw",
    [
        json.dumps({"kind": "PodList", "items": [pod("a"), pod("b")], "metadata": {"resourceVersion": "7"}}),
        json.dumps(
            {"kind": "PodList", "metadata": {"resourceVersion": "7"}, "items": [pod("a"), pod("b")]}, indent=1
        ),
        json.dumps({"kind": "PodList", "metadata": {"resourceVersion": "7"}, "items": [pod("a"), pod("b")]}),
    ],
    ids=["items before metadata", "indented", "with spaces"],
)
async def test_other_ways_to_write_a_list_are_read_as_a_whole(raw: str) -> None:
    """Nothing is lost where the body is not what API servers write."""
    envelope, items = await decoded(raw.encode())

    assert [item["metadata"]["name"] for item in items] == ["a", "b"]
    assert envelope["metadata"] == {"resourceVersion": "7"}


@pytest.mark.parametrize(
    "raw", [b"", b"no JSON", b"[]", body([pod("a"), pod("b")])[:-20], b'{"items":[{"a":1},}]}']
)
async def test_what_is_no_list_is_an_error(raw: bytes) -> None:
    """A body that was cut off does not pass for a shorter list."""
    with pytest.raises(orjson.JSONDecodeError):
        await decoded(raw)


@pytest.mark.parametrize("raw", [b"{}", b'{"items":null}', b'{"kind":"Table","rows":[]}'])
async def test_an_answer_without_items_has_none(raw: bytes) -> None:
    """An empty list may say null."""
    assert (await decoded(raw))[1] == []


async def test_each_item_is_shaped_completed_and_perhaps_left_out() -> None:
    """API servers write lists of their own kinds without apiVersion and kind in the items."""
    raw = body([{"metadata": {"name": name}} for name in "abc"])
    _, items = await listbody.decode(raw, "v1", "Pod", lambda obj: None if obj["metadata"]["name"] == "b" else obj)

    assert items == [{"metadata": {"name": name}, "apiVersion": "v1", "kind": "Pod"} for name in "ac"]


async def test_the_loop_has_its_turn_while_a_long_list_is_read() -> None:
    """A list of thousands does not hold up the rest of the process."""
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(others())
    _, items = await decoded(body([pod(f"p{number}") for number in range(1000)]))
    task.cancel()

    assert len(items) == 1000
    assert turns >= 10


async def test_random_lists_are_read_as_they_are(seed: int) -> None:
    """Whatever the items hold, as long as they are objects."""
    rng = random.Random(seed)

    def value(depth: int) -> Any:
        if depth and rng.random() < 0.7:
            if rng.random() < 0.5:
                return {rng.choice(["metadata", "a", "items"]): value(depth - 1) for _ in range(rng.randrange(3))}
            return [value(depth - 1) for _ in range(rng.randrange(4))]
        return rng.choice(['"', "},{", '},{"metadata":{', "]}", "\\", 1, None, True])

    for _ in range(200):
        items = [{"metadata": value(3), "spec": value(4)} for _ in range(rng.randrange(5))]
        expected = [{**item, "apiVersion": "v1", "kind": "Pod"} for item in items]
        assert (await decoded(body(items)))[1] == expected
