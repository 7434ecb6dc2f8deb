"""The Azure provider on the real SDK, and the stand-in for Azure's Resource Manager that it talks to over TLS.

Both run in the test's own event loop, so that virtual time holds for both of them: a poll, a Retry-After and an
operation of three minutes cost nothing.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from api.crds import crds, nodeclaim_crd
from controllers import MachineSettings, add_machine_controller
from controllers.resources import MACHINES, NODECLAIMS, WORKSPACES
from kaito.local.cluster import put
from kaito.local.fakearm import FakeArm, Rules
from kaito.local.pki import Authority, KeyPair
from manager.cache import Cache
from manager.client import Client
from manager.config import RestConfig
from manager.errors import ApiError, NotFound
from manager.manager import Manager
from manager.resources import CRDS, NODES, PODS
from manager.types import Resource
from provisioner import InstanceRequest, Owner, Taint
from provisioner.azure import AzureProvider, AzureSettings

CREATED = datetime(2026, 11, 26, 8, 30, tzinfo=UTC)
UID = "2f6e3c1a-9f0e-4c39-8a51-6f8b7d0c1e11"
SKU = "Standard_NC6s_v3"


class StaticCredential:
    """A credential whose token never ends; what the identity library does is tested elsewhere."""

    async def get_token(self, *scopes: str, **_: Any) -> Any:
        from azure.core.credentials import AccessToken

        return AccessToken("static", int(time.time()) + 36_000)

    async def close(self) -> None:
        """Nothing to release."""


@dataclass(frozen=True, slots=True)
class Certificates:
    """A server's certificate and the authority that vouches for it."""

    server: KeyPair
    ca: Path


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    authority = Authority(tmp_path_factory.mktemp("pki"))
    return Certificates(authority.server("arm", ["127.0.0.1"]), authority.certificate)


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The SDK honours the environment's proxies; ours is on loopback."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    yield


@dataclass
class Azure:
    """A subscription with one cluster, and providers that work on it."""

    arm: FakeArm
    settings: AzureSettings
    stack: AsyncExitStack

    def provider(self, **changes: Any) -> AzureProvider:
        """A provider as a new process would make it: nothing is remembered of an earlier one."""
        made = AzureProvider(replace(self.settings, **changes), credential=StaticCredential)
        self.stack.push_async_callback(made.close)
        return made

    def connected(self, **changes: Any) -> AzureProvider:
        """A provider with the credential that its settings name."""
        made = AzureProvider(replace(self.settings, **changes))
        self.stack.push_async_callback(made.close)
        return made

    def environment(self, folder: Path) -> dict[str, str]:
        """The environment of a process that works on it with workload identity; its token is in ``folder``."""
        token = folder / "token"
        token.write_text("federated")
        return {
            "ARM_SUBSCRIPTION_ID": self.settings.subscription_id,
            "ARM_RESOURCE_GROUP": self.settings.resource_group,
            "AZURE_CLUSTER_NAME": self.settings.cluster,
            "AZURE_TENANT_ID": "tenant-1",
            "AZURE_CLIENT_ID": "client-1",
            "AZURE_FEDERATED_TOKEN_FILE": str(token),
            "AZURE_AUTHORITY_HOST": self.arm.url,
            "AZURE_RESOURCE_MANAGER_ENDPOINT": self.arm.url,
            "AZURE_CA_FILE": str(self.settings.ca_file),
        }

    @property
    def transcript(self) -> list[str]:
        return self.arm.journal.transcript()


@pytest.fixture
async def azure_with(certificates: Certificates) -> AsyncIterator[Callable[..., Awaitable[Azure]]]:
    """Makes an ``Azure`` that behaves by the given rules."""
    async with AsyncExitStack() as stack:

        async def make(rules: Rules | None = None, **changes: Any) -> Azure:
            pair = certificates.server
            arm = await stack.enter_async_context(FakeArm(pair.certificate, pair.key, rules=rules, **changes))
            arm.identity.tokens.add("static")
            settings = AzureSettings(
                subscription_id=arm.pools.subscription,
                resource_group=arm.pools.group,
                cluster=arm.pools.cluster,
                endpoint=arm.url,
                authority=arm.url,
                ca_file=str(certificates.ca),
            )
            return Azure(arm, settings, stack)

        yield make


@pytest.fixture
async def azure(azure_with: Callable[..., Awaitable[Azure]]) -> Azure:
    """An ``Azure`` whose operations last until the test ends them."""
    return await azure_with()


@pytest.fixture
def ask() -> Callable[..., InstanceRequest]:
    """Makes the request of one Machine; every field can be changed."""

    def make(provider: AzureProvider, uid: str = UID, **changes: Any) -> InstanceRequest:
        request = InstanceRequest(
            name=provider.instance_name("ws0f3a9c21b", uid),
            instance_types=(SKU,),
            labels={"kaito.sh/workspace": "phi", "kaito.sh/workspacenamespace": "default", "apps": "phi-3"},
            taints=(Taint("sku", "NoSchedule", "gpu"),),
            storage_bytes=100 << 30,
            owner=Owner("ws0f3a9c21b", uid, "Machine", CREATED),
        )
        return replace(request, **changes)

    return make


