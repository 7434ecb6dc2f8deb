"""Credentials live as long as the client: rotated files, expiring tokens, refused ones."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import ssl
import stat
import sys
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from kaito.local.pki import Authority, KeyPair
from manager.client import Client
from manager.config import RestConfig
from manager.credentials import Credential, Issued, Renewed, TokenFile
from manager.errors import ConfigError, Unauthorized
from manager.kubeconfig import load_config
from manager.resources import CONFIGMAPS
from manager.testing.raw import Exchange, RawServer, answering

SECRET = "do-not-tell-anybody"


def authorization(request: bytes) -> str:
    """The Authorization header of a raw request."""
    for line in request.decode().split("\r\n"):
        name, _, value = line.partition(": ")
        if name == "Authorization":
            return value
    return ""


class Only:
    """A handler that answers these tokens, and 401 to all others."""

    def __init__(self, *tokens: str) -> None:
        self.tokens = tokens

    async def __call__(self, exchange: Exchange) -> None:
        while request := await exchange.request():
            if authorization(request).removeprefix("Bearer ") in self.tokens:
                await exchange.answer()
            else:
                await exchange.answer(b'{"kind": "Status", "reason": "Unauthorized"}', status="401 No")


def replace(path: Path, text: str) -> None:
    """Put a file in another's place, as the kubelet does."""
    scratch = path.with_suffix(".new")
    scratch.write_text(text)
    scratch.replace(path)


# ------------------------------------------------------------------ token files


@pytest.mark.looptime
async def test_a_token_file_is_read_again_when_it_changed(tmp_path: Path) -> None:
    """Within a second of its change; between looks nothing is read."""
    path = tmp_path / "token"
    path.write_text("one\n")
    credential = TokenFile(path)
    loop = asyncio.get_running_loop()
    seen = [credential.current(loop.time())]
    replace(path, "two")
    seen.append(credential.current(loop.time()))
    await asyncio.sleep(1)
    seen.append(credential.current(loop.time()))

    assert seen == ["Bearer one", "Bearer one", "Bearer two"]


@pytest.mark.looptime
async def test_a_token_file_is_read_once_a_minute_whatever_its_times_say(tmp_path: Path) -> None:
    """A file system that tells no change, or the same length and time, does not keep an old token for ever."""
    path = tmp_path / "token"
    path.write_text("one")
    before = path.stat()
    credential = TokenFile(path)
    loop = asyncio.get_running_loop()
    credential.current(loop.time())
    with path.open("r+") as file:
        file.write("two")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    await asyncio.sleep(30)
    assert credential.current(loop.time()) == "Bearer one"
    await asyncio.sleep(31)
    assert credential.current(loop.time()) == "Bearer two"


