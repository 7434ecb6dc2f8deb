"""The scripted server of ``manager.testing.scripted``, running, a client of it, and a reflector that uses it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from manager.client import Client
from manager.config import RestConfig
from manager.errors import AlreadyExists, ApiError, ManagerError
from manager.informer import Informer
from manager.meta import key, resource_version
from manager.reflector import Reflector, Upstream
from manager.resources import CONFIGMAPS, CRDS
from manager.testing.controlplane import assets
from manager.testing.ledger import Ledger
from manager.testing.mirror import Even, Mirror
from manager.testing.scripted import Script
from manager.types import Obj, Resource
from manager.watch import WatchEvent

if TYPE_CHECKING:
    from conftest import Server

WIDGETS = Resource("framework.test", "v1", "widgets", "Widget")

_folder = assets()
if _folder is None or not (_folder / "apiextensions-apiserver").exists():
    collect_ignore = ["test_webhooks_on_the_newest.py"]  # it is about that server and nothing else


@pytest.fixture
async def script() -> AsyncIterator[Script]:
    """The server's script; the server runs."""
    written = Script()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", written.answer)
    server = TestServer(app)
    await server.start_server(shutdown_timeout=0)
    written.url = str(server.make_url("")).rstrip("/")
    yield written
    await server.close()


@pytest.fixture
async def client(script: Script) -> AsyncIterator[Client]:
    """A client of the scripted server."""
    async with Client(RestConfig(server=script.url, token="secret-token")) as opened:
        yield opened


class RefusingClient(Client):
    """A client of the scripted server whose next watches meet a closed port."""

    def __init__(self, config: RestConfig) -> None:
        super().__init__(config)
        self.refusals = 0
        self._nobody = Client(RestConfig(server="http://127.0.0.1:1"))

    async def close(self) -> None:
        await self._nobody.close()
        await super().close()

    def watch_batches(self, *args: Any, **options: Any) -> AsyncGenerator[list[WatchEvent], None]:
        if self.refusals:
            self.refusals -= 1
            return self._nobody.watch_batches(*args, **options)
        return super().watch_batches(*args, **options)


@pytest.fixture
async def refusing_client(script: Script) -> AsyncIterator[RefusingClient]:
    """See the class; ``refusals`` says how many."""
    async with RefusingClient(RestConfig(server=script.url)) as opened:
        yield opened


class Reflecting:
    """A reflector into a ``Mirror``, running inside ``async with``; its back-off has no jitter.

    A streamed list is asked for only where the script has one.
    """

    def __init__(self, client: Upstream, resource: Resource = CONFIGMAPS, **options: Any) -> None:
        self.mirror = Mirror()
        self.errors: list[ManagerError] = []
        options = {"rng": Even(1), "on_error": self.errors.append, **options}
        self.reflector = Reflector(client, resource, self.mirror, **options)
        self.task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Reflecting:
        self.task = asyncio.create_task(self.reflector.run())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self.task is not None
        self.task.cancel()
        (outcome,) = await asyncio.gather(self.task, return_exceptions=True)
        assert isinstance(outcome, asyncio.CancelledError), f"the reflector ended with {outcome!r}"

    async def until(self, condition: Callable[[], bool], seconds: float = 60.0) -> None:
        """Wait for a condition, in the loop's time."""
        async with asyncio.timeout(seconds):
            step = 0.05
            while not condition():
                await asyncio.sleep(step)
                step = min(step * 1.05, 2.0)  # virtual seconds cost real time too

    async def until_names(self, *names: str) -> None:
        """Wait until the copy holds exactly these."""
        await self.until(lambda: self.mirror.names == set(names))


@pytest.fixture
def reflecting() -> type[Reflecting]:
    """Makes a running reflector: ``async with reflecting(client) as run``."""
    return Reflecting


@pytest.fixture
async def widgets(crd_server: Server) -> Resource:
    """A custom resource on the server, established."""
    async with Client(crd_server.config) as admin:
        try:
            await admin.create(CRDS, _widget_crd())
        except AlreadyExists:
            return WIDGETS
        async with asyncio.timeout(30):
            while True:
                crd = await admin.get(CRDS, f"{WIDGETS.plural}.{WIDGETS.group}")
                conditions = crd.get("status", {}).get("conditions") or []
                if any(c["type"] == "Established" and c["status"] == "True" for c in conditions):
                    break
                await asyncio.sleep(0.02)
            while True:
                try:
                    await admin.list(WIDGETS)
                except ApiError:  # established, but not served by every handler yet
                    await asyncio.sleep(0.02)
                else:
                    return WIDGETS


def _widget_crd() -> Obj:
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    names = {"plural": WIDGETS.plural, "singular": "widget", "kind": WIDGETS.kind, "listKind": "WidgetList"}
    return {
        "metadata": {"name": f"{WIDGETS.plural}.{WIDGETS.group}"},
        "spec": {"group": WIDGETS.group, "scope": "Namespaced", "names": names, "versions": [version]},
    }


class _MadeToMeasure(Informer):
    """An informer with a reflector of the test's choice."""

    chosen: Reflector

    def make_reflector(self, part: object) -> Reflector:
        return self.chosen


class Informing:
    """An informer whose reflector is made to measure, with a ``Ledger`` as its handler, inside ``async with``."""

    def __init__(self, client: Client, resource: Resource, **options: Any) -> None:
        self.errors: list[ManagerError] = []
        self.ledger = Ledger()
        self.informer = _MadeToMeasure(client, resource)
        self.registration = self.informer.add_handler(self.ledger)
        options = {"rng": Even(1), "on_error": self.errors.append, **options}
        self.reflector = self.informer.chosen = Reflector(client, resource, self.informer, **options)

    async def __aenter__(self) -> Informing:
        self.task = asyncio.create_task(self.informer.run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self.task.cancel()
        (outcome,) = await asyncio.gather(self.task, return_exceptions=True)
        assert isinstance(outcome, asyncio.CancelledError), f"the informer ended with {outcome!r}"

    def versions(self) -> dict[str, str]:
        """The version of every object in the store, by key; none before the first list."""
        if not self.informer.has_synced:
            return {}
        return {key(obj): resource_version(obj) for obj in self.informer.store.list()}


@pytest.fixture
def informing() -> type[Informing]:
    """Makes a running informer: ``async with informing(client, resource) as run``."""
    return Informing
