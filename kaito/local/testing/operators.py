"""Operators to start, to stop and to kill.

In: a cluster, a cloud, settings. Out: managers with our controllers. A kill is abrupt: from the moment on nothing
of that process reaches the API server or the cloud, and what is left of it is cancelled and not waited for, as the
next process would not wait for it either.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from api import catalog
from controllers import MachineSettings, WorkspaceSettings, add_machine_controller, add_workspace_controller
from manager.cache import Cache
from manager.client import Client
from manager.config import RestConfig
from manager.controller import ControllerDefaults
from manager.manager import Manager
from manager.testing.mortal import Life, MortalClient
from provisioner import CloudProvider, Instance, InstanceRequest
from provisioner.local import LocalProvider


class MortalCloud:
    """A provider whose calls that change something are steps of a life."""

    def __init__(self, provider: CloudProvider, life: Life) -> None:
        self._provider, self._life = provider, life
        self.name, self.poll_interval = provider.name, provider.poll_interval

    def instance_name(self, machine: str, uid: str, provider_id: str = "") -> str:
        """See ``CloudProvider``."""
        return self._provider.instance_name(machine, uid, provider_id)

    def instance_of(self, node: Any) -> str:
        """See ``CloudProvider``."""
        return self._provider.instance_of(node)

    async def create(self, request: InstanceRequest) -> Instance:
        """See ``CloudProvider``."""
        await self._life.begin()
        made = await self._provider.create(request)
        await self._life.step("cloud create")
        return made

    async def delete(self, name: str) -> str:
        """See ``CloudProvider``."""
        await self._life.begin()
        operation = await self._provider.delete(name)
        await self._life.step("cloud delete")
        return operation

    async def get(self, name: str) -> Instance:
        """See ``CloudProvider``."""
        return await self._provider.get(name)

    async def resume(self, name: str, operation: str) -> Instance:
        """See ``CloudProvider``."""
        return await self._provider.resume(name, operation)

    async def list(self) -> list[Instance]:
        """See ``CloudProvider``."""
        return await self._provider.list()

    async def close(self) -> None:
        """See ``CloudProvider``."""
        await self._provider.close()


class Shift:
    """Who operates now, and all that was done before."""

    def __init__(self) -> None:
        self.lives: list[Life] = []

    @property
    def writes(self) -> int:
        """Steps of all lives."""
        return sum(len(life.taken) for life in self.lives)

    def begin(self) -> Life:
        """The next life."""
        self.lives.append(Life())
        return self.lives[-1]

    def kill(self, after: int = 0) -> None:
        """The one that operates now dies after so many more steps."""
        self.lives[-1].end_after(after)


class Operators:
    """See the module.

    Args:
        poll: seconds between two looks at an instance that is being made.
        settings: of the Workspace controller.
    """

    def __init__(
        self,
        config: RestConfig,
        cloud_url: str,
        token_file: Path,
        clock: Callable[[], datetime],
        *,
        poll: float = 1.0,
        settings: WorkspaceSettings,
    ) -> None:
        self._config, self._url, self._token_file, self._clock, self._poll = (
            config,
            cloud_url,
            token_file,
            clock,
            poll,
        )
        self.settings = settings
        self._dead: list[asyncio.Task[None]] = []
        self._providers: list[MortalCloud] = []

    def __repr__(self) -> str:
        return f"<Operators dead={len(self._dead)}>"

    def manager(
        self,
        life: Life,
        *,
        client: Client | None = None,
        workspace: bool = True,
        machine: bool = True,
        **options: Any,
    ) -> Manager:
        """An operator that has not been started. ``options`` are of the manager."""
        # The names of the dead are taken until they are buried; another process would not mind.
        names = ControllerDefaults(skip_name_validation=True)
        fixed = {"metrics_bind": "0", "health_bind": "0", "controller": names}
        mgr = Manager(self._config, **{**fixed, **options})
        mgr.live = client or MortalClient(self._config, life)
        mgr.cache = Cache(mgr.live)
        if workspace:
            add_workspace_controller(mgr, self.settings)
        if machine:
            gpus = {sku.instance_type: sku.gpus for sku in catalog.skus()}
            provider = LocalProvider(self._url, self._token_file, gpus_of=gpus)
            provider.poll_interval = self._poll
            mortal = MortalCloud(provider, life)
            self._providers.append(mortal)
            add_machine_controller(mgr, mortal, replace(MachineSettings(), clock=self._clock))
        return mgr

    @asynccontextmanager
    async def running(self, **which: Any) -> AsyncIterator[Manager]:
        """An operator that runs during the block, is stopped gracefully, and must end without a failure."""
        mgr, stop = self.manager(Life(), **which), asyncio.Event()
        run = asyncio.create_task(mgr.run(stop), name="operator")
        try:
            yield mgr
        finally:
            stop.set()
            await asyncio.wait({run})
        run.result()

    async def live(self, steps: int | None, goal: Callable[[], Awaitable[object]]) -> Life:
        """One life: until the goal is reached, or the steps are used up. Then it is killed.

        Raises:
            Exception: what the operator or the goal raised.
        """
        life = Life(steps)
        run = asyncio.create_task(self.manager(life).run(asyncio.Event()), name="operator")
        died = asyncio.create_task(life.over.wait(), name="death")
        reached = asyncio.ensure_future(goal())
        try:
            done, _ = await asyncio.wait({run, died, reached}, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            life.over.set()
            died.cancel()
            reached.cancel()
            self._kill(run)
        return life

    @asynccontextmanager
    async def always(self) -> AsyncIterator[Shift]:
        """There is an operator during the block: whenever one dies the next begins.

        Raises:
            Exception: what an operator raised that was not killed.
        """
        shift = Shift()
        shift.begin()
        async with asyncio.TaskGroup() as group:
            work = group.create_task(self._relieve(shift), name="operators")
            try:
                yield shift
            finally:
                work.cancel()

    async def _relieve(self, shift: Shift) -> None:
        while True:
            life = shift.lives[-1]
            run = asyncio.create_task(self.manager(life).run(asyncio.Event()), name="operator")
            over = asyncio.create_task(life.over.wait(), name="death")
            try:
                done, _ = await asyncio.wait({run, over}, return_when=asyncio.FIRST_COMPLETED)
                if run in done:
                    run.result()
                    raise RuntimeError("an operator ended by itself")
            finally:
                life.over.set()
                over.cancel()
                self._kill(run)
            shift.begin()

    async def bury(self) -> None:
        """What is left of the dead has ended, and their connections are closed."""
        await asyncio.gather(*self._dead, return_exceptions=True)
        self._dead.clear()
        for provider in self._providers:
            await provider.close()
        self._providers.clear()

    def _kill(self, run: asyncio.Task[None]) -> None:
        run.cancel()
        self._dead.append(run)


@asynccontextmanager
async def background(work: Awaitable[None], name: str) -> AsyncIterator[None]:
    """Something runs during the block."""
    task = asyncio.ensure_future(work)
    if isinstance(task, asyncio.Task):
        task.set_name(name)
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
