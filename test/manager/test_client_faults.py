"""Whatever a server or a network does, what comes out of the client is an error of this room, in time."""

from __future__ import annotations

import asyncio
import gzip
import ssl
import traceback
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from kaito.local.pki import Authority
from manager.client import Client, PatchType
from manager.config import RestConfig
from manager.errors import ApiError, ConfigError, ConnectionFailed, ManagerError, ServerError
from manager.resources import CONFIGMAPS, PODS
from manager.testing.raw import Exchange, RawServer, answering

SECRET = "do-not-tell-anybody"
OBJ = {"metadata": {"name": "a", "namespace": "n"}}

Verb = Callable[[Client], Awaitable[Any]]


async def _all(stream: Any) -> list[Any]:
    return [item async for item in stream]


VERBS: dict[str, Verb] = {
    "get": lambda c: c.get(CONFIGMAPS, "a", "n"),
    "list": lambda c: c.list(CONFIGMAPS),
    "create": lambda c: c.create(CONFIGMAPS, OBJ),
    "replace": lambda c: c.replace(CONFIGMAPS, OBJ),
    "patch": lambda c: c.patch(CONFIGMAPS, "a", {}, namespace="n"),
    "json-patch": lambda c: c.patch(CONFIGMAPS, "a", [], namespace="n", type=PatchType.JSON),
    "apply": lambda c: c.apply(CONFIGMAPS, OBJ),
    "status": lambda c: c.patch_status(PODS, OBJ, {"phase": "x"}),
    "delete": lambda c: c.delete(CONFIGMAPS, "a", "n"),
    "delete-all-of": lambda c: c.delete_all_of(CONFIGMAPS, "n"),
    "eviction": lambda c: c.create(PODS, {}, name="a", namespace="n", subresource="eviction"),
    "metadata": lambda c: c.metadata_only().get(CONFIGMAPS, "a", "n"),
    "watch": lambda c: _all(c.watch(CONFIGMAPS)),
    "log": lambda c: _all(c.stream_lines("/log")),
    "text": lambda c: c.text("/healthz"),
    "discover": lambda c: c.discover("apps", "Deployment", "v1"),
}


async def _refuses(exchange: Exchange) -> None:
    exchange.reset()


async def _resets(exchange: Exchange) -> None:
    await exchange.request()
    exchange.reset()


async def _closes(exchange: Exchange) -> None:
    await exchange.request()


async def _greets(exchange: Exchange) -> None:
    await exchange.reader.read(1)
    await exchange.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")


async def _hangs(exchange: Exchange) -> None:
    await exchange.request()
    await asyncio.sleep(3600)


