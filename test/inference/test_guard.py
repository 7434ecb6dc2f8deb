"""What every request passes: API key, limits, deadlines, slow peers; against a scripted engine."""

from __future__ import annotations

import asyncio
import socket

import pytest
from aiohttp.test_utils import TestClient, TestServer
from prometheus_client import CollectorRegistry

from inference_server.app import make_app
from inference_server.server import make_shim
from inference_server.settings import ServeSettings

ROUTES = [
    ("GET", "/"),
    ("GET", "/metrics"),
    ("GET", "/version"),
    ("GET", "/v1/models"),
    ("GET", "/v1/models/tiny"),
    ("GET", "/v1/adapters"),
    ("GET", "/nowhere"),
    ("GET", "/docs"),
    ("POST", "/chat"),
    ("POST", "/v1/chat/completions"),
    ("POST", "/v1/completions"),
    ("POST", "/v1/embeddings"),
    ("POST", "/v1/load_lora_adapter"),
    ("POST", "/invocations"),
    ("POST", "/tokenize"),
    ("POST", "/detokenize"),
    ("DELETE", "/chat"),
]


# Routes of the engine's own server, and what frameworks add by themselves.
HIDDEN = [
    "/invocations",
    "/ping",
    "/v1/responses",
    "/v1/messages",
    "/v1/load_lora_adapter",
    "/v1/unload_lora_adapter",
    "/sleep",
    "/pause",
    "/collective_rpc",
    "/reset_prefix_cache",
    "/server_info",
    "/start_profile",
    "/scale_elastic_ep",
    "/inference/v1/generate",
    "/docs",
    "/openapi.json",
]


@pytest.fixture
async def serving(engine):
    """Makes a client of a server with these settings."""
    clients = []

    async def make(**settings) -> TestClient:
        shim = make_shim(
            ServeSettings(model="/m", served_model_name="tiny", **settings), engine, registry=CollectorRegistry()
        )
        shim.gate.slots = 2
        client = TestClient(TestServer(make_app(shim), handler_cancellation=True))
        await client.start_server()
        client.shim = shim
        clients.append(client)
        return client

    yield make
    for client in clients:
        await client.close()


@pytest.mark.parametrize(("method", "path"), ROUTES)
async def test_every_route_but_the_probes_wants_the_key(serving, method, path):
    """With a key configured, no path answers anything but 401 without it, whether it exists or not."""
    client = await serving(api_keys=frozenset({"s3cret", "other"}))
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "s3cret"}, {"X-API-Key": ""}):
        reply = await client.request(method, path, headers=headers, json={"prompt": "hi"})
        assert reply.status == 401
        assert reply.headers["WWW-Authenticate"] == "Bearer"


async def test_the_key_opens_and_the_probes_need_none(serving):
    """Any of the keys is taken as Bearer or X-API-Key, and a kubelet without one sees health and progress."""
    client = await serving(api_keys=frozenset({"s3cret", "other"}))
    for headers in ({"Authorization": "Bearer other"}, {"X-API-Key": "s3cret"}):
        assert (await client.post("/chat", json={"prompt": "hi"}, headers=headers)).status == 200
    for path in ("/health", "/healthz", "/livez", "/readyz", "/v1/progress"):
        assert (await client.get(path)).status == 200


@pytest.mark.parametrize("path", HIDDEN)
async def test_what_is_not_listed_does_not_exist(serving, engine, path):
    """No path of the engine's own server is reachable unless it is on the allow-list."""
    client = await serving()
    for method in ("GET", "POST", "PUT", "DELETE"):
        assert (await client.request(method, path, json={})).status == 404
    assert engine.openai_calls == []