# ------------------------------------------------------------------ Machines and NodeClaims on an API server

Json = dict[str, Any]
_UNFINALIZED: Json = {"metadata": {"finalizers": None}}


@dataclass
class Clock:
    """The wall clock, which a test may move forward."""

    ahead: timedelta = timedelta()

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.ahead

    def forward(self, **by: float) -> None:
        self.ahead += timedelta(**by)


@dataclass
class Fleet:
    """Claims of one kind, the cloud that serves them, and what nodes and kubelets would do.

    Attributes:
        gpus: what the device plugin of a new node shows.
        joins: new nodes join by themselves.
    """

    config: RestConfig
    client: Client
    kind: Resource
    azure_with: Callable[..., Awaitable[Azure]]
    azure: Azure = field(init=False)
    clock: Clock = field(default_factory=Clock)
    gpus: str = "1"
    joins: bool = True
    namespace: str = "default"

    @property
    def short(self) -> str:
        """What the types of this kind's conditions begin with."""
        return "Machine" if self.kind is MACHINES else ""

    async def cloud(self, rules: Rules | None = None) -> Azure:
        self.azure = await self.azure_with(
            rules or Rules(create_seconds=0.05, delete_seconds=0.05), on_node=self.on_node
        )
        return self.azure

    # -------------------------------------------------------------- the operator

    def provider(self) -> AzureProvider:
        made = self.azure.provider()
        made.poll_interval = 0.05
        return made

    def manager(
        self, provider: Any = None, client: Client | None = None, name: str = "kaito", **settings: Any
    ) -> Manager:
        """An operator that has not been started; ``client`` is its connection to the API server."""
        mgr = Manager(self.config, metrics_bind="0", health_bind="0", name=name)
        if client is not None:
            mgr.live, mgr.cache = client, Cache(client)
        options: Json = {"clock": self.clock, "kinds_poll": 0.2, **settings}
        add_machine_controller(mgr, provider or self.provider(), MachineSettings(**options))
        return mgr

    @asynccontextmanager
    async def operator(self, provider: Any = None, **settings: Any) -> AsyncIterator[Manager]:
        """A running operator; it must end without a failure."""
        mgr, stop = self.manager(provider, **settings), asyncio.Event()
        async with asyncio.TaskGroup() as group:
            group.create_task(mgr.run(stop), name="operator")
            try:
                yield mgr
            finally:
                stop.set()

    # -------------------------------------------------------------- nodes, played

    async def on_node(self, event: str, node: Json) -> None:
        name = node["metadata"]["name"]
        if event == "deleted":
            await ignore_absent(self.client.delete(NODES, name))
        elif self.joins:
            await self.join(node)

    async def join(self, node: Json) -> None:
        """The kubelet registers its node and reports it ready."""
        await self.client.create(NODES, node)
        await self.report(node["metadata"]["name"])

    async def report(self, name: str, ready: str = "True", **amounts: str) -> None:
        """The kubelet reports; ``amounts`` are further resources."""
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        condition = {
            "type": "Ready",
            "status": ready,
            "reason": "Played",
            "message": "played",
            "lastHeartbeatTime": now,
            "lastTransitionTime": now,
        }
        known = {"cpu": "6", "memory": "112Gi", "pods": "30", "nvidia.com/gpu": self.gpus, **amounts}
        status = {"conditions": [condition], "capacity": known, "allocatable": known}
        await self.client.patch(NODES, name, {"status": status}, subresource="status")

    async def pod(self, node: str, name: str, **changes: Any) -> Json:
        """A pod that runs on a node, without anything that would run it."""
        meta = {"name": name, "namespace": self.namespace, **changes.pop("metadata", {})}
        spec = {
            "nodeName": node,
            "containers": [{"name": "c", "image": "example.com/c:1"}],
            "terminationGracePeriodSeconds": 0,
            "tolerations": [{"key": "sku", "operator": "Exists"}],
            **changes,
        }
        made = await self.client.create(PODS, {"metadata": meta, "spec": spec})
        # A pod that does not run yet may always be evicted.
        ready = [{"type": "Ready", "status": "True"}]
        status = {"phase": "Running", "conditions": ready}
        await self.client.patch(PODS, name, {"status": status}, namespace=self.namespace, subresource="status")
        return made

    # -------------------------------------------------------------- claims

    def body(self, name: str, **changes: Any) -> Json:
        pool = ("karpenter.sh/provisioner-name", "default") if self.short else ("karpenter.sh/nodepool", "kaito")
        spec: Json = {
            "requirements": [
                {
                    "key": "node.kubernetes.io/instance-type",
                    "operator": "In",
                    "values": changes.pop("types", [SKU]),
                }
            ],
            "resources": {"requests": {"storage": "100Gi"}},
            "taints": [{"key": "sku", "value": "gpu", "effect": "NoSchedule"}],
        }
        if not self.short:
            spec["nodeClassRef"] = {"group": "kaito.sh", "kind": "KaitoNodeClass", "name": "default"}
        labels = {"kaito.sh/workspace": "w", "kaito.sh/workspacenamespace": "default", pool[0]: pool[1]}
        meta = {"name": name, "labels": labels, **changes.pop("metadata", {})}
        return {"metadata": meta, "spec": {**spec, **changes}}

    async def claim(self, **changes: Any) -> str:
        name = f"ws{uuid.uuid4().hex[:9]}"
        await self.client.create(self.kind, self.body(name, **changes))
        return name

    async def get(self, name: str) -> Json:
        return await self.client.get(self.kind, name)

    async def delete(self, name: str) -> None:
        await self.client.delete(self.kind, name)

    async def becomes(self, name: str, status: str, reason: str | None = None, condition: str = "Ready") -> Json:
        """Wait for a condition of a claim, named without its kind; the claim."""
        wanted = condition if condition == "Ready" else f"{self.short}{condition}"

        async def check() -> Json | None:
            claim = await self.get(name)
            for item in (claim.get("status") or {}).get("conditions") or []:
                if (
                    item["type"] == wanted
                    and item["status"] == status
                    and reason in (None, item.get("reason", ""))
                ):
                    return claim
            return None

        return await self.eventually(check, name)

    async def leaves(self, name: str) -> None:
        await self.eventually(lambda: absent(self.client, self.kind, name), name)

    async def eventually(self, check: Callable[[], Awaitable[Any]], name: str = "") -> Any:
        """Ask until the answer is true. The time is only a limit for a broken run."""
        deadline = time.monotonic() + 40
        while not (answer := await check()):
            if time.monotonic() > deadline:
                told = (await self.get(name)).get("status") if name else ""
                raise AssertionError(f"still not so: {told} {self.azure.transcript[-20:]}")
            await asyncio.sleep(0.02)
        return answer

    async def message(self, name: str, condition: str = "Ready") -> str:
        wanted = condition if condition == "Ready" else f"{self.short}{condition}"
        status = (await self.get(name)).get("status") or {}
        return next((str(i.get("message", "")) for i in status.get("conditions") or [] if i["type"] == wanted), "")

    def pool(self, name: str, claim: Json) -> str:
        return self.azure.provider().instance_name(name, str(claim["metadata"]["uid"]))

    async def clean_up(self) -> None:
        """Leave nothing to the next test on this server."""
        for kind in (MACHINES, NODECLAIMS):
            for claim in (await self.client.list(kind)).items:
                name = claim["metadata"]["name"]
                await ignore_absent(self.client.patch(kind, name, _UNFINALIZED))
                await ignore_absent(self.client.delete(kind, name))
        for node in (await self.client.list(NODES, label_selector="agentpool")).items:
            name = node["metadata"]["name"]
            await ignore_absent(self.client.delete(NODES, name))
            await ignore_absent(self.client.patch(NODES, name, _UNFINALIZED))
        for pod in (await self.client.list(PODS, self.namespace)).items:
            await ignore_absent(self.client.delete(PODS, pod["metadata"]["name"], self.namespace, grace_seconds=0))


