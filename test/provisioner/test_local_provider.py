"""The local provider against its HTTP wire."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from provisioner import InstanceRequest, InstanceState, Taint
from provisioner.errors import (
    AuthorizationFailed,
    CapacityUnavailable,
    CloudError,
    CloudUnavailable,
    InstanceExists,
    NotAllowed,
    NotFound,
    OperationInProgress,
    QuotaExceeded,
    RetryPolicy,
    SkuNotAvailable,
    Throttled,
)
from provisioner.local import LocalProvider
from provisioner.testing import FakeLocalCloud, Fault

REQUEST = InstanceRequest(
    name="ws123",
    instance_types=("Standard_NC6s_v3",),
    labels={"apps": "phi-3"},
    taints=(Taint("sku", "NoSchedule", "gpu"),),
)


@pytest.fixture
async def cloud() -> AsyncIterator[FakeLocalCloud]:
    async with FakeLocalCloud(auto=False) as fake:
        yield fake


@pytest.fixture
async def provider(cloud: FakeLocalCloud, tmp_path: Path) -> AsyncIterator[LocalProvider]:
    token = tmp_path / "token"
    token.write_text(cloud.token + "\n")
    local = LocalProvider(cloud.url, token, gpus_of={"Standard_NC12s_v3": 2})
    yield local
    await local.close()


async def test_create_returns_while_the_instance_is_still_being_made(
    cloud: FakeLocalCloud, provider: LocalProvider
) -> None:
    """A create starts the operation and tells what is known already, without waiting."""
    instance = await provider.create(REQUEST)

    assert instance.state == InstanceState.CREATING
    assert (instance.provider_id, instance.node_name) == ("local:///instances/ws123", "ws123")
    assert cloud.instances["ws123"]["request"] == {
        "instanceType": "Standard_NC6s_v3",
        "labels": {"apps": "phi-3"},
        "taints": [{"key": "sku", "value": "gpu", "effect": "NoSchedule"}],
        "capacity": {"nvidia.com/gpu": "1"},
    }


async def test_get_follows_the_instance_through_its_life(cloud: FakeLocalCloud, provider: LocalProvider) -> None:
    """Whoever asks by name learns each state, and NotFound once the instance is gone."""
    await provider.create(REQUEST)
    await cloud.finish("ws123")
    assert (await provider.get("ws123")).state == InstanceState.RUNNING

    await provider.delete("ws123")
    assert (await provider.get("ws123")).state == InstanceState.DELETING
    await provider.delete("ws123")

    await cloud.finish("ws123")
    with pytest.raises(NotFound):
        await provider.get("ws123")
    with pytest.raises(NotFound):
        await provider.delete("ws123")


async def test_create_never_touches_an_instance_of_that_name(
    cloud: FakeLocalCloud, provider: LocalProvider
) -> None:
    """A second create of the same name is refused and changes nothing."""
    await provider.create(REQUEST)

    with pytest.raises(InstanceExists):
        await provider.create(REQUEST)

    assert cloud.creates == ["ws123"]
    assert [instance.name for instance in await provider.list()] == ["ws123"]


async def test_a_failed_instance_carries_its_error(cloud: FakeLocalCloud, provider: LocalProvider) -> None:
    """A creation that fails later is told as a typed error on the instance."""
    await provider.create(REQUEST)
    await cloud.finish("ws123", {"code": "SkuNotAvailable", "message": "not in this region"})

    instance = await provider.get("ws123")

    assert instance.state == InstanceState.FAILED
    assert isinstance(instance.error, SkuNotAvailable)
    assert instance.error.message == "not in this region"


@pytest.mark.parametrize(
    ("instance_type", "capacity"),
    [
        ("Standard_NC12s_v3", {"nvidia.com/gpu": "2"}),
        ("Standard_NC999_v9", {"nvidia.com/gpu": "1"}),
        ("Standard_D4s_v5", {}),
    ],
)
async def test_capacity_comes_from_the_instance_type(
    cloud: FakeLocalCloud, provider: LocalProvider, instance_type: str, capacity: dict[str, str]
) -> None:
    """A known type has its GPUs, an unknown one of the N family has one, any other has none."""
    await provider.create(InstanceRequest("ws123", (instance_type,)))

    assert capacity == cloud.instances["ws123"]["request"]["capacity"]


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (Fault("create", "QuotaExceeded", "0 of 6 cores left"), QuotaExceeded),
        (Fault("create", "SkuNotAvailable", "no", status=400), SkuNotAvailable),
        (Fault("create", "ZonalAllocationFailed", "no"), CapacityUnavailable),
        (Fault("create", "OperationNotAllowed", "no"), NotAllowed),
        (Fault("create", "AuthorizationFailed", "no", status=403), AuthorizationFailed),
        (Fault("create", "Whatever", "busy"), OperationInProgress),
        (Fault("create", "Whatever", "odd", status=400), CloudError),
        (Fault("create", "InternalError", "oops", status=500), CloudUnavailable),
        (Fault("create", "TooManyRequests", "slow down", status=429, retry_after=17), Throttled),
    ],
    ids=lambda value: value.code if isinstance(value, Fault) else "",
)
async def test_refusals_are_typed_and_say_what_to_do(
    cloud: FakeLocalCloud, provider: LocalProvider, fault: Fault, expected: type[CloudError]
) -> None:
    """Every refusal becomes the error of its kind, keeps the cloud's words and ends in a next step."""
    cloud.faults.append(fault)

    with pytest.raises(CloudError) as caught:
        await provider.create(REQUEST)

    assert expected is type(caught.value)
    assert fault.message in caught.value.message
    assert caught.value.next_step
    assert fault.retry_after == caught.value.retry_after
    assert cloud.creates == []


