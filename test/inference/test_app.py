"""Routes beside /chat: health through a server's life, metrics, models, unknown paths."""

from __future__ import annotations

import pytest


async def get(client, path):
    reply = await client.get(path)
    return reply.status, await reply.json()


async def test_root_says_that_the_server_runs(client, engine):
    """GET / answers at any time, also while the model loads."""
    engine.info = None
    assert await get(client, "/") == (200, {"message": "Server is running"})


@pytest.mark.parametrize("path", ["/health", "/healthz"])
async def test_health_follows_the_engine(client, engine, shim, path):
    """Health is 500 while loading, 200 when ready, 500 again when the engine has died or the server stops."""
    info, engine.info = engine.info, None
    assert await get(client, path) == (500, {"detail": "Model not initialized"})
    engine.info = info
    assert await get(client, path) == (200, {"status": "Healthy"})
    engine.errored = True
    status, body = await get(client, path)
    assert status == 500
    assert "died" in body["detail"]
    engine.errored = False
    shim.health.draining = True
    assert await get(client, path) == (500, {"detail": "The server is shutting down"})


async def test_metrics_are_the_registrys(client):
    """GET /metrics gives the engine's counters in Prometheus' text form."""
    reply = await client.get("/metrics")
    assert reply.status == 200
    assert reply.headers["Content-Type"].startswith("text/plain")
    assert "vllm:generation_tokens_total 3.0" in await reply.text()


async def test_models_names_the_served_model(client, engine):
    """GET /v1/models lists the one model under its served name, and is 503 while loading."""
    status, body = await get(client, "/v1/models")
    assert (status, body["data"][0]["id"], body["data"][0]["owned_by"]) == (200, "tiny", "kaito")
    engine.info = None
    assert (await get(client, "/v1/models"))[0] == 503


async def test_unknown_paths_and_methods_answer_in_json(client):
    """404 and 405 carry a detail like every other error."""
    assert await get(client, "/nope") == (404, {"detail": "Not Found"})
    reply = await client.get("/chat")
    assert (reply.status, await reply.json()) == (405, {"detail": "Method Not Allowed"})
    assert reply.headers["Allow"] == "POST"


async def test_an_unexpected_failure_is_500_without_internals(client, engine, caplog):
    """A bug answers 500; the log has its kind and place, and no message, for that may quote a prompt."""

    def broken(messages):
        raise RuntimeError("secret cause")

    engine.encode_chat = broken
    reply = await client.post("/chat", json={"prompt": "my private prompt"})
    assert (reply.status, await reply.json()) == (500, {"detail": "Internal server error"})
    assert "error=RuntimeError at=" in caplog.text
    assert "secret cause" not in caplog.text
    assert "private" not in caplog.text
