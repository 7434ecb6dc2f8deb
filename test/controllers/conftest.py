"""An operator to start and kill, a cloud to fail on request, and a stand-in for what nodes and kubelets do.

The API server, its controllers and its scheduler are real; the cloud is real at its HTTP wire; only hardware is
played: an instance that runs becomes a Node object, and a pod that is bound to it becomes ready.
"""

from __future__ import annotations

import asyncio
import os
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import looptime
import pytest

from api import catalog
from api.crds import crds
from controllers import (
    MachineSettings,
    WorkspaceSettings,
    add_machine_controller,
    add_workspace_controller,
)
from controllers.resources import MACHINES, WORKSPACES
from kaito.local.cluster import put
from kaito.local.testing import Paper, paper_cluster
from manager.client import Client
from manager.config import RestConfig
from manager.errors import ApiError, NotFound
from manager.manager import Manager
from manager.resources import CRDS, NAMESPACES, NODES, PODS
from manager.testing.controlplane import assets
from provisioner.local import LocalProvider
from provisioner.testing import FakeLocalCloud

Json = dict[str, Any]
Answer = TypeVar("Answer")
SKU = "Standard_NC6s_v3"
SOAK = bool(os.environ.get("KAITO_SOAK"))


def stamp() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass
class World:
    """Everything around the operator that one test uses."""

    config: RestConfig
    client: Client
    namespace: str
    cloud: FakeLocalCloud
    token_file: Path
    labels: dict[str, str] = field(default_factory=lambda: {"apps": f"a{uuid.uuid4().hex[:8]}"})
    gpus: str = "1"
    pods_fail: Json | None = None  # container state to report instead of ready
    settings: WorkspaceSettings = field(default_factory=lambda: WorkspaceSettings(registry="example.com/kaito"))
    pod_ip: str = "127.97.0.7"
    providers: list[LocalProvider] = field(default_factory=list)  # closed when their operators have ended

    # ------------------------------------------------------------------ the operator

    def manager(self, *, workspace: bool = True, machine: bool = True, **settings: Any) -> Manager:
        """An operator that has not been started; ``settings`` are of its Workspace controller."""
        mgr = Manager(self.config, metrics_bind="0", health_bind="0")
        if workspace:
            add_workspace_controller(mgr, replace(self.settings, **settings))
        if machine:
            gpus = {sku.instance_type: sku.gpus for sku in catalog.skus()}
            provider = LocalProvider(self.cloud.url, self.token_file, gpus_of=gpus)
            provider.poll_interval = 0.05
            add_machine_controller(mgr, provider, MachineSettings())
            self.providers.append(provider)
        return mgr

    @asynccontextmanager
    async def operator(self, **which: Any) -> AsyncIterator[Manager]:
        """A running operator; it must end without a failure."""
        mgr, stop = self.manager(**which), asyncio.Event()
        async with asyncio.TaskGroup() as group:
            group.create_task(mgr.run(stop), name="operator")
            try:
                yield mgr
            finally:
                stop.set()

    # ------------------------------------------------------------------ objects

    def workspace(self, name: str = "w", **changes: Any) -> Json:
        return {
            "apiVersion": "kaito.sh/v1alpha1",
            "kind": "Workspace",
            "metadata": {"name": name, "namespace": self.namespace, **changes.pop("metadata", {})},
            "resource": changes.pop("resource", None) or self.resource(self.labels),
            **(changes or {"inference": {"preset": {"name": "phi-3-mini-4k-instruct"}}}),
        }

    def resource(self, labels: Json) -> Json:
        """The nodes of a Workspace that selects these labels."""
        return {"instanceType": SKU, "labelSelector": {"matchLabels": labels}}

    async def create(self, **changes: Any) -> Json:
        return await self.client.create(WORKSPACES, self.workspace(**changes))

    async def get(self, name: str = "w") -> Json:
        return await self.client.get(WORKSPACES, name, self.namespace)

    async def machines(self) -> list[Json]:
        selector = f"kaito.sh/workspacenamespace={self.namespace}"
        return (await self.client.list(MACHINES, label_selector=selector)).items

    async def conditions(self, name: str = "w") -> dict[str, tuple[str, str]]:
        listed = ((await self.get(name)).get("status") or {}).get("conditions") or []
        return {item["type"]: (item["status"], item["reason"]) for item in listed}

    async def becomes(self, kind: str, status: str, reason: str | None = None, name: str = "w") -> Json:
        """Wait for a condition of the Workspace and return it."""

        async def check() -> Json | None:
            listed = ((await self.get(name)).get("status") or {}).get("conditions") or []
            for item in listed:
                if item["type"] == kind and item["status"] == status and reason in (None, item["reason"]):
                    return dict(item)
            return None

        return await eventually(check, lambda: self._explain(name))

    async def until(self, check: Callable[[], Awaitable[Answer | None]]) -> Answer:
        """Ask until the answer is true, and give it."""
        return await eventually(check)

    async def gone(self, name: str = "w") -> None:
        """Wait until a Workspace has left."""

        async def check() -> bool:
            try:
                await self.get(name)
            except NotFound:
                return True
            return False

        await eventually(check, lambda: self._explain(name))

    async def instance(self) -> str:
        """Wait until the cloud has been asked for an instance; its name."""

        async def check() -> str | None:
            return self.cloud.creates[0] if self.cloud.creates else None

        return await eventually(check)

    async def _explain(self, name: str) -> str:
        return f"{await self.conditions(name)} machines={[m.get('status') for m in await self.machines()]}"

    # ------------------------------------------------------------------ hardware, played

    async def play_node(self, instance: Json) -> None:
        """What a machine does once it runs, or is gone."""
        name = instance["nodeName"]
        if instance["state"] == "Gone":
            await self._ignore_absent(self.client.delete(NODES, name))
        if instance["state"] != "Running":
            return
        wanted = instance["request"]
        labels = {**wanted["labels"], "node.kubernetes.io/instance-type": instance["instanceType"]}
        await self.add_node(name, labels, provider_id=instance["providerID"], taints=wanted["taints"])

    async def add_node(
        self, name: str, labels: Json, *, provider_id: str = "", taints: list[Json] | None = None
    ) -> None:
        """Register a node and make it Ready."""
        spec: Json = {"taints": taints or []}
        if provider_id:
            spec["providerID"] = provider_id
        await self.client.create(NODES, {"metadata": {"name": name, "labels": labels}, "spec": spec})
        await self.node_ready(name)

    async def node_ready(self, name: str, status: str = "True") -> None:
        """Report a node's health, as its kubelet does."""
        amounts = {"cpu": "8", "memory": "64Gi", "pods": "100", "nvidia.com/gpu": self.gpus}
        condition = {
            "type": "Ready",
            "status": status,
            "reason": "Played",
            "message": "played",
            "lastHeartbeatTime": stamp(),
            "lastTransitionTime": stamp(),
        }
        body = {"status": {"conditions": [condition], "capacity": amounts, "allocatable": amounts}}
        await self.client.patch(NODES, name, body, subresource="status")

    async def play_kubelet(self) -> None:
        """Run bound pods of the namespace and let deleted ones go, until cancelled."""
        while True:
            for pod in (await self.client.list(PODS, self.namespace)).items:
                await self._ignore_absent(self._play_pod(pod))
            await asyncio.sleep(0.1)

    async def _play_pod(self, pod: Json) -> None:
        meta = pod["metadata"]
        if meta.get("deletionTimestamp"):
            await self.client.delete(PODS, meta["name"], self.namespace, grace_seconds=0)
            return
        if not pod["spec"].get("nodeName") or (pod.get("status") or {}).get("containerStatuses"):
            return
        ready = self.pods_fail is None
        (container,) = pod["spec"]["containers"]
        state = {"running": {"startedAt": stamp()}} if ready else self.pods_fail
        status = {
            "phase": "Running",
            "podIP": self.pod_ip,
            "conditions": [
                {"type": kind, "status": str(ready), "lastTransitionTime": stamp()}
                for kind in ("Ready", "ContainersReady")
            ],
            "containerStatuses": [
                {
                    "name": container["name"],
                    "image": container["image"],
                    "imageID": "",
                    "ready": ready,
                    "started": ready,
                    "restartCount": 0,
                    "state": state,
                }
            ],
        }
        await self.client.patch(
            PODS, meta["name"], {"status": status}, namespace=self.namespace, subresource="status"
        )

    async def _ignore_absent(self, work: Awaitable[object]) -> None:
        try:
            await work
        except NotFound:
            pass  # it left while we looked


