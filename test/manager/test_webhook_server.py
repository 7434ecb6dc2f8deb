"""The webhook server over TLS: paths, limits, certificates, metrics, life."""

from __future__ import annotations

import asyncio
import datetime as dt
import ipaddress
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from prometheus_client import CollectorRegistry, generate_latest

from manager.certs.pems import Pair, certificates, load_key, make_authority, make_serving
from manager.certs.serving import CertificateError, ServingCertificate
from manager.config import RestConfig
from manager.errors import ManagerError
from manager.leader import LeaderElection
from manager.manager import Manager
from manager.types import Obj, Resource
from manager.webhooks.admission import AdmissionEndpoint
from manager.webhooks.conversion import Conversions
from manager.webhooks.review import AdmissionRequest, Response, allowed
from manager.webhooks.server import WebhookServer

NOW = dt.datetime.now(dt.UTC)
HOUR = dt.timedelta(hours=1)
AUTHORITY = make_authority("test", not_before=NOW - HOUR, not_after=NOW + HOUR)
PAIR = make_serving(AUTHORITY, ["localhost", "127.0.0.1"], not_before=NOW - HOUR, not_after=NOW + HOUR)
BODY = orjson.dumps({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {"uid": "u"}})


def loaded(pair: Pair = PAIR, **options: Any) -> ServingCertificate:
    certificate = ServingCertificate(**options)
    certificate.load(pair.cert, pair.key)
    return certificate


def trusting(authority: Pair = AUTHORITY) -> ssl.SSLContext:
    return ssl.create_default_context(cadata=authority.cert.decode())


@asynccontextmanager
async def serving(server: WebhookServer) -> AsyncIterator[str]:
    """The server, running; its base URL."""
    task = asyncio.create_task(server.run())
    try:
        async with asyncio.timeout(10):
            await asyncio.wait(
                {task, waiting := asyncio.ensure_future(server.ready())}, return_when="FIRST_COMPLETED"
            )
        waiting.cancel()
        if task.done():
            task.result()
        assert server.address is not None
        yield f"https://127.0.0.1:{server.address[1]}"
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


@asynccontextmanager
async def session(context: ssl.SSLContext | None = None) -> AsyncIterator[aiohttp.ClientSession]:
    connector = aiohttp.TCPConnector(ssl=context or trusting())
    async with aiohttp.ClientSession(connector=connector) as opened:
        yield opened
        await connector.close(abort_ssl=True)
    await asyncio.sleep(0)


def local(**options: Any) -> WebhookServer:
    options.setdefault("certificate", loaded())
    return WebhookServer(host="127.0.0.1", port=0, **options)


async def passing(_: AdmissionRequest) -> Response:
    return allowed()


async def call(url: str, body: bytes = BODY, content_type: str = "application/json") -> tuple[int, Obj]:
    async with session() as client, client.post(url, data=body, headers={"Content-Type": content_type}) as answer:
        return answer.status, orjson.loads(await answer.read())


# ------------------------------------------------------------------ paths and limits


@pytest.mark.acceptance("FW-H09")
def test_a_path_can_be_taken_once() -> None:
    """The second registration is an error, whatever it registers."""
    server = local()
    server.admission("/a", passing)
    server.convert(Conversions())

    with pytest.raises(ManagerError, match="webhook at /a already"):
        server.admission("/a", passing)
    with pytest.raises(ManagerError, match="webhook at /convert already"):
        server.convert(Conversions())


@pytest.mark.acceptance("FW-H09")
async def test_paths_are_served_also_when_registered_late() -> None:
    """Each path has its endpoint, an unknown one is 404, one that comes while serving is there."""

    class Yes:
        def default(self, obj: Obj, request: AdmissionRequest) -> Obj:
            return obj

    server = local()
    server.default(Resource("g.io", "v1", "things", "Thing"), Yes())
    async with serving(server) as url:
        status, answer = await call(f"{url}/mutate-g-io-v1-thing")
        server.admission("/late", passing)
        late, _ = await call(f"{url}/late")
        async with session() as client, client.post(f"{url}/nowhere") as missing:
            pass

    assert (status, answer["response"]["uid"]) == (200, "u")
    assert late == 200
    assert missing.status == 404


