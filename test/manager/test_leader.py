"""Candidates in threads of their own: isolation from a stuck loop, the fence, the hand-over."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from manager.client import Client
from manager.config import RestConfig
from manager.elector import Elector
from manager.errors import ManagerError
from manager.leader import LeaderElection, LeaderElector
from manager.resources import LEASES
from manager.testing.proxy import TcpProxy

if TYPE_CHECKING:
    from conftest import Server


def election(namespace: str, who: str, **times: float) -> LeaderElection:
    fast = {"lease_duration": 2.0, "renew_deadline": 1.2, "retry_period": 0.15, **times}
    return LeaderElection("l", namespace, who, **fast)  # type: ignore[arg-type]


@asynccontextmanager
async def proxied(server: Server) -> AsyncIterator[tuple[TcpProxy, RestConfig]]:
    """The server behind a proxy that can be cut."""
    proxy = TcpProxy(server.config.server)
    proxy.start()
    try:
        host = server.config.tls_server_name or "127.0.0.1"
        yield proxy, replace(server.config, server=proxy.url, tls_server_name=host)
    finally:
        proxy.stop()


async def steal(server: Server, namespace: str) -> None:
    async with Client(server.config) as client:
        stolen = {"holderIdentity": "thief", "leaseDurationSeconds": 60}
        await client.patch(LEASES, "l", {"spec": stolen}, namespace=namespace)


async def test_a_released_lease_passes_to_the_rival_at_once(api_server: Server, namespace: str) -> None:
    """The second elector waits while the first leads, and leads soon after the first stops."""
    second = LeaderElector(api_server.config, election(namespace, "second"))
    async with LeaderElector(api_server.config, election(namespace, "first")) as first:
        async with asyncio.timeout(10):
            await first.acquired()
        await second.__aenter__()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await second.acquired()
    try:
        async with asyncio.timeout(2):
            await second.acquired()
        async with Client(api_server.config) as client:
            spec = (await client.get(LEASES, "l", namespace))["spec"]
    finally:
        await second.__aexit__(None, None, None)

    assert (spec["holderIdentity"], spec["leaseTransitions"]) == ("second", 1)


@pytest.mark.embedded_only(reason="what is tried here happens in this process")
async def test_a_loop_that_is_stuck_does_not_lose_the_lease(api_server: Server, namespace: str) -> None:
    """Longer than the lease lasts: the elector's own loop goes on renewing, and no fence falls."""
    fenced: list[bool] = []
    wish = election(namespace, "me", lease_duration=1.0, renew_deadline=0.8, retry_period=0.1)
    elector = LeaderElector(api_server.config, wish, fence=lambda: fenced.append(True))
    async with elector:
        await elector.acquired()
        time.sleep(1.5)
        await asyncio.sleep(0)

        assert not elector._lost.is_set()
        assert elector.problem() is None
    assert fenced == []


async def test_a_stuck_leader_that_reaches_nobody_is_fenced_before_others_lead(
    api_server: Server, namespace: str
) -> None:
    """The loop of its work hears of nothing; the fence falls in time all the same."""
    fallen: list[float] = []
    led: list[float] = []

    def rival() -> None:
        async def lead() -> None:
            async with LeaderElector(api_server.config, election(namespace, "rival")) as elector:
                await elector.acquired()
                led.append(time.monotonic())

        asyncio.run(lead())

    async with proxied(api_server) as (proxy, config):
        elector = LeaderElector(config, election(namespace, "me"), fence=lambda: fallen.append(time.monotonic()))
        async with elector:
            await elector.acquired()
            thread = threading.Thread(target=rival)
            thread.start()
            time.sleep(0.3)
            proxy.cut()
            time.sleep(2.2)  # the work's loop is stuck over the end of the lease
            thread.join(10)

    assert len(fallen) == len(led) == 1
    assert fallen[0] < led[0]


async def test_a_leader_that_is_cut_off_gives_up_before_a_rival_may_take_over(
    api_server: Server, namespace: str
) -> None:
    """Half-open connections: nothing is refused, nothing answers. Who reacts to the loss is not fenced."""
    fenced: list[bool] = []
    async with proxied(api_server) as (proxy, config):
        elector = LeaderElector(config, election(namespace, "me"), fence=lambda: fenced.append(True))
        async with elector, asyncio.timeout(5):
            await elector.acquired()
            proxy.cut()
            await elector.lost()
            left = elector._renewed_at + 2.0 - elector._clock()

    assert left > 0
    assert fenced == []