async def eventually(
    check: Callable[[], Awaitable[Answer | None]],
    explain: Callable[[], Awaitable[str]] | None = None,
    seconds: float = 30.0,
) -> Answer:
    """Ask until the answer is true. The time is only a limit for a broken run; nothing rests on its length."""
    deadline = time.monotonic() + seconds
    while True:
        answer = await check()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"still not so after {seconds:.0f} s: {await explain() if explain else ''}")
        await asyncio.sleep(0.02)


@pytest.fixture
async def world(cluster: Any, namespace: str, tmp_path: Path) -> AsyncIterator[World]:
    """A cluster with our CRDs, an empty cloud, and nobody operating it yet."""
    token = tmp_path / "token"
    async with FakeLocalCloud() as cloud, Client(cluster.config) as client:
        token.write_text(cloud.token)
        world = World(cluster.config, client, namespace, cloud, token)
        cloud.on_change = world.play_node
        await install_crds(client)
        kubelet = asyncio.create_task(world.play_kubelet())
        try:
            yield world
        finally:
            await clean_up(world)
            kubelet.cancel()
            await asyncio.gather(kubelet, return_exceptions=True)
            for provider in world.providers:
                await provider.close()


async def install_crds(client: Client) -> None:
    """Apply the CRDs and wait until both kinds are served."""
    for crd in crds():
        await put(client, CRDS, crd)

    async def served() -> bool:
        try:
            await client.list(WORKSPACES, limit=1)
            await client.list(MACHINES, limit=1)
        except ApiError:
            return False
        return True

    await eventually(served)


