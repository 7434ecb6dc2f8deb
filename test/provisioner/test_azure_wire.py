"""What goes over the wire between the real SDK and Azure's Resource Manager, request by request."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from kaito.local.fakearm import Fault, Rules
from provisioner import InstanceRequest, InstanceState
from provisioner.errors import InstanceExists, NotFound

pytestmark = pytest.mark.looptime

Ask = Callable[..., InstanceRequest]
Make = Callable[..., Awaitable[Any]]
API = {"api-version": "2026-08-01"}


async def test_a_creation_is_one_put_polls_and_a_final_get(azure_with: Make, ask: Ask) -> None:
    """PUT with If-None-Match, the operation's own URL until it has ended, then the pool: in this order only."""
    azure = await azure_with(Rules(create_seconds=40, retry_after=20))
    provider = azure.provider()
    started = await provider.create(ask(provider))
    assert (started.state, started.instance_type) == (InstanceState.CREATING, "Standard_NC6s_v3")

    instance, waited = started, []
    while instance.state is InstanceState.CREATING:
        waited.append(instance.look_again)
        await asyncio.sleep(instance.look_again)
        instance = await provider.resume(started.name, started.operation)

    name = started.name
    assert azure.transcript == [f"put {name} 201", f"poll {name} 200", f"poll {name} 200", f"get {name} 200"]
    assert waited == [20, 20]
    assert instance.state is InstanceState.RUNNING
    put, first, second, final = azure.arm.journal.exchanges
    pools = azure.arm.pools
    assert (put.method, put.path, put.query) == ("PUT", pools.path(name), API)
    assert put.headers["if-none-match"] == "*"
    assert (put.headers["content-type"], put.headers["authorization"]) == ("application/json", "Bearer")
    assert put.headers["user-agent"].startswith("kaito azsdk-python-mgmt-containerservice/41.")
    # The operation's address is asked exactly as it was given, under the PUT's own request id.
    assert (first.path, first.query) == (second.path, second.query)
    assert first.query == {"api-version": "2017-08-31"}
    assert {each.headers["x-ms-client-request-id"] for each in (put, first, second, final)} == {
        put.headers["x-ms-client-request-id"]
    }
    assert (final.path, final.query) == (pools.path(name), API)


async def test_a_restart_in_the_middle_goes_on_with_the_kept_token(azure: Any, ask: Ask) -> None:
    """Another process with the token polls the same operation; there is no second PUT."""
    before = azure.provider()
    started = await before.create(ask(before))
    await before.close()

    after = azure.provider()
    assert (await after.resume(started.name, started.operation)).state is InstanceState.CREATING
    await azure.arm.finish(started.name)
    assert (await after.resume(started.name, started.operation)).state is InstanceState.RUNNING

    name = started.name
    assert azure.transcript == [f"put {name} 201", f"poll {name} 200", f"poll {name} 200", f"get {name} 200"]


async def test_a_lost_token_ends_in_a_refused_put_and_the_same_pool(azure: Any, ask: Ask) -> None:
    """Without its token a restarted process creates again, is refused, and finds the pool that there is."""
    before = azure.provider()
    name = (await before.create(ask(before))).name
    await before.close()

    after = azure.provider()
    with pytest.raises(InstanceExists) as caught:
        await after.create(ask(after))
    found = await after.get(name)

    assert caught.value.reason == "InstanceExists"
    assert (found.name, found.state) == (name, InstanceState.CREATING)
    assert azure.transcript == [f"put {name} 201", f"put {name} 412", f"get {name} 200"]
    assert list(azure.arm.pools.pools) == [name]


async def test_a_reply_that_is_lost_leaves_one_pool(azure_with: Make, ask: Ask) -> None:
    """The PUT was carried out and its reply lost: the SDK's retry is refused, and the pool is the one there is."""
    azure = await azure_with(Rules(faults=[Fault(verb="put", lose="response")]))
    provider = azure.provider()
    request = ask(provider)

    with pytest.raises(InstanceExists):
        await provider.create(request)

    assert azure.transcript == [f"put {request.name} 0", f"put {request.name} 412"]
    assert (await provider.get(request.name)).state is InstanceState.CREATING


async def test_a_request_that_is_lost_is_sent_again(azure_with: Make, ask: Ask) -> None:
    """A connection that breaks before the service has seen the PUT costs a second PUT and nothing else."""
    azure = await azure_with(Rules(faults=[Fault(verb="put", lose="request")]))
    provider = azure.provider()

    name = (await provider.create(ask(provider))).name

    assert azure.transcript == [f"put {name} 0", f"put {name} 201"]


async def test_a_deletion_is_one_delete_and_polls(azure: Any, ask: Ask) -> None:
    """DELETE without a body, the operation until it has ended, and neither a final GET nor the Location."""
    provider = azure.provider()
    name = (await provider.create(ask(provider))).name
    await azure.arm.finish(name)
    azure.arm.journal.clear()

    operation = await provider.delete(name)
    assert (await provider.resume(name, operation)).state is InstanceState.DELETING
    await azure.arm.finish(name)
    with pytest.raises(NotFound):
        await provider.resume(name, operation)

    assert azure.transcript == [f"delete {name} 202", f"poll {name} 200", f"poll {name} 200"]
    (delete, *_) = azure.arm.journal.exchanges
    assert (delete.path, delete.query) == (azure.arm.pools.path(name), API)
    assert delete.headers["content-length"] == "0"