async def test_an_unreachable_cloud_is_told_as_such(tmp_path: Path) -> None:
    """A refused connection is CloudUnavailable with the address in its message; no aiohttp type leaks."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        provider = LocalProvider(url, None, gpus_of={})
        try:
            with pytest.raises(CloudUnavailable, match=url):
                await provider.get("ws123")
        finally:
            await provider.close()


@pytest.mark.parametrize("text", ["<html>", "[]", '{"name": "ws123"}', '{"items": 3}'])
async def test_an_answer_of_something_else_is_told_as_such(text: str) -> None:
    """A reply that is not the promised shape is CloudUnavailable, never a KeyError."""

    async def serve(_: web.Request) -> web.Response:
        return web.Response(text=text)

    app = web.Application()
    app.router.add_get("/instances/ws123", serve)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    provider = LocalProvider(f"http://127.0.0.1:{runner.addresses[0][1]}", None, gpus_of={})
    try:
        with pytest.raises(CloudUnavailable):
            await provider.get("ws123")
    finally:
        await provider.close()
        await runner.cleanup()


async def test_a_missing_token_file_and_a_wrong_token_are_authorization_failures(
    cloud: FakeLocalCloud, tmp_path: Path
) -> None:
    """Both say that the credentials are the problem, and which flag sets them."""
    wrong = tmp_path / "wrong"
    wrong.write_text("wrong")
    for file, step in ((tmp_path / "absent", "--local-cloud-token-file"), (wrong, "permission")):
        provider = LocalProvider(cloud.url, file, gpus_of={})
        try:
            with pytest.raises(AuthorizationFailed) as caught:
                await provider.get("ws123")
            assert step in caught.value.next_step
        finally:
            await provider.close()


@pytest.mark.parametrize(("attempt", "seconds"), [(0, 2), (1, 2), (2, 4), (3, 8), (6, 60), (10_000, 60)])
def test_retry_delays_double_up_to_their_cap(attempt: int, seconds: float) -> None:
    """The delay doubles with each attempt and stays at the cap, however many there were."""
    assert seconds == RetryPolicy(2, 60).delay(attempt)


def test_what_the_cloud_asked_for_wins_over_the_policy() -> None:
    """A Retry-After of the cloud is the delay, also after many attempts."""
    assert Throttled("slow down", retry_after=17).retry_delay(9) == 17