@pytest.mark.acceptance("FW-H01")
async def test_an_endless_body_is_cut_off() -> None:
    """The limit holds with and without a Content-Length; the answer is a review with 413."""
    server = local()
    endpoint = AdmissionEndpoint(passing)
    endpoint.limit = 100_000
    server.register("/a", endpoint)

    async def endless() -> AsyncIterator[bytes]:
        for _ in range(300):
            yield b"a" * 1000

    async with serving(server) as url, session() as client:
        found = []
        for data in (b"a" * 100_001, endless()):
            async with client.post(f"{url}/a", data=data, headers={"Content-Type": "application/json"}) as answer:
                found.append((answer.status, orjson.loads(await answer.read())["response"]["status"]))

    expected = {"metadata": {}, "code": 413, "message": "request entity is too large; limit is 100000 bytes"}
    assert found == [(200, expected), (200, expected)]


@pytest.mark.acceptance("FW-H01")
async def test_no_body_and_a_wrong_type_are_bad_requests_over_http_too() -> None:
    """The HTTP status is 200, the code inside 400."""
    server = local()
    server.admission("/a", passing)
    async with serving(server) as url:
        empty = await call(f"{url}/a", b"")
        foreign = await call(f"{url}/a", content_type="text/plain")

    assert [(status, answer["response"]["status"]["code"]) for status, answer in (empty, foreign)] == [
        (200, 400)
    ] * 2


async def test_who_sends_slowly_is_cut_off() -> None:
    """A body that does not come in time is answered with 408; a connection without a request is closed."""
    server = local(header_seconds=0.1, body_seconds=0.1)
    server.admission("/a", passing)
    async with serving(server) as url:
        port = int(url.rsplit(":", 1)[1])
        mute_reader, mute = await asyncio.open_connection("127.0.0.1", port, ssl=trusting())
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trusting())
        writer.write(
            b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 10\r\n\r\n{"
        )
        async with asyncio.timeout(5):
            head = await reader.readuntil(b"\r\n\r\n")
            with suppress(ConnectionError):
                assert await mute_reader.read() == b""
        answer = await reader.readexactly(int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0]))
        for closing in (mute, writer):
            closing.transport.abort()

    assert orjson.loads(answer)["response"]["status"]["code"] == 408


async def test_headers_have_a_limit() -> None:
    """A header line of 64 KiB is refused."""
    server = local()
    server.admission("/a", passing)
    long = {"X-Long": "a" * 65536}
    async with (
        serving(server) as url,
        session() as client,
        client.post(f"{url}/a", data=BODY, headers=long) as answer,
    ):
        await answer.read()

    assert answer.status == 400


# ------------------------------------------------------------------ TLS


@pytest.mark.acceptance("FW-H09")
@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
async def test_modern_tls_is_spoken(version: str) -> None:
    """1.2 and 1.3, with the certificate that the authority signed."""
    server = local()
    server.admission("/a", passing)
    context = trusting()
    context.minimum_version = context.maximum_version = ssl.TLSVersion[version]
    async with serving(server) as url, session(context) as client, client.post(f"{url}/a", data=BODY) as answer:
        assert answer.status == 200


@pytest.mark.acceptance("FW-H09")
async def test_old_tls_is_refused() -> None:
    """A client that speaks 1.1 at most gets no handshake."""
    context = trusting()
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning):
        context.minimum_version = ssl.TLSVersion.TLSv1_1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    async with serving(local()) as url:
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await asyncio.open_connection("127.0.0.1", int(url.rsplit(":", 1)[1]), ssl=context)