@pytest.mark.looptime
async def test_a_token_file_that_vanishes_keeps_its_token(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """In the middle of a rotation there may be no file, or an empty one; one that was never there is an error."""
    path = tmp_path / "token"
    with pytest.raises(ConfigError, match="cannot be used"):
        TokenFile(path).current(0.0)
    path.write_text(SECRET)
    credential = TokenFile(path)
    loop = asyncio.get_running_loop()
    credential.current(loop.time())
    for broken in (b"", b"\xff\xfe " + SECRET.encode(), SECRET.encode() + b"\x00\n\x01"):
        path.write_bytes(broken)
        await asyncio.sleep(61)
        assert credential.current(loop.time()) == f"Bearer {SECRET}"
    path.unlink()
    await asyncio.sleep(61)

    assert credential.current(loop.time()) == f"Bearer {SECRET}"
    assert SECRET not in caplog.text + repr(credential)


async def test_a_401_makes_the_file_be_read_at_once(tmp_path: Path) -> None:
    """The request is sent once more with the new token, and the caller sees its answer only."""
    path = tmp_path / "token"
    path.write_text("old")
    credential = TokenFile(path)
    async with (
        RawServer(Only("new")) as server,
        Client(RestConfig(server=server.url, credential=credential)) as client,
    ):
        with pytest.raises(Unauthorized):
            await client.get(CONFIGMAPS, "a", "n")
        assert len(server.requests) == 1  # the same token again would be refused again
        replace(path, "new")
        assert await client.patch(CONFIGMAPS, "a", {}, namespace="n") == {}

    assert [authorization(r) for r in server.requests[1:]] == ["Bearer old", "Bearer new"]


async def test_a_401_makes_a_watch_renew_too(tmp_path: Path) -> None:
    """A stream is opened with the new token."""
    path = tmp_path / "token"
    path.write_text("old")
    credential = TokenFile(path)
    async with (
        RawServer(Only("new")) as server,
        Client(RestConfig(server=server.url, credential=credential)) as client,
    ):
        credential.current(asyncio.get_running_loop().time())
        replace(path, "new")
        assert [line async for line in client.stream_lines("/log")] == [b"{}"]

    assert [authorization(r) for r in server.requests] == ["Bearer old", "Bearer new"]


async def test_a_static_token_is_not_tried_again() -> None:
    """There is nothing else to send."""
    async with RawServer(Only("good")) as server, Client(RestConfig(server=server.url, token="bad")) as client:
        with pytest.raises(Unauthorized):
            await client.get(CONFIGMAPS, "a", "n")

    assert len(server.requests) == 1


# ------------------------------------------------------------------ credentials that are asked for


class Source:
    """Hands out token-1, token-2, ...; counts."""

    def __init__(self, lifetime: float | None = None) -> None:
        self.lifetime = lifetime
        self.asked = 0
        self.failure: Exception | None = None
        self.same = False

    async def __call__(self) -> Issued:
        self.asked += 1
        number = 1 if self.same else self.asked
        await asyncio.sleep(0.001)
        if self.failure is not None:
            raise self.failure
        return Issued(f"Bearer token-{number}", lifetime=self.lifetime)


async def current(credential: Credential) -> str:
    return credential.current(asyncio.get_running_loop().time()) or await credential.renew()


@pytest.mark.looptime
@pytest.mark.parametrize(("lifetime", "margin"), [(3600.0, 60.0), (100.0, 20.0), (10.0, 2.0)])
async def test_a_credential_is_renewed_before_it_expires(lifetime: float, margin: float) -> None:
    """A minute before its end, or a fifth of its life if that is short; not earlier."""
    source = Source(lifetime)
    credential = Renewed(source, "x")
    seen = [await current(credential)]
    await asyncio.sleep(lifetime - margin - 0.1)
    seen.append(await current(credential))
    await asyncio.sleep(0.2)
    seen.append(await current(credential))

    assert seen == ["Bearer token-1", "Bearer token-1", "Bearer token-2"]


@pytest.mark.looptime
async def test_a_credential_without_an_end_lasts_until_it_is_refused() -> None:
    """As client-go has it: no end, no reason to ask."""
    source = Source()
    credential = Renewed(source, "x")
    first = await current(credential)
    await asyncio.sleep(1e6)
    assert (await current(credential), source.asked) == (first, 1)

    assert await credential.renew(rejected=first) == "Bearer token-2"
    # Others that were refused with the first one get the second without asking.
    assert await credential.renew(rejected=first) == "Bearer token-2"


@pytest.mark.looptime
async def test_many_requests_ask_once() -> None:
    """At the first use, and after a refusal."""
    source = Source()
    credential = Renewed(source, "x")
    first = await asyncio.gather(*(current(credential) for _ in range(50)))
    second = await asyncio.gather(*(credential.renew(rejected=first[0]) for _ in range(50)))

    assert (set(first), set(second), source.asked) == ({"Bearer token-1"}, {"Bearer token-2"}, 2)


@pytest.mark.looptime
async def test_a_plug_in_that_gives_the_same_again_is_not_asked_for_every_refusal() -> None:
    """A server that refuses everything must not become a storm of processes."""
    source = Source()
    source.same = True
    credential = Renewed(source, "x")
    header = await current(credential)
    for _ in range(20):
        await credential.renew(rejected=header)
    assert source.asked == 2
    await asyncio.sleep(11)
    await credential.renew(rejected=header)

    assert source.asked == 3


@pytest.mark.looptime
async def test_a_failed_renewal_keeps_what_is_valid(caplog: pytest.LogCaptureFixture) -> None:
    """Until its end; then the failure is told, once per request, as ours."""
    source = Source(100.0)
    credential = Renewed(source, "the plug-in")
    await current(credential)
    source.failure = OSError("no such thing")
    await asyncio.sleep(85)
    assert await current(credential) == "Bearer token-1"
    assert "keeping the old one" in caplog.text
    await asyncio.sleep(16)
    with pytest.raises(ConfigError, match="the plug-in: no such thing"):
        await current(credential)
    source.failure = None

    assert (await current(credential)).startswith("Bearer token-")


@pytest.mark.looptime
async def test_who_waits_hears_of_the_failure_and_a_cancellation_is_none() -> None:
    """One request that gives up does not make the others fail."""
    source = Source()
    credential = Renewed(source, "x")
    first = asyncio.create_task(credential.renew())
    await asyncio.sleep(0)
    others = [asyncio.create_task(credential.renew()) for _ in range(3)]
    await asyncio.sleep(0)
    first.cancel()
    assert await asyncio.gather(*others) == ["Bearer token-2"] * 3

    broken = Renewed(source, "x")
    source.failure = ValueError("odd")
    results = await asyncio.gather(*(broken.renew() for _ in range(3)), return_exceptions=True)
    assert [type(result) for result in results] == [ConfigError] * 3
    assert source.asked == 3


def test_two_event_loops_share_one_credential() -> None:
    """The leader elector has a loop of its own."""
    source = Source()
    credential = Renewed(source, "x")
    seen: list[str] = []
    threads = [threading.Thread(target=lambda: seen.append(asyncio.run(credential.renew()))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)

    assert (seen, source.asked) == (["Bearer token-1"] * 4, 1)


# ------------------------------------------------------------------ exec plug-ins


def plug_in(folder: Path, body: str) -> Path:
    """An executable that prints an ExecCredential with this status (a Python expression; ``n`` counts runs)."""
    path = folder / "plug in"
    path.write_text(
        f"#!{sys.executable}\nimport json, os, pathlib, sys\np = pathlib.Path({str(folder / 'count')!r})\n"
        "n = int(p.read_text()) + 1 if p.exists() else 1\np.write_text(str(n))\n"
        "head = {'apiVersion': 'client.authentication.k8s.io/v1', 'kind': 'ExecCredential'}\n"
        f"print(json.dumps({{**head, 'status': {body}}}))\n"
    )
    path.chmod(stat.S_IRWXU)
    return path


def exec_kubeconfig(folder: Path, server: str, cluster: dict[str, Any] | None = None, **spec: Any) -> Path:
    """A kubeconfig whose user is a plug-in of the same folder."""
    spec = {"apiVersion": "client.authentication.k8s.io/v1", "command": "./plug in", **spec}
    path = folder / "kubeconfig"
    content = {
        "current-context": "c",
        "clusters": [{"name": "k", "cluster": {"server": server, **(cluster or {})}}],
        "users": [{"name": "u", "user": {"exec": spec}}],
        "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
    }
    path.write_text(yaml.safe_dump(content))
    return path


pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:kubernetes_asyncio")


async def test_a_plug_in_s_token_is_used_and_renewed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It runs at the first request, gets its arguments and environment, and runs again for a 401."""
    caplog.set_level(logging.DEBUG)
    plug_in(tmp_path, f"{{'token': sys.argv[1] + os.environ['PART'] + '{SECRET}' + str(n)}}")
    env = [{"name": "PART", "value": "-b-"}]
    good = Only(f"a-b-{SECRET}1")
    async with RawServer(good) as server:
        config = await load_config(exec_kubeconfig(tmp_path, server.url, args=["a"], env=env))
        assert not (tmp_path / "count").exists()
        async with Client(config) as client:
            await client.get(CONFIGMAPS, "a", "n")
            await client.get(CONFIGMAPS, "a", "n")
            assert (tmp_path / "count").read_text() == "1"
            good.tokens = (f"a-b-{SECRET}2",)
        async with Client(config) as client:
            await client.get(CONFIGMAPS, "a", "n")
            assert (tmp_path / "count").read_text() == "2"
            good.tokens = ()
            with pytest.raises(Unauthorized) as caught:
                await client.get(CONFIGMAPS, "a", "n")

    assert SECRET not in f"{client!r} {config!r} {config.credential!r} {caught.value!r} {caplog.text}"


async def test_a_plug_in_s_expiry_is_understood(tmp_path: Path) -> None:
    """A token of an hour is renewed when a minute is left, one that is over is renewed at once."""
    end = (datetime.now(UTC) + timedelta(hours=1)).isoformat(timespec="seconds").replace("+00:00", "Z")
    plug_in(
        tmp_path, f"{{'token': 't' + str(n), 'expirationTimestamp': {end!r} if n > 1 else '2020-01-01T00:00:00Z'}}"
    )
    config = await load_config(exec_kubeconfig(tmp_path, "https://127.0.0.1:1"))
    assert config.credential is not None
    loop = asyncio.get_running_loop()

    assert await config.credential.renew() == "Bearer t1"
    assert config.credential.current(loop.time()) is None
    assert await config.credential.renew() == "Bearer t2"
    assert config.credential.current(loop.time() + 3500) == "Bearer t2"
    assert config.credential.current(loop.time() + 3545) is None


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("{}", "neither a token nor a certificate"),
        ("{'clientCertificateData': 'x'}", "neither a token nor a certificate"),
        ("{'token': 'a\\nb'}", "no header can carry"),
        ("1 / 0", "process returned 1"),
    ],
)
async def test_a_plug_in_that_fails_is_a_config_error(tmp_path: Path, body: str, words: str) -> None:
    """Whatever it does wrong, the message names it."""
    plug_in(tmp_path, body)
    async with Client(await load_config(exec_kubeconfig(tmp_path, "http://127.0.0.1:1"))) as client:
        with pytest.raises(ConfigError, match=words):
            await client.get(CONFIGMAPS, "a", "n")


async def test_a_plug_in_that_is_not_there_says_how_to_get_it(tmp_path: Path) -> None:
    """With the kubeconfig's own hint."""
    path = exec_kubeconfig(tmp_path, "http://127.0.0.1:1", command="no-such-plug-in", installHint="apt get it")
    async with Client(await load_config(path)) as client:
        with pytest.raises(ConfigError, match="no-such-plug-in is not there; apt get it"):
            await client.get(CONFIGMAPS, "a", "n")


# ------------------------------------------------------------------ certificates


def mutual(authority: Authority) -> ssl.SSLContext:
    """A server's settings: it wants a certificate of the authority."""
    pair = authority.server("server", ["127.0.0.1"])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate, pair.key)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(authority.certificate)
    return context


class Names:
    """A handler that notes the name in each client certificate, and answers the good one."""

    def __init__(self, *good: str) -> None:
        self.good = good
        self.seen: list[str] = []

    async def __call__(self, exchange: Exchange) -> None:
        shown = exchange.writer.get_extra_info("peercert")
        name = next(value for part in shown["subject"] for key, value in part if key == "commonName")
        while await exchange.request():
            self.seen.append(name)
            await exchange.answer(status="200 OK" if not self.good or name in self.good else "401 No")


def install(pair: KeyPair, cert: Path, key: Path) -> None:
    """Put a pair where a client looks for it."""
    cert.write_bytes(pair.certificate.read_bytes())
    key.write_bytes(pair.key.read_bytes())


async def test_a_rotated_client_certificate_is_used_after_a_401(tmp_path: Path) -> None:
    """The request is repeated on a new connection with the new certificate."""
    authority = Authority(tmp_path / "pki")
    cert, key = tmp_path / "crt", tmp_path / "key"
    install(authority.client("old", "old"), cert, key)
    names = Names("old")
    async with RawServer(names, mutual(authority)) as server:
        config = RestConfig(
            server=server.url, ca_data=authority.ca_pem, client_cert_file=str(cert), client_key_file=str(key)
        )
        async with Client(config) as client:
            await client.get(CONFIGMAPS, "a", "n")
            names.good = ("new",)
            install(authority.client("new", "new"), cert, key)
            await client.patch(CONFIGMAPS, "a", {}, namespace="n")

    assert names.seen == ["old", "old", "new"]


async def test_a_pair_that_does_not_match_changes_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the middle of a rotation the old certificate stays in use; when the key has followed, the new one is
    used."""
    monkeypatch.setattr("manager.tls.CHECK_SECONDS", 0.0)
    authority = Authority(tmp_path / "pki")
    cert, key = tmp_path / "crt", tmp_path / "key"
    install(authority.client("old", "old"), cert, key)
    new = authority.client("new", "new")
    names = Names()
    async with RawServer(names, mutual(authority)) as server:
        config = RestConfig(
            server=server.url, ca_data=authority.ca_pem, client_cert_file=str(cert), client_key_file=str(key)
        )
        async with Client(config) as client:
            await client.get(CONFIGMAPS, "a", "n")
            cert.write_bytes(new.certificate.read_bytes())
            await client.get(CONFIGMAPS, "a", "n")
            assert "keeping the old ones" in caplog.text
            key.write_bytes(new.key.read_bytes())
            await client.get(CONFIGMAPS, "a", "n")
            async for _ in client.stream_lines("/log"):
                pass

    assert names.seen == ["old", "old", "new", "new"]


async def test_a_new_authority_is_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file of authorities is read again, too."""
    monkeypatch.setattr("manager.tls.CHECK_SECONDS", 0.0)
    first, second = Authority(tmp_path / "first"), Authority(tmp_path / "second")
    bundle = tmp_path / "ca.crt"
    bundle.write_bytes(first.ca_pem)
    pair = second.server("server", ["127.0.0.1"])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate, pair.key)
    async with (
        RawServer(answering, context) as server,
        Client(RestConfig(server=server.url, ca_file=str(bundle))) as client,
    ):
        with pytest.raises(Exception, match="certificate verify failed"):
            await client.get(CONFIGMAPS, "a", "n")
        bundle.write_bytes(second.ca_pem)
        assert await client.get(CONFIGMAPS, "a", "n") == {}


