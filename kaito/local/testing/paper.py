"""The cluster itself: an API server here or elsewhere, our CRDs, a cloud in memory, hardware that is played.

In: a folder, and the address of an API server with Kubernetes' controllers, or none. Out: a :class:`Paper`. With
none both run in this event loop and by its clock: under a loop in virtual time an hour costs a second.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar

from api.crds import crds, nodeclaim_crd
from controllers import WorkspaceSettings
from controllers.resources import MACHINES, NODECLAIMS, WORKSPACES
from kaito.local.apiserver.server import ApiServer
from kaito.local.cluster import put
from kaito.local.testing.hardware import Hardware
from kaito.local.testing.operators import Operators, background
from kaito.local.workloads.composition import compose, spoken_by
from kaito.local.workloads.nodes.decide import Timing
from manager.client import Client
from manager.config import RestConfig
from manager.errors import ApiError, NotFound
from manager.manager import Manager
from manager.resources import CRDS
from manager.types import Obj
from provisioner.testing import FakeLocalCloud

T = TypeVar("T")
EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
_FOR_EVER = 1e9  # seconds: played nodes send no heartbeats


@dataclass(frozen=True, slots=True)
class Paper:
    """See the module. ``clock`` is the cluster's: what it writes into objects."""

    config: RestConfig
    client: Client
    cloud: FakeLocalCloud
    hardware: Hardware
    operators: Operators
    clock: Callable[[], datetime]
    namespace: str
    virtual: bool

    async def get(self, name: str) -> Obj:
        """A Workspace."""
        return await self.client.get(WORKSPACES, name, self.namespace)

    async def ready(self, name: str) -> Obj:
        """Wait until a Workspace is ready; the Workspace."""

        async def check() -> Obj | None:
            found = await self.get(name)
            conditions = (found.get("status") or {}).get("conditions") or []
            good = any(item["type"] == "WorkspaceReady" and item["status"] == "True" for item in conditions)
            return found if good else None

        return await self.until(check, lambda: self._told(name))

    async def gone(self, name: str) -> None:
        """Wait until a Workspace has left."""

        async def check() -> bool:
            try:
                await self.get(name)
            except NotFound:
                return True
            return False

        await self.until(check, lambda: self._told(name))

    async def until(
        self,
        check: Callable[[], Awaitable[T | None]],
        explain: Callable[[], Awaitable[object]] | None = None,
        seconds: float | None = None,
    ) -> T:
        """The first answer that is true, in the loop's time. The limit is for a broken run."""
        limit = seconds if seconds is not None else 1800.0 if self.virtual else 60.0
        loop = asyncio.get_running_loop()
        end = loop.time() + limit
        while not (answer := await check()):
            if loop.time() > end:
                raise AssertionError(f"still not so after {limit:g} s: {await explain() if explain else ''}")
            await asyncio.sleep(0.5 if self.virtual else 0.05)
        return answer

    async def _told(self, name: str) -> object:
        try:
            return (await self.get(name)).get("status")
        except NotFound:
            return "it is gone"


@asynccontextmanager
async def paper_cluster(
    folder: Path,
    *,
    config: RestConfig | None = None,
    namespace: str = "default",
    nodeclaims: bool = False,
    settings: WorkspaceSettings | None = None,
) -> AsyncIterator[Paper]:
    """A cluster with nobody operating it yet.

    Args:
        folder: what it may write to.
        config: an API server that has Kubernetes' controllers beside it; None: one in this loop.
        nodeclaims: NodeClaims are served too.
    """
    async with AsyncExitStack() as stack:
        virtual, clock = config is None, _utc_now
        if config is None:
            clock = _clock_of(asyncio.get_running_loop())
            config = await stack.enter_async_context(_here(folder / "data", clock))
        client = await stack.enter_async_context(Client(config))
        await install(client, nodeclaims=nodeclaims)
        cloud = await stack.enter_async_context(FakeLocalCloud())
        token = folder / "token"
        token.write_text(cloud.token)
        hardware = Hardware(client, clock, namespace)
        cloud.on_change = hardware.instance_changed
        await stack.enter_async_context(background(hardware.run(), "hardware"))
        if not virtual:
            await stack.enter_async_context(background(hardware.beat(), "heartbeats"))
        chosen = settings or WorkspaceSettings(registry="example.com/kaito", clock=clock, pod_reader=hardware)
        operators = Operators(config, cloud.url, token, clock, poll=1.0 if virtual else 0.05, settings=chosen)
        stack.push_async_callback(operators.bury)
        yield Paper(config, client, cloud, hardware, operators, clock, namespace, virtual)


async def install(client: Client, *, nodeclaims: bool) -> None:
    """Apply our CRDs and wait until they are served."""
    for crd in (*crds(), *([nodeclaim_crd()] if nodeclaims else [])):
        await put(client, CRDS, crd)
    kinds = (WORKSPACES, MACHINES, NODECLAIMS) if nodeclaims else (WORKSPACES, MACHINES)
    for kind in kinds:
        while True:
            try:
                await client.list(kind, limit=1)
            except ApiError:
                await asyncio.sleep(0.05)
                continue
            break


@asynccontextmanager
async def _here(folder: Path, clock: Callable[[], datetime]) -> AsyncIterator[RestConfig]:
    async with ApiServer(folder, clock=clock) as server:
        config = server.rest_config()
        async with Client(config) as client:
            spoken = await spoken_by(client)
        mgr = Manager(config, metrics_bind="0", health_bind="0", name="kaito-workloads")
        compose(mgr, spoken, config.ca_data, clock=clock, timing=Timing(_FOR_EVER, _FOR_EVER))
        stop = asyncio.Event()
        run = asyncio.create_task(mgr.run(stop), name="workload-controllers")
        try:
            yield config
        finally:
            stop.set()
            await asyncio.wait({run})
            run.result()


def _utc_now() -> datetime:
    return datetime.now(UTC)


def _clock_of(loop: asyncio.AbstractEventLoop) -> Callable[[], datetime]:
    start = loop.time()
    return lambda: EPOCH + timedelta(seconds=loop.time() - start)