async def _hangs_in_the_body(exchange: Exchange) -> None:
    await exchange.request()
    await exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{")
    await asyncio.sleep(3600)


async def _hangs_in_a_body_without_end(exchange: Exchange) -> None:
    await exchange.request()
    await exchange.send(b'HTTP/1.1 200 OK\r\n\r\n{"kind": "ConfigMap"}')
    await asyncio.sleep(3600)


async def _resets_in_the_body(exchange: Exchange) -> None:
    await exchange.request()
    await exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{")
    exchange.reset()


def _sends(data: bytes) -> Callable[[Exchange], Awaitable[None]]:
    async def handle(exchange: Exchange) -> None:
        await exchange.request()
        await exchange.send(data)

    return handle


def _body(body: bytes, status: str = "200 OK", headers: str = "") -> Callable[[Exchange], Awaitable[None]]:
    return _sends(f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{headers}\r\n".encode() + body)


GZIP = "Content-Encoding: gzip\r\n"
FAULTS = {
    "resets before the request": _refuses,
    "resets before the answer": _resets,
    "closes before the answer": _closes,
    "never answers": _hangs,
    "stops in the body": _hangs_in_the_body,
    "stops in a body without length": _hangs_in_a_body_without_end,
    "resets in the body": _resets_in_the_body,
    "truncated body": _sends(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"),
    "truncated head": _sends(b"HTTP/1.1 200 OK\r\nContent-"),
    "truncated chunks": _sends(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{"),
    "bad chunks": _sends(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n"),
    "bad length": _sends(b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n{}"),
    "not HTTP": _sends(b"220 mail.example.com ESMTP\r\n"),
    "noise": _sends(bytes(range(256)) * 10),
    "head without end": _sends(b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000 + b"\r\n\r\n"),
    "too many headers": _sends(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 10_000 + b"\r\n"),
    "truncated JSON": _body(b'{"items": ['),
    "JSON of another type": _body(b"[1, 2]"),
    "odd JSON": _body(b'{"kind": 7, "metadata": [], "items": {"a": 1}, "resources": 1}'),
    "odd items": _body(b'{"items": [1, null], "metadata": {"continue": 7}, "resources": ["x"]}'),
    "HTML": _body(b"<html>welcome</html>"),
    "HTML 502": _body(b"<html>502 Bad Gateway</html>", "502 Bad Gateway"),
    "empty 500": _body(b"", "500 Oops"),
    "odd Status": _body(b'{"kind": "Status", "details": [1], "reason": 5, "code": "x"}', "409 Conflict"),
    "odd causes": _body(b'{"kind": "Status", "details": {"causes": {"a": 1}}}', "409 Conflict"),
    "redirect": _body(b"", "302 Found", "Location: http://127.0.0.1:1/\r\n"),
    "switching protocols": _sends(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n"),
    "empty answer": _body(b""),
    "no content": _sends(b"HTTP/1.1 204 No Content\r\n\r\n"),
    "gzip that is none": _body(b"{}", headers=GZIP),
    "truncated gzip": _body(gzip.compress(b'{"kind": "ConfigMap"}' * 100)[:40], headers=GZIP),
    "not UTF-8": _body(b'{"kind": "\xff\xfe"}'),
    "not UTF-8 in the head": _body(b"{}", "200 \xff", "Warning: 299 - \xff\r\n"),
    "odd Retry-After": _body(b"", "429 Too Many", "Retry-After: Thu, 01 Jan 1970 00:00:00 GMT\r\n"),
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_no_foreign_exception_gets_out(fault: str, caplog: pytest.LogCaptureFixture) -> None:
    """Every verb meets every misbehaviour of a server: it ends in time, with an answer or with an error of ours
    that tells no secret. Only a stream has no end of its own: its silence is the watch's own limit (70 s)."""
    silent = "stops" in fault or "never" in fault
    async with RawServer(FAULTS[fault]) as server:
        for name, verb in VERBS.items():
            async with Client(RestConfig(server=server.url, token=SECRET), timeout=0.05) as client:
                endless = silent and name in ("watch", "log")
                try:
                    async with asyncio.timeout(0.1 if endless else 10):
                        await verb(client)
                except ManagerError as error:
                    assert SECRET not in "".join(traceback.format_exception(error)), name
                except TimeoutError:
                    assert endless, name

    assert SECRET not in caplog.text


@pytest.mark.parametrize("verb", VERBS)
async def test_nobody_listens(verb: str) -> None:
    """A refused connection names the server, in every verb."""
    async with Client(RestConfig(server="http://127.0.0.1:1")) as client:
        with pytest.raises(ConnectionFailed, match=r"http://127\.0\.0\.1:1/") as caught:
            await VERBS[verb](client)

    assert caught.value.__cause__ is not None


@pytest.mark.parametrize("verb", ["patch", "watch"])
@pytest.mark.parametrize(
    "address",
    [
        "http://no-such-host.invalid",
        "http://[::1",
        "http://",
        "ftp://x",
        "http://a..b",
        "x",
        f"http://{'a' * 80}.b",
    ],
)
async def test_an_address_that_leads_nowhere(verb: str, address: str) -> None:
    """Whatever is wrong with it, the error is ours."""
    async with Client(RestConfig(server=address)) as client:
        with pytest.raises((ConnectionFailed, ConfigError)):
            await VERBS[verb](client)


@pytest.mark.parametrize("verb", ["get", "patch", "watch"])
@pytest.mark.parametrize("trouble", ["plain server", "stranger", "other name", "no certificate", "no TLS 1.2"])
async def test_trouble_with_tls(verb: str, trouble: str, tmp_path: Path) -> None:
    """A server that cannot be trusted, or does not speak TLS, is a ConnectionFailed."""
    authority = Authority(tmp_path / "ours")
    signer = Authority(tmp_path / "theirs") if trouble == "stranger" else authority
    pair = signer.server("s", ["other.example.com" if trouble == "other name" else "127.0.0.1"])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate, pair.key)
    if trouble == "no certificate":
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(authority.certificate)
    if trouble == "no TLS 1.2":
        with pytest.warns(DeprecationWarning):
            context.maximum_version = ssl.TLSVersion.TLSv1_1
    plain = trouble == "plain server"
    async with RawServer(_greets if plain else answering, None if plain else context) as server:
        config = RestConfig(server=f"https://127.0.0.1:{server.port}", ca_data=authority.ca_pem, token=SECRET)
        async with Client(config, timeout=2) as client:
            with pytest.raises(ConnectionFailed) as caught:
                await VERBS[verb](client)

    assert SECRET not in str(caught.value)


async def test_files_of_tls_that_are_not_there() -> None:
    """A certificate that cannot be loaded is a ConfigError that says which server it was for."""
    for config in (
        RestConfig(server="https://x", ca_file="/nowhere/ca.crt"),
        RestConfig(server="https://x", ca_data=b"nonsense"),
        RestConfig(server="https://x", ca_data=b"\xff"),
        RestConfig(server="https://x", client_cert_file="/nowhere/a", client_key_file="/nowhere/b"),
        RestConfig(server="https://x", client_cert_data=b"a", client_key_data=b"b"),
    ):
        async with Client(config) as client:
            with pytest.raises(ConfigError, match="https://x"):
                await client.get(CONFIGMAPS, "a", "n")


async def test_an_answer_that_does_not_come_in_time_says_so() -> None:
    """The limit holds for the whole answer, and an end that it forced never looks like an answer."""
    for handler in (_hangs, _hangs_in_the_body, _hangs_in_a_body_without_end):
        async with RawServer(handler) as server, Client(RestConfig(server=server.url), timeout=0.05) as client:
            with pytest.raises(ConnectionFailed, match=r"no answer within 0\.05 s"):
                await client.patch(CONFIGMAPS, "a", {}, namespace="n")


async def test_a_broken_connection_is_not_used_again() -> None:
    """After an answer that was cut short the next request opens a connection of its own."""

    async def first_is_cut(exchange: Exchange) -> None:
        await exchange.request()
        if exchange.number == 1:
            await exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{")
            await exchange.request()
        else:
            await exchange.answer()

    async with RawServer(first_is_cut) as server, Client(RestConfig(server=server.url), timeout=0.05) as client:
        with pytest.raises(ConnectionFailed):
            await client.patch(CONFIGMAPS, "a", {}, namespace="n")
        assert await client.patch(CONFIGMAPS, "a", {}, namespace="n") == {}

    assert server.connections == 2


async def test_a_cancelled_request_leaves_no_answer_behind() -> None:
    """The late answer to a cancelled request is not taken for the answer to the next one."""
    go = asyncio.Event()

    async def late(exchange: Exchange) -> None:
        while request := await exchange.request():
            if b"/slow" in request:
                await go.wait()
            await exchange.answer(b'{"slow": true}' if b"/slow" in request else b'{"slow": false}')

    async with RawServer(late) as server, Client(RestConfig(server=server.url)) as client:
        await client.request("GET", "/fast")
        task = asyncio.create_task(client.request("GET", "/slow"))
        while len(server.requests) < 2:
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        go.set()

        assert await client.request("GET", "/fast") == {"slow": False}


@pytest.mark.parametrize(
    ("verb", "tries"), [("get", 2), ("replace", 2), ("delete", 2), ("create", 1), ("patch", 1)]
)
async def test_what_can_be_repeated_is_repeated_once(verb: str, tries: int) -> None:
    """A connection that the server has just closed looks like a failure; only requests that do no harm twice are
    sent again, on another connection."""

    async def second_closes(exchange: Exchange) -> None:
        await exchange.request()
        if exchange.number == 1:
            await exchange.answer()
            await exchange.request()
            exchange.reset()
        else:
            await exchange.answer()

    async with RawServer(second_closes) as server, Client(RestConfig(server=server.url)) as client:
        await client.text("/healthz")
        if tries == 2:
            await VERBS[verb](client)
        else:
            with pytest.raises(ConnectionFailed):
                await VERBS[verb](client)

    assert len(server.requests) == 1 + tries


async def test_closing_ends_what_runs() -> None:
    """Requests under way, and later ones, fail; closing twice does no harm."""
    async with RawServer(_hangs) as server:
        client = Client(RestConfig(server=server.url))
        running = asyncio.create_task(client.get(CONFIGMAPS, "a", "n"))
        while not server.requests:
            await asyncio.sleep(0)
        await client.close()
        with pytest.raises(ConnectionFailed):
            await running
        with pytest.raises(ConnectionFailed, match="closed"):
            await client.get(CONFIGMAPS, "a", "n")
        with pytest.raises(ConnectionFailed, match="closed"):
            await _all(client.watch(CONFIGMAPS))
        await client.close()


async def test_the_words_of_an_answer_that_is_no_status_are_kept() -> None:
    """A proxy's page says more than its number."""
    async with RawServer(FAULTS["HTML 502"]) as server, Client(RestConfig(server=server.url)) as client:
        with pytest.raises(ServerError, match="Bad Gateway") as caught:
            await client.get(CONFIGMAPS, "a", "n")

    assert isinstance(caught.value, ApiError)
    assert caught.value.status == 502