async def clean_up(world: World) -> None:
    """Leave no Machine, node or Workspace to the next test on this cluster."""
    unfinalized = {"metadata": {"finalizers": None}}
    for workspace in (await world.client.list(WORKSPACES, world.namespace)).items:
        name = workspace["metadata"]["name"]
        await world._ignore_absent(world.client.patch(WORKSPACES, name, unfinalized, namespace=world.namespace))
        await world._ignore_absent(world.client.delete(WORKSPACES, name, world.namespace))
    for machine in await world.machines():
        name = machine["metadata"]["name"]
        await world._ignore_absent(world.client.patch(MACHINES, name, unfinalized))
        await world._ignore_absent(world.client.delete(MACHINES, name))
    selector = ",".join(f"{key}={value}" for key, value in world.labels.items())
    for node in (await world.client.list(NODES, label_selector=selector)).items:
        name = node["metadata"]["name"]
        await world._ignore_absent(world.client.delete(NODES, name))
        await world._ignore_absent(world.client.patch(NODES, name, unfinalized))


# ------------------------------------------------------------------ a cluster in virtual time


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """``stage``: in virtual time; in a soak also on the servers of other processes, by the wall clock."""
    if "stage" in metafunc.fixturenames:
        others = [*(["embedded"] if SOAK else []), *(["real"] if SOAK and assets() else [])]
        metafunc.parametrize("stage", ["virtual", *others], indirect=True, scope="session")


@pytest.fixture(scope="session")
def stage(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., None]:
    """Plays something on a cluster of which only the hardware is not real, in a loop of its own."""
    config: RestConfig | None = None
    if request.param != "virtual":
        config = request.getfixturevalue("_pool").get(request.param, controllers=True, of="stage").config
    return partial(play_on, tmp_path_factory, config)


@pytest.fixture
def virtual(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., None]:
    """A ``stage`` in virtual time only: for hours."""
    return partial(play_on, tmp_path_factory, None)


def play_on(
    folders: pytest.TempPathFactory,
    config: RestConfig | None,
    story: Callable[[Paper], Awaitable[None]],
    **options: Any,
) -> None:
    """One story on a fresh cluster in this process, or in a fresh namespace of another."""

    async def whole() -> None:
        async with AsyncExitStack() as stack:
            name = "default" if config is None else f"t-{uuid.uuid4().hex[:10]}"
            if config is not None:
                client = await stack.enter_async_context(Client(config))
                await client.create(NAMESPACES, {"metadata": {"name": name}})
                stack.push_async_callback(client.delete, NAMESPACES, name)
            folder = folders.mktemp("stage")
            made = paper_cluster(folder, config=config, namespace=name, **options)
            await story(await stack.enter_async_context(made))

    factory = (lambda: looptime.new_event_loop(start=0.0, noop_cycles=4)) if config is None else None
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(whole())
