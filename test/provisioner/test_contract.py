"""Every provider keeps the protocol's promises: Azure on the real SDK, the local cloud on its wire, and none."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from provisioner import InstanceRequest, Owner, Taint
from provisioner.byo import ByoProvider
from provisioner.errors import CloudError
from provisioner.local import LocalProvider
from provisioner.testing import CONTRACT, ContractBroken, FakeLocalCloud, Subject

SKU = "Standard_NC6s_v3"


def request(name: str, uid: str) -> InstanceRequest:
    return InstanceRequest(
        name=name,
        instance_types=(SKU,),
        labels={"kaito.sh/workspace": "phi"},
        taints=(Taint("sku", "NoSchedule", "gpu"),),
        storage_bytes=100 << 30,
        owner=Owner("ws0c0ffee01", uid),
    )


@pytest.fixture
async def subject(kind: str, azure_with: Callable[..., Awaitable[Any]], tmp_path: Path) -> AsyncIterator[Subject]:
    """An empty cloud of one kind, and its provider."""
    async with AsyncExitStack() as stack:
        if kind == "azure":
            azure = await azure_with()
            yield Subject(azure.provider(), request, azure.arm.finish)
        elif kind == "local":
            cloud = await stack.enter_async_context(FakeLocalCloud(auto=False))
            (tmp_path / "token").write_text(cloud.token)
            provider = LocalProvider(cloud.url, tmp_path / "token", gpus_of={})
            stack.push_async_callback(provider.close)
            yield Subject(provider, request, cloud.finish)
        else:

            async def nothing(name: str) -> None:
                """Nothing is ever under way."""

            yield Subject(ByoProvider(), request, nothing, creates=False)


@pytest.mark.parametrize("kind", ["azure", "local", "byo"])
@pytest.mark.parametrize("check", CONTRACT, ids=lambda check: check.__name__)
async def test_the_contract(subject: Subject, check: Callable[[Subject], Awaitable[None]]) -> None:
    """Each provider keeps each promise."""
    await check(subject)


async def test_a_provider_of_no_cloud_says_what_to_do_instead() -> None:
    """A Machine in a cluster with nodes of its own is refused for good, in words that end in a next step."""
    with pytest.raises(CloudError) as caught:
        await ByoProvider().create(request("ws1", "u1"))

    assert caught.value.terminal
    assert str(caught.value) == (
        "CreationDisabled: this cluster brings its own nodes (--provider=byo), so no Standard_NC6s_v3 is created"
    )
    assert caught.value.next_step == (
        "Label nodes of yours with what resource.labelSelector names and delete the Machine, "
        "or run the provisioner with a cloud (--provider=azure); nothing is tried again before."
    )


@pytest.mark.parametrize("check", CONTRACT[2:-1], ids=lambda check: check.__name__)
async def test_the_contract_is_no_rubber_stamp(check: Callable[[Subject], Awaitable[None]]) -> None:
    """A provider that answers everything with nothing breaks every promise about instances."""

    class Careless(ByoProvider):
        async def create(self, request: InstanceRequest) -> Any:
            raise ValueError("a foreign exception")

        async def get(self, name: str) -> Any:
            return None

    async def nothing(name: str) -> None:
        """Nothing is ever under way."""

    with pytest.raises((ContractBroken, ValueError)):
        await check(Subject(Careless(), request, nothing))