async def test_a_full_queue_is_429_in_the_shape_of_the_route(serving, engine):
    """Beyond the queue /v1 gets OpenAI's error and /chat a detail, both with Retry-After."""
    client = await serving(max_queue=1)
    engine.hold = asyncio.Event()
    held = [asyncio.ensure_future(client.post("/chat", json={"prompt": "hi"})) for _ in range(3)]
    while engine.running < 3:
        await asyncio.sleep(0.01)
    first = await client.post("/v1/chat/completions", json={"messages": []})
    second = await client.post("/chat", json={"prompt": "hi"})
    assert (first.status, second.status) == (429, 429)
    assert (await first.json())["error"] | {"message": ""} == {
        "message": "", "type": "requests", "param": None, "code": "rate_limit_exceeded",
    }  # fmt: skip
    assert set(await second.json()) == {"detail"}
    assert int(first.headers["Retry-After"]) >= 1
    assert engine.running == 3
    assert client.shim.metrics.registry.get_sample_value("kaito_ratelimit_rejected_total") == 2
    assert client.shim.metrics.registry.get_sample_value("kaito_queue_depth") == 1
    engine.hold.set()
    assert [(await one).status for one in held] == [200, 200, 200]


async def test_while_loading_everything_says_how_far_it_is(serving, engine):
    """/v1 and /chat are 503 with progress and Retry-After; progress and liveness answer, readiness does not."""
    engine.info = None
    client = await serving()
    client.shim.health.progress = client.shim.health.progress.model_copy(update={"seconds_left": 42.0})
    chat = await client.post("/chat", json={"prompt": "hi"})
    openai = await client.post("/v1/chat/completions", json={})
    assert (chat.status, openai.status) == (503, 503)
    assert chat.headers["Retry-After"] == openai.headers["Retry-After"] == "42"
    assert (await chat.json())["progress"]["secondsLeft"] == 42
    assert (await openai.json())["error"]["progress"]["stage"] == "Loading"
    assert (await (await client.get("/v1/progress")).json())["stage"] == "Loading"
    assert [(await client.get(path)).status for path in ("/livez", "/readyz", "/health")] == [200, 503, 500]


@pytest.mark.parametrize("path", ["/chat", "/v1/chat/completions"])
async def test_a_deadline_ends_the_generation(serving, engine, path):
    """An answer that takes longer than the client's or the server's limit is 504 and aborted."""
    engine.hold = asyncio.Event()
    client = await serving(request_seconds=30)
    reply = await client.post(path, json={"prompt": "hi"}, headers={"X-Request-Timeout": "0.05"})
    assert reply.status == 504
    assert "0.05 s" in await reply.text()
    client = await serving(request_seconds=0.05)
    assert (await client.post(path, json={"prompt": "hi"}, headers={"X-Request-Timeout": "9"})).status == 504
    assert (engine.running, engine.aborted) == (0, 2)


@pytest.mark.parametrize("path", ["/chat", "/v1/chat/completions"])
async def test_a_deadline_inside_a_stream_is_an_error_event(serving, engine, path):
    """A stream that has begun ends with an error event and without the mark of a regular end."""
    engine.hold = asyncio.Event()
    client = await serving(request_seconds=0.2)
    reply = await client.post(path, json={"prompt": "hi", "stream": True})
    raw = await reply.read()
    assert reply.status == 200
    assert b"time limit" in raw
    assert b"[DONE]" not in raw
    assert engine.running == 0


@pytest.mark.parametrize("text", ["soon", "0", "-1", "nan", "inf"])
async def test_a_deadline_must_be_a_number_of_seconds(serving, text):
    """A header that is no positive number is a 400 that names it."""
    client = await serving()
    reply = await client.post("/chat", json={"prompt": "hi"}, headers={"X-Request-Timeout": text})
    assert (reply.status, "X-Request-Timeout" in await reply.text()) == (400, True)


