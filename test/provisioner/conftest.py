"""The Azure provider on the real SDK, and the stand-in for Azure's Resource Manager that it talks to over TLS.

Both run in the test's own event loop, so that virtual time holds for both of them: a poll, a Retry-After and an
operation of three minutes cost nothing.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from kaito.local.fakearm import FakeArm, Rules
from kaito.local.pki import Authority, KeyPair
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
