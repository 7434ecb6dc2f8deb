"""What is told about requests, and the metrics made of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from prometheus_client import CollectorRegistry

from manager.client import Client
from manager.config import RestConfig
from manager.errors import ConnectionFailed, NotFound
from manager.resources import CONFIGMAPS
from manager.rest_metrics import RestMetrics
from manager.testing.raw import Exchange, RawServer, answering
from manager.throttle import RateLimit, TokenBucket

OPT_IN = {
    "duration": {"rest_client_request_duration_seconds"},
    "sizes": {"rest_client_request_size_bytes", "rest_client_response_size_bytes"},
    "retries": {"rest_client_request_retries"},
    "rate_limiter": {"rest_client_rate_limiter_duration_seconds"},
    "dns": {"rest_client_dns_resolution_duration_seconds"},
}


def families(registry: CollectorRegistry) -> set[str]:
    return {family.name for family in registry.collect()}


@pytest.mark.parametrize("asked", [(), *((name,) for name in OPT_IN), tuple(OPT_IN)])
def test_only_what_is_asked_for_is_there(asked: tuple[str, ...]) -> None:
    """Requests are counted always; every other family is opt-in."""
    registry = CollectorRegistry()
    RestMetrics(registry, **dict.fromkeys(asked, True))

    wanted = set[str]().union(*(OPT_IN[name] for name in asked))
    assert families(registry) == {"rest_client_requests"} | wanted


def test_buckets_are_client_go_s() -> None:
    """Existing dashboards read them."""
    registry = CollectorRegistry()
    metrics = RestMetrics(registry, duration=True, sizes=True)
    metrics.measured("GET", "h", 0.3, 100, 2**20)
    bounds = {
        name: [s.labels["le"] for f in registry.collect() for s in f.samples if s.name == f"{name}_bucket"]
        for name in ("rest_client_request_duration_seconds", "rest_client_response_size_bytes")
    }

    assert [float(b) for b in bounds["rest_client_request_duration_seconds"]] == [
        *(0.005, 0.025, 0.1, 0.25, 0.5, 1, 2, 4, 8, 15, 30, 60, float("inf"))
    ]
    sizes = [float(b) for b in bounds["rest_client_response_size_bytes"]]
    assert (sizes[0], sizes[-2]) == (64, 16777216)


async def test_requests_are_counted_by_code_method_and_host() -> None:
    """An answer by its code, no answer as an error, an opened stream once."""

    async def handle(exchange: Exchange) -> None:
        while request := await exchange.request():
            if b"/lost" in request:
                return
            await exchange.answer(status="404 Not Found" if b"/gone" in request else "200 OK")

    registry = CollectorRegistry()
    async with RawServer(handle) as server:
        host = f"127.0.0.1:{server.port}"
        async with Client(RestConfig(server=server.url), observer=RestMetrics(registry)) as client:
            for _ in range(3):
                await client.patch(CONFIGMAPS, "a", {}, namespace="n")
            with pytest.raises(NotFound):
                await client.get(CONFIGMAPS, "gone", "n")
            with pytest.raises(ConnectionFailed):
                await client.patch(CONFIGMAPS, "lost", {}, namespace="n")
            async for _ in client.stream_lines("/log"):
                pass

    counted = {
        (s.labels["method"], s.labels["code"]): s.value
        for family in registry.collect()
        for s in family.samples
        if s.name == "rest_client_requests_total" and s.labels["host"] == host
    }
    assert counted == {("PATCH", "200"): 3, ("GET", "404"): 1, ("PATCH", "<error>"): 1, ("GET", "200"): 1}


async def test_the_opt_in_families_measure() -> None:
    """Length and sizes per verb and host, retries by the answer that asked for them, look-ups of names."""

    async def handle(exchange: Exchange) -> None:
        await exchange.request()
        await exchange.answer(status="429 Later", headers="Retry-After: 0\r\n")
        while await exchange.request():
            await exchange.answer(b'{"a": "' + b"x" * 90 + b'"}')

    registry = CollectorRegistry()
    metrics = RestMetrics(registry, duration=True, sizes=True, retries=True, rate_limiter=True, dns=True)
    async with RawServer(handle) as server:
        host = f"localhost:{server.port}"
        limit = RateLimit(1000, 10)
        config = RestConfig(server=f"http://{host}")
        async with Client(config, observer=metrics, rate_limit=limit) as client:
            await client.patch(CONFIGMAPS, "a", {"data": {"b": "c"}}, namespace="n")

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(name, labels)

    mine = {"verb": "PATCH", "host": host}
    assert value("rest_client_request_duration_seconds_count", **mine) == 2
    assert value("rest_client_request_size_bytes_sum", **mine) == 2 * len(b'{"data":{"b":"c"}}')
    assert value("rest_client_response_size_bytes_sum", **mine) == 2 + 99
    assert value("rest_client_request_retries_total", code="429", **mine) == 1
    assert value("rest_client_rate_limiter_duration_seconds_count", **mine) == 2
    assert value("rest_client_dns_resolution_duration_seconds_count", host="localhost") == 1


@pytest.mark.looptime
async def test_the_bucket_lets_a_burst_through_and_then_the_rate() -> None:
    """Ten at once, five a second after that, in order of arrival; unused time is saved up to the burst."""
    loop = asyncio.get_running_loop()
    bucket = TokenBucket(RateLimit(5, 10))
    began = loop.time()
    passed: list[tuple[int, float]] = []

    async def one(number: int) -> None:
        await bucket.wait()
        passed.append((number, round(loop.time() - began, 2)))

    await asyncio.gather(*(one(number) for number in range(13)))
    assert passed == [*((n, 0.0) for n in range(10)), (10, 0.2), (11, 0.4), (12, 0.6)]

    await asyncio.sleep(100)
    assert [await bucket.wait() for _ in range(11)][:10] == [0.0] * 10


@pytest.mark.looptime
async def test_who_gives_up_waiting_gives_the_token_back() -> None:
    """A cancelled request does not slow down later ones."""
    bucket = TokenBucket(RateLimit(1, 1))
    await bucket.wait()
    waiting = asyncio.create_task(bucket.wait())
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    await asyncio.sleep(1)

    assert await bucket.wait() == 0.0


@pytest.mark.parametrize("make", [lambda: RateLimit(0, 1), lambda: RateLimit(5, 0), lambda: RateLimit(-1, 1)])
def test_a_rate_limit_that_lets_nothing_through_is_refused(make: Callable[[], RateLimit]) -> None:
    """It would hang the first request for ever."""
    with pytest.raises(ValueError, match="rate limit"):
        make()


async def test_without_a_rate_limit_nothing_waits() -> None:
    """The default is off: the server's priority and fairness is enough."""
    async with RawServer(answering) as server, Client(RestConfig(server=server.url)) as client:
        async with asyncio.timeout(5):
            for _ in range(100):
                await client.patch(CONFIGMAPS, "a", {}, namespace="n")

    assert len(server.requests) == 100