async def test_a_body_that_trickles_is_given_up(serving):
    """A body that does not arrive in time is 408, and the connection is closed."""
    client = await serving(body_seconds=0.1)
    reader, writer = await asyncio.open_connection(client.host, client.port)
    writer.write(b"POST /chat HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
    writer.close()
    await writer.wait_closed()
    assert head.startswith(b"HTTP/1.1 408 ")
    assert b"Connection: close" in head


async def test_a_reader_that_stops_is_cut_off(serving, engine):
    """A stream that nobody reads fills a bounded buffer, is ended after the limit, and frees its place."""
    engine.words = ["x" * 100_000] * 1000
    client = await serving(stall_seconds=0.2)
    with socket.create_connection((client.host, client.port)) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        body = b'{"prompt": "hi", "stream": true}'
        connection.sendall(b"POST /chat HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
        async with asyncio.timeout(20):
            while engine.aborted == 0:
                await asyncio.sleep(0.02)
            await client.shim.gate.idle.wait()
    assert client.shim.metrics.registry.get_sample_value("kaito_stalled_readers_total") == 1
    assert engine.running == 0


async def test_a_slow_reader_gets_everything(serving, engine):
    """A reader that pauses for less than the limit loses nothing."""
    engine.words = ["x" * 100_000] * 100
    client = await serving(stall_seconds=20)
    reply = await client.post("/v1/completions", json={"prompt": "hi", "stream": True})
    received = 0
    async for chunk in reply.content.iter_chunked(1 << 20):
        received += len(chunk)
        await asyncio.sleep(0)
    assert received == 100 * (100_000 + len(b"data: \n\n"))


async def test_model_picks_the_base_or_says_what_is_served(serving, engine):
    """The served name, no name and the empty name are the base model; another is 404 with the names that exist."""
    client = await serving()
    for body in ({"model": "tiny"}, {}, {"model": ""}):
        assert (await client.post("/v1/completions", json=body)).status == 200
    reply = await client.post("/v1/completions", json={"model": "nope"})
    assert reply.status == 404
    error = (await reply.json())["error"]
    assert (error["param"], "served are tiny" in error["message"]) == ("model", True)
    assert [call[2] for call in engine.openai_calls] == ["", "", ""]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"prompt": ["a"] * 1000}, 200),
        ({"prompt": ["a"] * 1025}, 400),
        ({"n": 2000}, 400),
        ({"prompt": [1] * 5000}, 200),
        ({"prompt": ["a"] * 600, "n": 2}, 400),
    ],
)
async def test_one_request_cannot_ask_for_any_number_of_answers(serving, body, status):
    """Prompts times answers of one request are bounded; the tokens of a prompt are not prompts."""
    client = await serving()
    assert (await client.post("/v1/completions", json=body)).status == status


@pytest.mark.parametrize("raw", [b"", b"[]", b'"x"', b"{", b"\xff", b'{"a": NaN}'])
async def test_what_is_no_json_object_is_400_under_v1(serving, engine, raw):
    """OpenAI's routes answer a body that is no JSON object with OpenAI's 400."""
    client = await serving()
    reply = await client.post("/v1/chat/completions", data=raw)
    assert (reply.status, (await reply.json())["error"]["code"]) == (400, 400)
    assert engine.openai_calls == []


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
async def test_a_stream_is_framed_as_the_clients_version_wants_it(serving, engine, version):
    """HTTP/1.1 gets chunks and their end, HTTP/1.0 the bare events and a closed connection."""
    engine.words = ["one", " two", " three"]
    client = await serving()
    reader, writer = await asyncio.open_connection(client.host, client.port)
    body = b'{"prompt": "hi", "stream": true, "return_full_text": false}'
    writer.write(
        b"POST /chat HTTP/%b\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%b"
        % (version, len(body), body)
    )
    _, _, raw = (await asyncio.wait_for(reader.read(), 60)).partition(b"\r\n\r\n")
    writer.close()
    await writer.wait_closed()
    if version == b"1.1":
        left, raw = raw, b""
        while left:
            size, _, left = left.partition(b"\r\n")
            raw += left[: int(size, 16)]
            left = left[int(size, 16) + 2 :]
    events = raw.split(b"\n\n")
    assert events[:3] == [b'data: {"Result":"one"}', b'data: {"Result":" two"}', b'data: {"Result":" three"}']
    assert events[-2:] == [b"data: [DONE]", b""]