@pytest.mark.embedded_only(reason="what is tried here happens in this process")
async def test_a_leader_whose_lease_was_taken_hears_of_it_at_its_next_renewal(
    api_server: Server, namespace: str
) -> None:
    """Without waiting for any deadline."""
    async with LeaderElector(api_server.config, election(namespace, "me", lease_duration=9.0)) as elector:
        await elector.acquired()
        await steal(api_server, namespace)
        async with asyncio.timeout(1):
            await elector.lost()


@pytest.mark.embedded_only(reason="what is tried here happens in this process")
@pytest.mark.parametrize("works", [True, False], ids=["working", "idle"])
async def test_work_that_does_not_end_is_fenced(api_server: Server, namespace: str, works: bool) -> None:
    """Having heard of the loss is not enough: the fence falls at the end of the lease if work still runs then."""
    fenced = threading.Event()
    times = {"lease_duration": 1.0, "renew_deadline": 0.8, "retry_period": 0.1}
    elector = LeaderElector(
        api_server.config, election(namespace, "me", **times), working=lambda: works, fence=fenced.set
    )
    async with elector:
        await elector.acquired()
        await steal(api_server, namespace)
        async with asyncio.timeout(1):
            await elector.lost()
        assert not fenced.is_set()
        assert await asyncio.to_thread(fenced.wait, 1.5) is works


@pytest.mark.embedded_only(reason="what is tried here happens in this process")
async def test_a_stop_without_an_end_of_the_work_leaves_the_fence(api_server: Server, namespace: str) -> None:
    """The lease is not given back, and at its end the fence falls."""
    fenced = threading.Event()
    times = {"lease_duration": 1.0, "renew_deadline": 0.8, "retry_period": 0.1}
    elector = LeaderElector(api_server.config, election(namespace, "me", **times), fence=fenced.set)
    elector.start()
    await elector.acquired()
    await elector.stop(work_ended=False)
    async with Client(api_server.config) as client:
        assert (await client.get(LEASES, "l", namespace))["spec"]["holderIdentity"] == "me"

    assert not fenced.is_set()
    assert await asyncio.to_thread(fenced.wait, 2)


async def test_an_elector_that_fails_says_so_to_who_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug in the elector's thread must not leave a standby that waits for ever."""

    async def bug(self: Any) -> None:
        raise ValueError("bug")

    monkeypatch.setattr(Elector, "acquire", bug)
    elector = LeaderElector(RestConfig(server="http://127.0.0.1:1"), LeaderElection("l", "n", "me"))
    async with asyncio.timeout(5), elector:
        with pytest.raises(ManagerError, match="bug"):
            await elector.acquired()


@pytest.mark.acceptance("FW-F19")
@pytest.mark.parametrize(
    ("leads", "age", "healthy"),
    [(False, 99.0, True), (True, 0.0, True), (True, 15.0, True), (True, 34.9, True), (True, 35.1, False)],
    ids=["standby", "just-renewed", "expired", "tolerated", "hung"],
)
def test_the_health_check_fails_when_a_leader_no_longer_renews(leads: bool, age: float, healthy: bool) -> None:
    """After the lease's duration and the tolerance; who does not lead is healthy."""
    clock = [100.0]
    wish = LeaderElection("l", "n", "me", health_tolerance=20)
    elector = LeaderElector(RestConfig(server="http://127.0.0.1:1"), wish, clock=lambda: clock[0])
    elector._leads = leads
    elector._renewed(100.0)
    clock[0] += age

    assert (elector.problem() is None) is healthy


async def test_requests_are_signed_as_the_electors() -> None:
    """By their user agent."""
    agents: asyncio.Queue[str] = asyncio.Queue()

    async def answer(request: web.Request) -> web.Response:
        agents.put_nowait(request.headers["User-Agent"])
        return web.json_response({"kind": "Status", "code": 503}, status=503)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    async with TestServer(app) as server:
        config = RestConfig(server=str(server.make_url("")).rstrip("/"))
        async with LeaderElector(config, LeaderElection("l", "n", "me"), user_agent="kaito"), asyncio.timeout(10):
            assert await agents.get() == "kaito/leader-election"
