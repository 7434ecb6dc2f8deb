"""Liveness, readiness, the watchdog and the metrics of one server, against a scripted engine."""

from __future__ import annotations

import asyncio

import pytest

from inference_server.hardware import cpu_info, parse_gpus
from inference_server.health import Health, Watchdog
from inference_server.server import _watch_engine


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


async def statuses(client) -> list[int]:
    return [(await client.get(path)).status for path in ("/livez", "/readyz", "/healthz")]


async def test_liveness_and_readiness_are_two_questions(client, engine, shim):
    """Loading and draining are alive and not ready; a dead engine is neither."""
    assert await statuses(client) == [200, 200, 200]
    info, engine.info = engine.info, None
    assert await statuses(client) == [200, 503, 500]
    engine.info = info
    shim.health.draining = True
    assert await statuses(client) == [200, 503, 500]
    shim.health.draining = False
    engine.errored = True
    assert await statuses(client) == [500, 503, 500]


async def test_a_server_whose_adapters_are_not_there_yet_is_not_ready(client, shim):
    """The engine may be up before the adapters are; until then nothing is answered."""
    shim.health.starting = True
    assert await statuses(client) == [200, 503, 500]
    assert (await client.post("/chat", json={"prompt": "hi"})).status == 503


def test_the_watchdog_tells_busy_from_hung(engine):
    """Requests without a step for the limit mean a hang; steps, idleness or a switched-off watchdog do not."""
    clock = Clock()
    dog, off = Watchdog(10, clock), Watchdog(0, clock)
    engine.running = 2
    for _ in range(5):
        clock.now += 9
        engine.steps += 1
        assert dog.hung(engine) is None
    clock.now += 9
    assert dog.hung(engine) is None
    clock.now += 1
    assert "no step for 10 s with 2 requests" in (dog.hung(engine) or "")
    assert off.hung(engine) is None
    engine.running = 0
    assert dog.hung(engine) is None


async def test_a_hung_engine_turns_the_probes(client, engine, shim):
    """While a hang lasts health and liveness fail and requests are refused; a step brings the server back."""
    clock = Clock()
    shim.health = Health(engine, Watchdog(5, clock))
    engine.running = 1
    await client.get("/livez")
    clock.now = 6
    assert await statuses(client) == [500, 503, 500]
    assert (await client.post("/chat", json={"prompt": "hi"})).status == 503
    engine.steps += 1
    assert await statuses(client) == [200, 200, 200]


@pytest.mark.looptime
async def test_the_watchdog_looks_by_itself(engine, shim):
    """A hang counts from its beginning, without a probe that looks: idle time before it is none of it."""
    loop = asyncio.get_running_loop()
    shim.health = Health(engine, Watchdog(5, loop.time))
    watching = asyncio.create_task(_watch_engine(shim))
    await asyncio.sleep(100)
    engine.running = 1
    await asyncio.sleep(3)
    early = shim.health.broken()
    await asyncio.sleep(3)
    late = shim.health.broken()
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    assert early is None
    assert late is not None


@pytest.mark.parametrize(
    ("path", "accept", "kind"),
    [
        ("/metrics", "", "text/plain"),
        ("/metrics", "*/*", "text/plain"),
        ("/metrics", "application/json", "application/json"),
        ("/metrics?format=json", "*/*", "application/json"),
        ("/metrics?format=prometheus", "application/json", "text/plain"),
        ("/metrics", "application/openmetrics-text;version=1.0.0,text/plain;q=0.5,*/*;q=0.1", "text/plain"),
        ("/metrics", "text/html,application/json;q=0.9", "text/plain"),
    ],
)
async def test_metrics_are_prometheus_unless_json_is_asked_for(client, path, accept, kind):
    """A scraper and a browser get Prometheus' text, who asks for JSON the seed era's report."""
    reply = await client.get(path, headers={"Accept": accept} if accept else {})
    assert (reply.status, reply.content_type) == (200, kind)


@pytest.mark.acceptance("KS-A17")
async def test_the_cpu_report_has_the_seed_eras_shape(client):
    """Without a GPU /metrics as JSON is cpu_info with load, cores and memory, and gpu_info is null."""
    body = await (await client.get("/metrics", headers={"Accept": "application/json"})).json()
    assert body["gpu_info"] is None
    cpu = body["cpu_info"]
    assert set(cpu) == {"load_percentage", "physical_cores", "total_cores", "memory"}
    assert 0 <= cpu["load_percentage"] <= 100
    assert 1 <= cpu["physical_cores"] <= cpu["total_cores"]
    assert all(text.endswith(" GB") for text in (cpu["memory"]["used"], cpu["memory"]["total"]))


@pytest.mark.acceptance("KS-A17")
def test_the_gpu_report_has_the_seed_eras_shape():
    """nvidia-smi's rows become the seed era's entries, with memory that is not rounded to nothing."""
    table = "0, Tesla V100, 25, 55, 1024, 2048\n1, NVIDIA A100, [N/A], 40, 0, 81920\nnonsense\n"
    first, second = parse_gpus(table)
    assert first == {
        "id": "0",
        "name": "Tesla V100",
        "load": "25.00%",
        "temperature": "55 C",
        "memory": {"used": "1.00 GB", "total": "2.00 GB"},
    }
    assert (second["load"], second["memory"]["total"]) == ("0.00%", "80.00 GB")


def test_the_processors_load_is_that_of_the_sample():
    """Load is busy ticks over all ticks between two readings, memory what is not available."""
    found = cpu_info((100, 1000), (150, 1200), "MemTotal: 4194304 kB\nMemAvailable: 1048576 kB\n")
    assert found["load_percentage"] == 25.0
    assert found["memory"] == {"used": "3.00 GB", "total": "4.00 GB"}
    assert cpu_info((1, 1), (1, 1), "")["load_percentage"] == 0


async def test_our_metrics_count_what_happens(client, shim):
    """Requests by route and code, the time to the first token and the loading stage appear beside the engine's."""
    await (await client.post("/chat", json={"prompt": "hi", "stream": True})).read()
    await client.post("/chat", json={})
    await client.post("/nowhere/at/all", json={})
    text = await (await client.get("/metrics")).text()
    assert 'kaito_inference_requests_total{code="200",route="/chat"} 1.0' in text
    assert 'kaito_inference_requests_total{code="400",route="/chat"} 1.0' in text
    assert "nowhere" not in text
    assert 'kaito_time_to_first_token_seconds_count{route="/chat"} 1.0' in text
    assert 'kaito_load_stage{stage="Loading"} 1.0' in text
    assert 'kaito_adapters{state="Loaded"} 0.0' in text
    assert "kaito_requests_active 0.0" in text
    assert "vllm:generation_tokens_total 3.0" in text