@pytest.mark.acceptance("FW-H09")
async def test_a_client_authority_keeps_strangers_out(tmp_path: Path) -> None:
    """Only clients with a certificate of that authority are served."""
    client_ca = make_authority("clients", not_before=NOW - HOUR, not_after=NOW + HOUR)
    mine = _signed(client_ca, ec.generate_private_key(ec.SECP256R1()), ExtendedKeyUsageOID.CLIENT_AUTH)
    (tmp_path / "tls.crt").write_bytes(PAIR.cert)
    (tmp_path / "tls.key").write_bytes(PAIR.key)
    (tmp_path / "ca.crt").write_bytes(client_ca.cert)
    (tmp_path / "client.pem").write_bytes(mine.cert + mine.key)
    server = WebhookServer(host="127.0.0.1", port=0, cert_dir=tmp_path, client_ca=tmp_path / "ca.crt")
    server.admission("/a", passing)
    known = trusting()
    known.load_cert_chain(tmp_path / "client.pem")
    async with serving(server) as url:
        with pytest.raises((aiohttp.ClientError, ConnectionError)):
            async with session() as stranger, stranger.post(f"{url}/a", data=BODY) as answer:
                await answer.read()
        async with session(known) as client, client.post(f"{url}/a", data=BODY) as answer:
            status = answer.status

    assert status == 200


async def test_without_a_certificate_nobody_is_let_in() -> None:
    """The server waits for its first certificate, says so, and serves when it comes."""
    certificate = ServingCertificate()
    server = local(certificate=certificate)
    server.admission("/a", passing)
    task = asyncio.create_task(server.run())
    await asyncio.sleep(0.01)
    waiting = server.started()
    certificate.load(PAIR.cert, PAIR.key)
    async with asyncio.timeout(5):
        await server.ready()
    running = server.started()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)

    assert waiting == "there is no certificate yet"
    assert running is None
    assert server.started() == "the webhook server has stopped"


async def test_a_bad_pair_changes_nothing() -> None:
    """Rubbish, a foreign key and an encrypted one are refused, no key is shown, and handshakes go on."""
    other = make_serving(AUTHORITY, ["x"], not_before=NOW - HOUR, not_after=NOW + HOUR)
    locked = b"-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n"
    certificate = loaded()
    server = local(certificate=certificate)
    server.admission("/a", passing)
    async with serving(server) as url:
        for cert, key in ((b"rubbish", PAIR.key), (PAIR.cert, other.key), (PAIR.cert, locked), (b"", b"")):
            with pytest.raises(CertificateError) as caught:
                certificate.load(cert, key)
            assert "PRIVATE KEY" not in str(caught.value)
        status, _ = await call(f"{url}/a")

    assert status == 200
    assert certificate.certificate == PAIR.cert


@pytest.mark.acceptance("FW-H10")
async def test_a_new_certificate_is_used_by_the_next_handshake() -> None:
    """Connections go on, new ones see the new certificate, of whatever key type; callbacks are told."""
    second = make_authority("second", not_before=NOW - HOUR, not_after=NOW + HOUR)
    other_type = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    new = _signed(second, other_type, ExtendedKeyUsageOID.SERVER_AUTH)
    seen: list[bytes] = []
    certificate = loaded()
    certificate.on_change(seen.append)
    server = local(certificate=certificate)
    server.admission("/a", passing)
    async with serving(server) as url, session() as client:
        async with client.post(f"{url}/a", data=BODY) as answer:
            await answer.read()
        certificate.load(new.cert, new.key)
        async with session(trusting(second)) as fresh, fresh.post(f"{url}/a", data=BODY) as other:
            await other.read()
        async with client.post(f"{url}/a", data=BODY) as still:
            await still.read()
        certificate.load(PAIR.cert, PAIR.key)
        back, _ = await call(f"{url}/a")

    assert [answer.status, other.status, still.status, back] == [200] * 4
    assert seen == [new.cert, PAIR.cert]