async def ignore_absent(work: Awaitable[object]) -> None:
    try:
        await work
    except NotFound:
        pass  # it left while we looked


async def absent(client: Client, resource: Resource, name: str) -> bool:
    try:
        await client.get(resource, name)
    except NotFound:
        return True
    return False


async def _served(client: Client) -> bool:
    try:
        for resource in (MACHINES, NODECLAIMS, WORKSPACES):
            await client.list(resource, limit=1)
    except ApiError:
        return False
    return True


@pytest.fixture
async def fleet_of(
    cluster: Any, namespace: str, azure_with: Callable[..., Awaitable[Azure]]
) -> AsyncIterator[Callable[[str], Fleet]]:
    """Makes a ``Fleet`` of one kind on the server under test; the cloud is started by its ``cloud``."""
    async with Client(cluster.config) as client:
        for crd in (*crds(), nodeclaim_crd()):
            await put(client, CRDS, crd)
        while not await _served(client):
            await asyncio.sleep(0.05)
        made: list[Fleet] = []

        def make(kind: str) -> Fleet:
            resource = {"Machine": MACHINES, "NodeClaim": NODECLAIMS}[kind]
            made.append(Fleet(cluster.config, client, resource, azure_with, namespace=namespace))
            return made[-1]

        yield make
        for fleet in made:
            await fleet.clean_up()


@pytest.fixture(params=["Machine", "NodeClaim"])
def fleet(request: pytest.FixtureRequest, fleet_of: Callable[[str], Fleet]) -> Fleet:
    """A ``Fleet`` of each of the two kinds."""
    return fleet_of(request.param)
