"""Puts the controllers together: one manager, one view of the world, the versions that the server speaks."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass

from manager.client import Client
from manager.config import RestConfig
from manager.errors import ConnectionFailed, ServerError
from manager.manager import Manager
from manager.types import Resource

from . import accounts, disruption, namespaces
from .daemonset import reconciler as daemonsets
from .deployment import reconciler as deployments
from .endpoints import reconciler as endpoints
from .garbage import collector as garbage
from .job import reconciler as jobs
from .nodes import reconciler as nodes
from .nodes.decide import Timing
from .replicaset import reconciler as replicasets
from .scheduler import reconciler as scheduler
from .statefulset import reconciler as statefulsets
from .times import Clock, utc_now
from .volumes import reconciler as volumes
from .world import World

log = logging.getLogger("kaito.local.workloads.composition")

_RETRY = 0.2  # seconds between attempts to reach a server that is still starting


@dataclass(frozen=True, slots=True)
class Spoken:
    """Resources whose version depends on the server; None where it has none."""

    slices: Resource | None
    budgets: Resource | None


async def spoken_by(client: Client) -> Spoken:
    """Ask the server (Kubernetes 1.20 has only the older versions of both)."""
    return Spoken(
        slices=await client.discover("discovery.k8s.io", "EndpointSlice", "v1", "v1beta1"),
        budgets=await client.discover("policy", "PodDisruptionBudget", "v1", "v1beta1"),
    )


def compose(
    manager: Manager, spoken: Spoken, ca: bytes | None, *, clock: Clock = utc_now, timing: Timing | None = None
) -> None:
    """Register every controller with the manager. ``ca`` is published to all namespaces."""
    world = World(manager.cache)
    accounts.add(manager, world, ca)
    namespaces.add(manager, world, clock)
    garbage.add(manager)
    deployments.add(manager, world, clock)
    replicasets.add(manager, world, clock)
    statefulsets.add(manager, world, clock)
    daemonsets.add(manager, world, clock)
    jobs.add(manager, world, clock)
    volumes.add(manager, world)
    scheduler.add(manager, world, clock)
    nodes.add(manager, world, clock, timing or Timing())
    endpoints.add(manager, world, spoken.slices)
    if spoken.budgets is not None:
        disruption.add(manager, world, spoken.budgets, clock)


async def run_controllers(config: RestConfig, stop: asyncio.Event, *, timing: Timing | None = None) -> None:
    """See :func:`kaito.local.workloads.run`."""
    async with Client(config, user_agent="kaito-workloads") as client:
        spoken = await _when_it_answers(client, stop)
    if spoken is None:
        return
    manager = Manager(config, metrics_bind="0", health_bind="0", graceful_timeout=5.0, name="kaito-workloads")
    compose(manager, spoken, config.ca_data, timing=timing)
    await manager.run(stop)


async def _when_it_answers(client: Client, stop: asyncio.Event) -> Spoken | None:
    """The server's versions, as soon as it is there; None when ``stop`` comes first."""
    while not stop.is_set():
        try:
            return await spoken_by(client)
        except (ConnectionFailed, ServerError) as error:
            log.debug("the API server does not answer yet error=%s", error)
        try:
            async with asyncio.timeout(_RETRY):
                await stop.wait()
        except TimeoutError:
            continue
    return None
