"""The servers of a manager: when they answer, how securely, and what keeps them from it."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import gc
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from aiohttp import web

from manager.certs.pems import make_authority, make_serving
from manager.client import Client
from manager.config import RestConfig
from manager.errors import ConfigError, ConnectionFailed, Forbidden, ManagerError, NotFound, Unauthorized
from manager.manager import Manager, SecureMetrics
from manager.servers import HttpServer, parse_bind

if TYPE_CHECKING:
    from conftest import Server

NOWHERE = RestConfig(server="http://127.0.0.1:1")


@asynccontextmanager
async def running(manager: Manager) -> AsyncIterator[asyncio.Task[None]]:
    stop = asyncio.Event()
    task = asyncio.create_task(manager.run(stop))
    try:
        async with asyncio.timeout(10):
            while not (manager.elected.is_set() or task.done()):
                await asyncio.sleep(0.01)
        yield task
    finally:
        stop.set()
        await asyncio.wait({task})


def reach(address: tuple[str, int] | None, **options: Any) -> Client:
    assert address is not None
    scheme = "https" if options.get("verify") is False or "ca_data" in options else "http"
    host = options.pop("host", address[0])
    return Client(RestConfig(server=f"{scheme}://{host}:{address[1]}", **options))


# ------------------------------------------------------------------ life


@pytest.mark.acceptance("FW-F11")
async def test_servers_answer_while_the_manager_runs() -> None:
    """Metrics carry the usual names, ready means running, the process can be looked into; nobody listens later."""
    manager = Manager(NOWHERE, health_bind="127.0.0.1:0", debug_bind="127.0.0.1:0")
    manager.add_healthz("extra", lambda: None)
    async with running(manager) as task:
        addresses = [manager.metrics_address, manager.health_address, manager.debug_address]
        async with reach(manager.metrics_address) as client:
            text = await client.text("/metrics")
            assert "process_resident_memory_bytes" in text
            assert "event_loop_lag_seconds" in text
        async with reach(manager.health_address) as client:
            assert await client.text("/readyz") == "ok"
            assert await client.text("/healthz", query={"verbose": True}) == "[+]extra ok\nhealthz check passed\n"
            with pytest.raises(NotFound):
                await client.text("/readyz/unknown")
        async with reach(manager.debug_address) as client:
            assert "cache" in await client.text("/debug/tasks")
    await task

    assert manager.metrics_address is None
    for address in addresses:
        async with reach(address) as client:
            with pytest.raises(ConnectionFailed):
                await client.text("/")


@pytest.mark.acceptance("FW-F11")
async def test_servers_are_off_unless_asked_for() -> None:
    """Probes and the look inside by default; all of them with 0 or nothing."""
    manager = Manager(NOWHERE, metrics_bind="", health_bind="", debug_bind="")
    async with running(manager) as task:
        assert (manager.metrics_address, manager.health_address, manager.debug_address) == (None, None, None)
    await task
    with pytest.raises(ManagerError, match="metrics server is off"):
        manager.add_metrics_handler("/x", _extra)


@pytest.mark.acceptance("FW-F11")
@pytest.mark.parametrize("which", ["metrics", "health", "debug"])
async def test_a_port_in_use_is_an_error_with_a_way_out(which: str) -> None:
    """It names the address, what was to listen there, and which option changes it; nothing else has started."""
    started: list[str] = []

    async def work() -> None:
        started.append("work")

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        bind = f"127.0.0.1:{taken.getsockname()[1]}"
        options: dict[str, Any] = {"metrics_bind": "0", f"{which}_bind": bind}
        manager = Manager(NOWHERE, **options)
        manager.add(work, name="work", needs_leader=False)
        words = f"the {which} server cannot listen on {bind}: .*in use.*with {which}_bind"
        with pytest.raises(ManagerError, match=words):
            await manager.run(asyncio.Event())

    assert started == []


@pytest.mark.parametrize("bind", ["8080", "host", "host:port", ":99999", ":-1"])
def test_an_address_that_is_none_is_told_at_once(bind: str) -> None:
    """Before anything runs."""
    with pytest.raises(ConfigError, match="write host:port, or 0"):
        Manager(NOWHERE, metrics_bind=bind)


def test_addresses() -> None:
    """All interfaces, one of them, IPv6."""
    assert parse_bind(":8080", "x") == ("", 8080)
    assert parse_bind("127.0.0.1:0", "x") == ("127.0.0.1", 0)
    assert parse_bind("[::1]:80", "x") == ("::1", 80)


async def _extra(request: web.Request) -> web.Response:
    return web.Response(text="extra")


@pytest.mark.acceptance("FW-F11")
async def test_the_metrics_server_takes_further_paths_but_not_its_own() -> None:
    """Until it runs."""
    manager = Manager(NOWHERE)
    manager.add_metrics_handler("/extra", _extra)
    for path in ("/metrics", "/extra"):
        with pytest.raises(ManagerError, match=f"has {path} already"):
            manager.add_metrics_handler(path, _extra)
    async with running(manager) as task:
        async with reach(manager.metrics_address) as client:
            assert await client.text("/extra") == "extra"
        with pytest.raises(ManagerError, match="runs already"):
            manager.add_metrics_handler("/late", _extra)
    await task


async def test_a_request_with_endless_headers_is_refused() -> None:
    """One header of more than 8 KiB, or more than 128 of them: 400, and the server goes on."""
    server = HttpServer("127.0.0.1:0", web.Application(), "test")
    task = asyncio.create_task(server.run())
    await server.ready()
    assert server.address
    async with aiohttp.ClientSession(f"http://127.0.0.1:{server.address[1]}") as session:
        many = {f"X-{number}": "x" for number in range(200)}
        statuses = [
            (await session.get("/", headers=headers)).status for headers in ({"X": "x" * 10_000}, many, {})
        ]
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)

    assert statuses == [400, 400, 404]


# ------------------------------------------------------------------ security


async def test_metrics_over_tls_without_a_certificate_use_one_of_their_own() -> None:
    """Plain HTTP does not work; who does not verify gets the metrics."""
    manager = Manager(NOWHERE, metrics_secure=SecureMetrics(authorize=False))
    async with running(manager) as task:
        async with reach(manager.metrics_address, verify=False) as client:
            assert "python_info" in await client.text("/metrics")
        async with reach(manager.metrics_address) as client:
            with pytest.raises(ConnectionFailed):
                await client.text("/metrics")
    await task
    gc.collect()


async def test_metrics_over_tls_use_the_certificate_of_a_folder(tmp_path: Path) -> None:
    """Who trusts it verifies it, also after it was replaced; a folder without one is an error that names it."""
    with pytest.raises(ConfigError, match=f"the certificate of {tmp_path}"):
        Manager(NOWHERE, metrics_secure=SecureMetrics(tmp_path))
    certs = [_made(), _made()]
    write(tmp_path, certs[0])
    manager = Manager(NOWHERE, metrics_secure=SecureMetrics(tmp_path, authorize=False))
    async with running(manager) as task:
        for pair in certs:
            write(tmp_path, pair)
            trusted = {"ca_data": pair[0], "tls_server_name": "localhost"}
            async with asyncio.timeout(10):
                while True:
                    with contextlib.suppress(ConnectionFailed):
                        async with reach(manager.metrics_address, **trusted) as client:
                            assert "certwatcher_read_certificate_total" in await client.text("/metrics")
                            break
                    await asyncio.sleep(0.1)
    await task


def write(folder: Path, pair: tuple[bytes, bytes]) -> None:
    (folder / "tls.crt").write_bytes(pair[0])
    (folder / "tls.key").write_bytes(pair[1])


def _made() -> tuple[bytes, bytes]:
    now = dt.datetime.now(dt.UTC)
    times = {"not_before": now - dt.timedelta(days=1), "not_after": now + dt.timedelta(days=1)}
    authority = make_authority("test", **times)
    pair = make_serving(authority, ["localhost"], **times)
    return pair.cert + authority.cert, pair.key


async def test_secure_metrics_are_for_those_whom_the_api_server_allows(api_server: Server) -> None:
    """A good token reads them; none, or a wrong one, is 401; one without the right is 403."""
    manager = Manager(api_server.config, metrics_secure=SecureMetrics())
    manager.add_metrics_handler("/extra", _extra)
    async with running(manager) as task:
        good = await bearer(api_server)
        async with reach(manager.metrics_address, verify=False, token=good) as client:
            assert "rest_client_requests_total" in await client.text("/metrics")
            assert await client.text("/extra") == "extra"
        for token in (None, "wrong"):
            async with reach(manager.metrics_address, verify=False, token=token) as client:
                for path in ("/metrics", "/extra"):
                    with pytest.raises(Unauthorized):
                        await client.text(path)
        if api_server.kind == "real":  # to the embedded one, whoever is known may do everything
            async with reach(manager.metrics_address, verify=False, token=await nobody(api_server)) as client:
                with pytest.raises(Forbidden, match="denied for user system:serviceaccount:default:nobody"):
                    await client.text("/metrics")
    await task


async def bearer(server: Server) -> str:
    """A token that the API server knows."""
    if server.config.token:
        return server.config.token
    return await nobody(server)


async def nobody(server: Server) -> str:
    """The token of a service account without any rights."""
    accounts = "/api/v1/namespaces/default/serviceaccounts"
    async with Client(server.config) as client:
        try:
            await client.request("GET", f"{accounts}/nobody")
        except NotFound:
            await client.request("POST", accounts, body={"metadata": {"name": "nobody"}})
        answer = await client.request(
            "POST",
            f"{accounts}/nobody/token",
            body={"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"audiences": None}},
        )
    return str(answer["status"]["token"])
