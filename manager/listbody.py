"""The body of a list, decoded one item at a time: what a large list costs in memory and in stalls is one item.

In: the bytes of an answer. Out: its envelope, and its items one after the other. Decoded as a whole, a list is in
memory as unshared dicts all at once, and most of that memory never goes back to the system, however little is kept
of it: 6,000 Pods leave 33 KiB each behind as one list, 6 as items that are shared and stripped one by one.

Items are found by how the first one begins, and every one must decode by itself: a cut in the wrong place leaves
brackets open and cannot decode, so that no item is ever taken for two. A body that does not look like what API
servers write is decoded as a whole.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import orjson

from manager.types import Obj
from manager.wire import Body

Each = Callable[[Obj], Obj | None]

_START = b'"items":['
_HEAD = 12  # bytes: {"metadata": or {"apiVersion
_BREATH = 64  # items, about 3 ms, after which the event loop has its turn
_TRIES = 200  # wrong cuts in one item; a list with more is decoded as a whole


def split(raw: Body) -> tuple[dict[str, Any], Iterator[dict[str, Any]]] | None:
    """The envelope without its items, and the items; None when the body must be decoded as a whole.

    The items raise ``orjson.JSONDecodeError`` where the body turns out to be no list of objects after all; what
    was given before is right, but not everything.
    """
    start = raw.find(_START, 0, 2000)
    end = raw.rfind(b"]")
    if start < 0 or end < start:
        return None
    first = start + len(_START)
    try:
        # Behind the items stands nothing, or (of custom resources) kind and metadata, which hold no bracket.
        envelope = orjson.loads(raw[:first] + raw[end:])
    except orjson.JSONDecodeError:
        return None
    if not isinstance(envelope, dict) or raw[first : first + 1] not in (b"{", b"]"):
        return None
    del envelope["items"]
    return envelope, _items(raw, first, end)


def _items(raw: Body, begin: int, end: int) -> Iterator[dict[str, Any]]:
    if begin == end:
        return
    between = b"}," + raw[begin : begin + _HEAD]
    loads = orjson.loads
    find = raw.find
    while begin < end:
        cut = begin
        for _ in range(_TRIES):
            cut = find(between, cut, end)
            stop = end if cut < 0 else cut + 1
            try:
                item = loads(memoryview(raw)[begin:stop])
                break
            except orjson.JSONDecodeError:
                if cut < 0:
                    raise
                cut += 1
        else:
            raise orjson.JSONDecodeError("too many places that look like the end of an item", "", 0)
        yield item
        begin = stop + 1


async def decode(raw: Body, api_version: str, kind: str, each: Each) -> tuple[Obj, list[Obj]]:
    """The envelope, and what ``each`` makes of the items, which have apiVersion and kind; None leaves one out.

    The event loop has its turn in between.

    Raises:
        orjson.JSONDecodeError: this is no JSON object.
    """
    found = split(raw)
    if found is not None:
        envelope, items = found
        try:
            return envelope, await _made(items, api_version, kind, each)
        except orjson.JSONDecodeError:
            pass  # decoded as a whole it may still be a list, and else the error is about all of it
    envelope = orjson.loads(raw)
    if not isinstance(envelope, dict):
        raise orjson.JSONDecodeError("not an object", "", 0)
    found_items = envelope.pop("items", None)
    listed = [item for item in found_items if isinstance(item, dict)] if isinstance(found_items, list) else []
    return envelope, await _made(iter(listed), api_version, kind, each)


async def _made(items: Iterator[Obj], api_version: str, kind: str, each: Each) -> list[Obj]:
    made: list[Obj] = []
    for number, item in enumerate(items, 1):
        item.setdefault("apiVersion", api_version)
        item.setdefault("kind", kind)
        if (kept := each(item)) is not None:
            made.append(kept)
        if number % _BREATH == 0:
            await asyncio.sleep(0)
    return made