async def test_a_plug_in_may_give_a_certificate(tmp_path: Path) -> None:
    """It is shown to the server, and a new one after a 401; no key stays on the disk."""
    authority = Authority(tmp_path / "pki")
    pairs = [authority.client(name, name) for name in ("one", "two")]
    status = [
        {"clientCertificateData": p.certificate.read_text(), "clientKeyData": p.key.read_text()} for p in pairs
    ]
    plug_in(tmp_path, f"json.loads({json.dumps(status)!r})[n - 1]")
    (tmp_path / "ca.crt").write_bytes(authority.ca_pem)
    names = Names("one")
    async with RawServer(names, mutual(authority)) as server:
        path = exec_kubeconfig(tmp_path, server.url, {"certificate-authority": "ca.crt"})
        async with Client(await load_config(path)) as client:
            await client.get(CONFIGMAPS, "a", "n")
            names.good = ("two",)
            await client.get(CONFIGMAPS, "a", "n")

    assert names.seen == ["one", "one", "two"]


async def test_the_name_in_the_certificate_may_be_another(tmp_path: Path) -> None:
    """tls_server_name says which one to expect, for requests and streams."""
    authority = Authority(tmp_path / "pki")
    pair = authority.server("server", ["api.example.com"])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate, pair.key)
    async with RawServer(answering, context) as server:
        config = RestConfig(server=server.url, ca_data=authority.ca_pem, tls_server_name="api.example.com")
        async with Client(config) as client:
            assert await client.get(CONFIGMAPS, "a", "n") == {}
            assert [line async for line in client.stream_lines("/log")] == [b"{}"]