async def test_a_restart_in_the_middle_of_a_deletion_goes_on_with_the_token(azure: Any, ask: Ask) -> None:
    """Another process with the deletion's token polls it; there is no second DELETE."""
    before = azure.provider()
    name = (await before.create(ask(before))).name
    await azure.arm.finish(name)
    operation = await before.delete(name)
    azure.arm.journal.clear()

    after = azure.provider()
    assert (await after.resume(name, operation)).state is InstanceState.DELETING
    await azure.arm.finish(name)
    with pytest.raises(NotFound):
        await after.resume(name, operation)

    assert azure.transcript == [f"poll {name} 200", f"poll {name} 200"]


@pytest.mark.acceptance("instance-List-success")
async def test_a_list_follows_every_page(azure_with: Make, ask: Ask) -> None:
    """Each page's link is followed, with the client's api-version in place of the link's own."""
    azure = await azure_with(Rules(create_seconds=0, page_size=2))
    provider = azure.provider()
    names = {(await provider.create(ask(provider, uid=f"uid-{number}"))).name for number in range(5)}
    await asyncio.sleep(1)
    azure.arm.journal.clear()

    listed = await provider.list()

    assert {instance.name for instance in listed} == names
    assert azure.transcript == ["list 200"] * 3
    assert [dict(exchange.query) for exchange in azure.arm.journal.exchanges] == [
        API,
        {**API, "skip": "2"},
        {**API, "skip": "4"},
    ]
    assert {instance.owner.uid for instance in listed if instance.owner} == {
        f"uid-{number}" for number in range(5)
    }


async def test_one_connection_and_one_token_serve_many_calls(azure: Any, ask: Ask) -> None:
    """Fifty calls at once go through one client; afterwards it is closed and nothing is left open."""
    provider = azure.provider()
    name = (await provider.create(ask(provider))).name
    await azure.arm.finish(name)

    answers = await asyncio.gather(*(provider.get(name) for _ in range(50)))

    assert {instance.state for instance in answers} == {InstanceState.RUNNING}
    assert len(azure.arm.journal.of("get", status=200)) == 50


@pytest.mark.parametrize("retry_after", [None, 3])
async def test_a_moments_failure_is_retried_in_place(azure_with: Make, ask: Ask, retry_after: int | None) -> None:
    """Two 5xx in a row are over within the call, a short Retry-After being kept."""
    fault = Fault(verb="get", answer="unavailable", times=2, retry_after=retry_after)
    azure = await azure_with(Rules(faults=[fault]))
    provider = azure.provider()
    name = (await provider.create(ask(provider))).name

    assert (await provider.get(name)).state is InstanceState.CREATING

    first, second, third = azure.arm.journal.of("get")
    assert (first.status, second.status, third.status) == (503, 503, 200)
    assert second.at - first.at == pytest.approx(retry_after or 0, abs=0.1)
    assert third.at - second.at == pytest.approx(retry_after or 1.6, abs=0.1)


@pytest.mark.parametrize("token_kept", [True, False])
@pytest.mark.parametrize("exchange", range(1, 8))
async def test_one_pool_whenever_the_process_dies(
    azure_with: Make, ask: Ask, exchange: int, token_kept: bool
) -> None:
    """Killed before the reply of any exchange, with its token or without: the next process ends with one pool."""
    azure = await azure_with(Rules(create_seconds=40, retry_after=10))
    kept: list[str] = []
    first = asyncio.create_task(grow(azure.provider(), ask, kept))

    class Deadly(list[Any]):
        def append(self, item: Any) -> None:
            super().append(item)
            if len(self) == exchange:
                first.cancel()

    azure.arm.journal.exchanges = seen = Deadly()
    await asyncio.gather(first, return_exceptions=True)
    assert len(seen) == exchange

    name = await grow(azure.provider(), ask, kept if token_kept else [])

    assert list(azure.arm.pools.pools) == [name]
    assert len(azure.arm.journal.of("put", status=201)) == 1
    assert len(azure.arm.journal.of("put")) <= 2


async def grow(provider: Any, ask: Ask, kept: list[str]) -> str:
    """Look, create, follow to the end; what is kept on the Machine is in ``kept``."""
    request = ask(provider)
    while True:
        try:
            if kept:
                instance = await provider.resume(request.name, kept[-1])
            else:
                instance = await provider.get(request.name)
        except NotFound:
            instance = await provider.create(request)
            kept.append(instance.operation)
        if instance.state is InstanceState.RUNNING:
            return str(instance.name)
        await asyncio.sleep(instance.look_again or 10)


async def test_a_service_without_preconditions_makes_no_second_pool(azure_with: Make, ask: Ask) -> None:
    """Where If-None-Match is ignored, a second PUT is an update of the same pool, because the name is the same."""
    azure = await azure_with(Rules(honours_if_none_match=False))
    provider = azure.provider()
    name = (await provider.create(ask(provider))).name
    await azure.arm.finish(name)
    again = azure.provider()

    instance = await again.create(ask(again))

    assert (instance.name, instance.state) == (name, InstanceState.CREATING)
    assert list(azure.arm.pools.pools) == [name]