def _signed(
    authority: Pair, key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, purpose: x509.ObjectIdentifier
) -> Pair:
    """A certificate for a key and a purpose that ``make_serving`` does not make."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "other")])
    cert = (
        x509.CertificateBuilder(certificates(authority.cert)[0].parsed.subject, name, key.public_key(), 7)
        .not_valid_before(NOW - HOUR)
        .not_valid_after(NOW + HOUR)
        .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
        )
        .sign(load_key(authority.key), hashes.SHA256())  # type: ignore[arg-type]
    )
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return Pair(cert.public_bytes(Encoding.PEM), private)


# ------------------------------------------------------------------ life and metrics


@pytest.mark.acceptance("FW-H10")
async def test_the_server_needs_no_leadership() -> None:
    """A standby's webhooks answer: the server runs in a manager that cannot become leader."""
    nowhere = RestConfig(server="http://127.0.0.1:9")
    election = LeaderElection(lease_name="l", namespace="n", identity="me")
    manager = Manager(nowhere, leader_election=election, metrics_bind="0", graceful_timeout=5)
    server = local(registry=manager.metrics)
    server.admission("/a", passing)
    manager.add(server.run, name="webhooks", needs_leader=False)
    manager.add_readyz("webhooks", server.started)
    stop = asyncio.Event()
    running = asyncio.create_task(manager.run(stop))
    async with asyncio.timeout(10):
        await server.ready()
    assert server.address is not None
    status, _ = await call(f"https://127.0.0.1:{server.address[1]}/a")
    elected = manager.elected.is_set()
    stop.set()
    await running

    assert (status, elected) == (200, False)


async def test_a_port_in_use_is_an_error_and_minus_one_is_off() -> None:
    """The message names the address; a server that is off is ready and listens nowhere."""
    async with serving(local()) as url:
        taken = WebhookServer(host="127.0.0.1", port=int(url.rsplit(":", 1)[1]), certificate=loaded())
        with pytest.raises(ManagerError, match="cannot listen on"):
            await taken.run()
    off = WebhookServer(port=-1)
    task = asyncio.create_task(off.run())
    async with asyncio.timeout(1):
        await off.ready()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)

    assert (off.address, off.started()) == (None, None)


async def test_requests_under_way_end_before_the_server_does() -> None:
    """A stop lets the handler finish and its answer arrive."""
    entered, leave = asyncio.Event(), asyncio.Event()

    async def slow(_: AdmissionRequest) -> Response:
        entered.set()
        await leave.wait()
        return allowed("done")

    server = local()
    server.admission("/a", slow)
    task = asyncio.create_task(server.run())
    await server.ready()
    assert server.address is not None
    asking = asyncio.create_task(call(f"https://127.0.0.1:{server.address[1]}/a"))
    await entered.wait()
    task.cancel()
    await asyncio.sleep(0.01)
    leave.set()
    _, answer = await asking
    await asyncio.gather(task, return_exceptions=True)

    assert answer["response"]["status"]["message"] == "done"


@pytest.mark.acceptance("FW-H04")
async def test_metrics_have_their_names_and_start_at_zero() -> None:
    """Latency, requests by code, in flight and both panics, by path."""

    def broken(_: AdmissionRequest) -> Response:
        raise RuntimeError("bug")

    registry = CollectorRegistry()
    server = local(registry=registry)
    server.admission("/a", broken)
    before = generate_latest(registry).decode()
    async with serving(server) as url:
        await call(f"{url}/a")
    after = generate_latest(registry).decode()

    for line in (
        'controller_runtime_webhook_requests_total{code="200",webhook="/a"} 0.0',
        'controller_runtime_webhook_requests_total{code="500",webhook="/a"} 0.0',
        'controller_runtime_webhook_requests_in_flight{webhook="/a"} 0.0',
        'controller_runtime_webhook_latency_seconds_count{webhook="/a"} 0.0',
        "controller_runtime_webhook_panics_total 0.0",
        "controller_runtime_conversion_webhook_panics_total 0.0",
    ):
        assert line in before
    assert 'controller_runtime_webhook_requests_total{code="200",webhook="/a"} 1.0' in after
    assert 'controller_runtime_webhook_latency_seconds_count{webhook="/a"} 1.0' in after
    assert "controller_runtime_webhook_panics_total 1.0" in after
