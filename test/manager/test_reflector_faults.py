"""A real API server behind a proxy that misbehaves: the cache ends true, and its handlers hear a possible story.

Every test writes at random to the server itself while the faults last, and compares afterwards what the informer
holds, and what its handler was told, with what the server holds. Pauses and silences are short by configuration.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any

import pytest

from manager.backoff import ExponentialBackoff
from manager.client import Client
from manager.meta import key, resource_version
from manager.reflector import Limits
from manager.resources import CONFIGMAPS, SECRETS
from manager.testing.faultproxy import (
    Answer,
    Break,
    Fault,
    FaultProxy,
    Hang,
    Misroute,
    Replay,
    Rewrite,
    doubled,
    padded,
    without_bookmarks,
)
from manager.testing.scripted import status_object
from manager.types import Obj

if TYPE_CHECKING:
    from conftest import Informing, Server

pytestmark = pytest.mark.timeout(30)

Make = type["Informing"]
HTML = "<html><body><h1>502 Bad Gateway</h1></body></html>"
FIRST, CAP = 0.01, 0.05  # seconds of the back-off
SILENCE = 0.15


@pytest.fixture
async def proxy(api_server: Server) -> AsyncIterator[FaultProxy]:
    """In front of the server; without faults yet."""
    async with FaultProxy(api_server.config) as running:
        yield running


@pytest.fixture
async def through(proxy: FaultProxy) -> AsyncIterator[Client]:
    """A client that reaches the server through the proxy."""
    async with Client(proxy.config()) as client:
        yield client


class Writer:
    """Writes at random to the server itself: ten names, so that they are often deleted and made anew."""

    def __init__(self, client: Client, namespace: str, seed: int) -> None:
        self._client, self._namespace = client, namespace
        self._rng = random.Random(seed)
        self._there: set[str] = set()
        self._count = 0

    async def write(self, times: int = 1) -> None:
        for _ in range(times):
            self._count += 1
            name = f"c{self._rng.randrange(10)}"
            if name not in self._there:
                body: Obj = {"metadata": {"name": name}, "data": {"n": str(self._count)}}
                await self._client.create(CONFIGMAPS, body, namespace=self._namespace)
                self._there.add(name)
            elif self._rng.random() < 0.3:
                await self._client.delete(CONFIGMAPS, name, self._namespace)
                self._there.discard(name)
            else:
                patch: Obj = {"data": {"n": str(self._count)}}
                await self._client.patch(CONFIGMAPS, name, patch, namespace=self._namespace)


def limits(**changes: Any) -> Limits:
    return Limits(**{"silence": SILENCE, "mark_quiet": SILENCE, "mark_total": 2.0, **changes})


GONE = status_object(410, "Expired", "too old resource version")
BUSY = status_object(429, "TooManyRequests", details={"retryAfterSeconds": 0})
INTERNAL = status_object(500, "InternalError")

FAULTS: dict[str, Callable[[], list[Fault]]] = {
    "cut-in-a-line": lambda: [Break(times=4, after=2, then="cut")],
    "cut-at-once": lambda: [Break(times=6, after=0, then="cut")],
    "half-open-stalled": lambda: [Break(times=3, after=3, then="stall")],
    "half-open-silent": lambda: [Hang(on="watch", times=2)],
    "410-in-the-stream": lambda: [Break(times=3, after=3, then=GONE)],
    "410-on-list-and-watch": lambda: [
        Answer(on="watch", times=2, status=410, reason="Expired"),
        Answer(on="list", times=1, status=410, reason="Expired"),
    ],
    "429-with-a-time": lambda: [
        Answer(on="watch", times=2, status=429, retry_after=0),
        Answer(on="list", times=2, status=429, retry_after=0),
        Break(times=1, after=2, then=BUSY),
    ],
    "burst-of-500": lambda: [Answer(on="watch", times=4, status=500), Answer(on="list", times=3, status=500)],
    "500-in-the-stream": lambda: [Break(times=3, after=2, then=INTERNAL)],
    "html-502": lambda: [
        Answer(on="watch", times=3, status=502, html=HTML),
        Answer(on="list", times=2, status=502, html=HTML),
    ],
    "html-200": lambda: [
        Answer(on="watch", times=3, status=200, html=HTML),
        Answer(on="list", times=2, status=200, html=HTML),
    ],
    "every-line-doubled": lambda: [Rewrite(times=100, edit=doubled)],
    "replays": lambda: [Break(times=1, after=6, then="cut"), Replay(times=100)],
    "no-bookmarks": lambda: [Rewrite(times=100, edit=without_bookmarks)],
    "short-watches": lambda: [Break(times=4, after=1, then="end")],
}


def _cases() -> list[tuple[str, str]]:
    """Each fault while the copy is filled by a stream and while it is followed; by a list too if lists are hit."""
    cases = []
    for name, make in FAULTS.items():
        cases += [(name, "by-stream"), (name, "following")]
        if any(fault.on == "list" for fault in make()):
            cases.append((name, "by-list"))
    return cases


@pytest.mark.parametrize(("name", "mode"), _cases(), ids=["-".join(case) for case in _cases()])
async def test_the_cache_is_true_after_a_fault(
    api_server: Server,
    proxy: FaultProxy,
    through: Client,
    namespace: str,
    informing: Make,
    seed: int,
    name: str,
    mode: str,
) -> None:
    """Nothing is lost, nothing is told that cannot be, and the requests keep to the back-off."""
    async with Client(api_server.config) as direct:
        writer = Writer(direct, namespace, seed)
        await writer.write(8)
        if mode != "following":
            proxy.faults += FAULTS[name]()
        backoff = ExponentialBackoff(
            asyncio.get_running_loop().time, first=FIRST, cap=CAP, rng=random.Random(seed)
        )
        options = {"namespace": namespace, "backoff": backoff, "limits": limits(), "watch_list": mode != "by-list"}
        async with informing(through, CONFIGMAPS, **options) as run:
            if mode == "following":
                await run.registration.wait_synced()
                proxy.faults += FAULTS[name]()
                # The watch under way is whole: cut it, so that the next meets the fault.
                await proxy.disconnect()
            await _until(lambda: _is_spent(proxy, lists=mode == "by-list"), 6.0, lambda: writer.write(1))
            await writer.write(3)
            await _agrees(direct, namespace, run)

            assert run.ledger.problems == []
            assert run.ledger.versions() == run.versions()
            fillings = run.reflector.lists + run.reflector.streamed_lists
            assert fillings > 1 or run.ledger.same == 0  # only a new list may tell an unchanged object again
        _assert_rate(proxy)


def _is_spent(proxy: FaultProxy, *, lists: bool) -> bool:
    """All faults have hit, or can go on for ever; those of lists only where there must be lists."""
    return all(fault.times > 10 or (fault.on == "list" and not lists) for fault in proxy.faults)


async def _until(condition: Callable[[], bool], seconds: float, meanwhile: Callable[[], Any]) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await meanwhile()
            await asyncio.sleep(0.01)


async def _agrees(direct: Client, namespace: str, run: Informing, seconds: float = 8.0) -> None:
    """The store and the handler hold exactly what the server holds."""
    found = await direct.list(CONFIGMAPS, namespace)
    truth = {key(obj): resource_version(obj) for obj in found.items}
    async with asyncio.timeout(seconds):
        while run.versions() != truth or run.ledger.versions() != truth:
            await asyncio.sleep(0.01)


def _assert_rate(proxy: FaultProxy) -> None:
    """Between two tries that a fault hit lies a pause, and nothing is asked for in a loop.

    Two may come together: a stream that fails and the watch after the list that took its place, or a version that
    is refused and the one try without a version.
    """
    hits = [passed.at for passed in proxy.requests if passed.hit and passed.kind != "list"]
    assert max((sum(at <= other < at + FIRST for other in hits) for at in hits), default=0) <= 2
    # Each hit leads to a stream, two lists and a watch at most.
    assert len(proxy.requests) <= 12 + 4 * sum(passed.hit for passed in proxy.requests)


async def test_a_line_of_8_mib_is_one_event(
    api_server: Server, proxy: FaultProxy, through: Client, namespace: str, informing: Make, seed: int
) -> None:
    """No limit on the length of a line, wherever its pieces are cut."""
    async with Client(api_server.config) as direct:
        writer = Writer(direct, namespace, seed)
        async with informing(through, CONFIGMAPS, namespace=namespace, watch_list=False) as run:
            await run.registration.wait_synced()
            proxy.faults += [Rewrite(times=1, edit=padded(8 * 2**20))]
            await proxy.disconnect()
            await _until(lambda: not proxy.faults, 5.0, lambda: asyncio.sleep(0.01))
            await writer.write(2)
            await _agrees(direct, namespace, run)

            assert run.ledger.problems == []


async def test_two_watches_that_get_each_others_answers(
    api_server: Server, proxy: FaultProxy, through: Client, namespace: str, informing: Make, seed: int
) -> None:
    """Objects of another kind change nothing and move nothing on: when the answers are right, all is there."""
    async with Client(api_server.config) as direct:
        writer = Writer(direct, namespace, seed)
        await writer.write(5)
        secrets = SECRETS.path(namespace)
        options = {"namespace": namespace, "watch_list": False, "limits": limits()}
        backoff = ExponentialBackoff(asyncio.get_running_loop().time, first=FIRST, cap=CAP)
        async with informing(through, CONFIGMAPS, backoff=backoff, **options) as run:
            await run.registration.wait_synced()
            before = run.reflector.resource_version
            proxy.faults += [Misroute(times=2, to=secrets, after=3)]
            await proxy.disconnect()
            await _until(lambda: not proxy.faults, 8.0, lambda: _write_secret(direct, namespace, writer))
            await writer.write(5)
            await _agrees(direct, namespace, run)

            assert run.ledger.problems == []
            assert int(run.reflector.resource_version) > int(before)


async def _write_secret(direct: Client, namespace: str, writer: Writer) -> None:
    await writer.write(1)
    body: Obj = {"metadata": {"generateName": "s-"}, "stringData": {"a": "b"}}
    await direct.create(SECRETS, body, namespace=namespace)


async def test_a_peer_that_is_gone_for_good_is_left_for_a_new_connection(
    api_server: Server, proxy: FaultProxy, through: Client, namespace: str, informing: Make, seed: int
) -> None:
    """While a half-open connection is silent the copy is old; after the silence it is true, without a list."""
    async with Client(api_server.config) as direct:
        writer = Writer(direct, namespace, seed)
        await writer.write(5)
        options = {"namespace": namespace, "watch_list": False, "limits": limits()}
        async with informing(through, CONFIGMAPS, **options) as run:
            await run.registration.wait_synced()
            proxy.faults += [Break(times=2, after=0, then="stall")]
            await proxy.disconnect()
            await writer.write(10)
            await _agrees(direct, namespace, run)

            assert run.reflector.lists == 1
            assert run.ledger.problems == []
