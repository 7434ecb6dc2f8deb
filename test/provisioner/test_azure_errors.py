"""Every refusal of Azure as the provisioner's own error: where it may come, and what it says, word for word."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from kaito.local.fakearm import Fault, Rules
from kaito.local.fakearm.answers import ANSWERS
from provisioner import InstanceRequest, InstanceState, errors
from provisioner.errors import CloudError, Quota

pytestmark = pytest.mark.looptime

Ask = Callable[..., InstanceRequest]
Make = Callable[..., Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Told:
    """What a person reads in a condition, and when the operator tries again."""

    reason: str
    message: str
    next_step: str
    terminal: bool
    retry: tuple[float, float]


ROWS = yaml.safe_load((Path(__file__).parent / "refusals.yaml").read_text())


def expected(row: dict[str, Any]) -> Told:
    return Told(row["reason"], row["message"], row["next"], row["terminal"], (row["retry"][0], row["retry"][1]))


TABLE = {answer: expected(row) for answer, row in ROWS.items()}


def told(error: CloudError) -> Told:
    """What an error says."""
    policy = (error.policy.first, error.policy.cap)
    return Told(error.reason, error.message, error.next_step, error.terminal, policy)


def test_the_table_has_every_answer_that_is_known() -> None:
    """No refusal that Azure is known to give is without its row."""
    assert TABLE.keys() == ANSWERS.keys()


@pytest.mark.acceptance("instance-Create-CreateOrUpdate-failure", "cloudprovider-Create-fail")
@pytest.mark.parametrize("body", ["wrapped", "flat"])
@pytest.mark.parametrize("answer", TABLE)
async def test_a_refusal_of_the_put(azure_with: Make, ask: Ask, answer: str, body: Any) -> None:
    """A creation that is refused says why, in both of the formats that ARM and AKS write errors in."""
    azure = await azure_with(Rules(faults=[Fault(verb="put", answer=answer, times=0, body=body)]))
    provider = azure.provider()

    with pytest.raises(CloudError) as caught:
        await provider.create(ask(provider))

    assert told(caught.value) == expected(ROWS[answer] | ROWS[answer].get("put", {}))
    assert caught.value.code == ANSWERS[answer].code
    assert azure.arm.pools.pools == {}


@pytest.mark.acceptance("instance-Create-poller-error")
@pytest.mark.parametrize("answer", TABLE)
async def test_a_failure_of_the_operation(azure_with: Make, ask: Ask, answer: str) -> None:
    """A creation that is accepted and fails later says why: through its operation, and through the pool."""
    azure = await azure_with(Rules(faults=[Fault(verb="create-operation", answer=answer)]))
    provider = azure.provider()
    started = await provider.create(ask(provider))
    await azure.arm.finish(started.name)

    by_operation = await provider.resume(started.name, started.operation)
    by_pool = await provider.get(started.name)

    for instance in (by_operation, by_pool):
        assert instance.state is InstanceState.FAILED
        assert instance.failure is not None
        assert told(instance.failure) == TABLE[answer]
    assert by_operation.instance_type == "Standard_NC6s_v3"


@pytest.mark.acceptance("instance-Get-agentPool-Get-failure", "cloudprovider-Get-fail")
@pytest.mark.parametrize("answer", TABLE)
async def test_a_refusal_of_the_get(azure_with: Make, ask: Ask, answer: str) -> None:
    """A look that is refused says why, and is not taken for the absence of the pool."""
    azure = await azure_with(Rules(faults=[Fault(verb="get", answer=answer, times=0)]))
    provider = azure.provider()
    name = (await provider.create(ask(provider))).name

    with pytest.raises(CloudError) as caught:
        await provider.get(name)

    assert told(caught.value) == TABLE[answer]


async def test_a_cancelled_operation_is_no_failure_of_the_machine(azure_with: Make, ask: Ask) -> None:
    """What a later operation cancelled is tried again soon, also where Azure gives no reason."""
    azure = await azure_with(Rules(faults=[Fault(verb="create-operation", outcome="Canceled")]))
    provider = azure.provider()
    started = await provider.create(ask(provider))
    await azure.arm.finish(started.name)

    by_operation = (await provider.resume(started.name, started.operation)).failure
    by_pool = (await provider.get(started.name)).failure

    assert isinstance(by_operation, errors.OperationInProgress)
    assert isinstance(by_pool, errors.OperationInProgress)
    assert by_operation.policy.first == 5


@pytest.mark.parametrize("place", ["put", "get"])
@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (400, errors.CloudError),
        (401, errors.AuthorizationFailed),
        (403, errors.AuthorizationFailed),
        (404, errors.CloudUnavailable),  # a gateway's; "the pool is gone" has a code
        (409, errors.OperationInProgress),
        (412, errors.InstanceExists),
        (429, errors.Throttled),
        (500, errors.CloudUnavailable),
        (502, errors.CloudUnavailable),
        (504, errors.CloudUnavailable),
    ],
)
@pytest.mark.parametrize("body", ["text", "empty"])
async def test_a_refusal_without_a_code_goes_by_its_status(
    azure_with: Make, ask: Ask, place: Any, status: int, expected: type[CloudError], body: Any
) -> None:
    """A gateway's plain text, or nothing at all, still has the type of its status."""
    fault = Fault(verb=place, status=status, message="<html>teapot</html>", body=body, times=0)
    azure = await azure_with(Rules(faults=[fault]))
    provider = azure.provider()

    with pytest.raises(CloudError) as caught:
        if place == "put":
            await provider.create(ask(provider))
        else:
            await provider.get("kabc")

    assert type(caught.value) is expected
    assert caught.value.message
    assert caught.value.next_step


@pytest.mark.parametrize("place", ["put", "get", "list", "delete", "poll"])
async def test_a_throttled_request_says_when_to_come_back(azure_with: Make, ask: Ask, place: Any) -> None:
    """Retry-After reaches the caller from every request, and the SDK does not sit it out in place."""
    azure = await azure_with()
    provider = azure.provider()
    started = await provider.create(ask(provider))
    await azure.arm.finish(started.name)
    azure.arm.rules.faults.append(Fault(verb=place, answer="throttled", retry_after=37, times=0))
    calls = {
        "put": lambda: provider.create(ask(provider, uid="another")),
        "get": lambda: provider.get(started.name),
        "list": provider.list,
        "delete": lambda: provider.delete(started.name),
        "poll": lambda: provider.resume(started.name, started.operation),
    }
    before = asyncio.get_running_loop().time()

    with pytest.raises(errors.Throttled) as caught:
        await calls[place]()

    assert caught.value.retry_delay(1) == 37
    assert asyncio.get_running_loop().time() == pytest.approx(before, abs=0.1)
    assert len(azure.arm.journal.of(place, status=429)) == 1


async def test_the_most_telling_of_nested_reasons_counts(azure_with: Make, ask: Ask) -> None:
    """A deployment's wrapper has no meaning of its own; the reason inside it does."""
    from azure.core.exceptions import HttpResponseError, ODataV4Format

    from provisioner.azure.translate import to_cloud_error

    inner = {"code": "QuotaExceeded", "message": ANSWERS["quota-crp"].message}
    error = HttpResponseError("DeploymentFailed")
    error.error = ODataV4Format({"code": "DeploymentFailed", "message": "At least one", "details": [inner]})
    error.response = type("Reply", (), {"headers": {}, "text": lambda self: ""})()
    error.status_code = 409

    found = to_cloud_error(error)

    assert isinstance(found, errors.QuotaExceeded)
    assert found.quota == Quota("standardNCSv3Family Cores", needed=6, limit=12, used=8, location="eastus")


@pytest.mark.parametrize("place", ["put", "get", "list", "delete", "poll"])
async def test_a_connection_that_always_breaks_is_a_cloud_that_cannot_be_asked(
    azure_with: Make, ask: Ask, place: Any
) -> None:
    """After its retries a call ends in a typed error; a poll falls back to the pool and ends well."""
    azure = await azure_with()
    provider = azure.provider()
    started = await provider.create(ask(provider))
    azure.arm.rules.faults.append(Fault(verb=place, lose="request", times=0))
    if place == "poll":
        assert (await provider.resume(started.name, started.operation)).state is InstanceState.CREATING
        return
    calls = {
        "put": lambda: provider.create(ask(provider, uid="another")),
        "get": lambda: provider.get(started.name),
        "list": provider.list,
        "delete": lambda: provider.delete(started.name),
    }

    with pytest.raises(errors.CloudUnavailable, match="Azure could not be asked"):
        await calls[place]()

    # Four tries of the SDK, each of which the HTTP library sends twice.
    assert azure.arm.journal.counts()[f"{place} 0"] == 8


async def test_a_server_that_cannot_prove_itself_is_told_as_such(azure: Any, tmp_path: Any) -> None:
    """A certificate of an unknown authority is a cloud that cannot be asked, not a traceback."""
    provider = azure.provider(ca_file="")

    with pytest.raises(errors.CloudUnavailable) as caught:
        await provider.get("kabc")

    assert "certificate" in caught.value.message.lower()


@pytest.mark.parametrize("place", ["put", "get", "list", "delete", "poll"])
@pytest.mark.parametrize("text", ["", "not json", "[]", "7", '{"status": 7}', '{"properties": 3}', '{"value": 3}'])
async def test_an_answer_of_something_else_is_a_cloud_error_at_most(
    azure_with: Make, ask: Ask, place: Any, text: str
) -> None:
    """A good status with a body that is not ARM's never ends in an exception of the SDK or of Python."""
    azure = await azure_with()
    provider = azure.provider()
    started = await provider.create(ask(provider))
    azure.arm.rules.faults.append(Fault(verb=place, status=200, message=text, body="text", times=0))
    calls = {
        "put": lambda: provider.create(ask(provider, uid="another")),
        "get": lambda: provider.get(started.name),
        "list": provider.list,
        "delete": lambda: provider.delete(started.name),
        "poll": lambda: provider.resume(started.name, started.operation),
    }

    try:
        await calls[place]()
    except CloudError as error:
        assert error.next_step


def test_no_exception_of_the_sdk_crosses_the_wall() -> None:
    """Each exception class that the SDK's libraries define becomes a cloud error with a next step."""
    import azure.core.exceptions
    import azure.core.polling.base_polling
    import azure.identity

    from provisioner.azure.translate import translated

    kinds = [
        kind
        for module in (azure.core.exceptions, azure.core.polling.base_polling, azure.identity)
        for kind in vars(module).values()
        if isinstance(kind, type) and issubclass(kind, Exception)
    ]
    assert len(kinds) > 20
    for kind in (*kinds, TimeoutError, ConnectionResetError, ssl.SSLError, ValueError, KeyError, TypeError):
        with pytest.raises(CloudError) as caught, translated():
            raise kind(["scope"]) if kind is azure.identity.AuthenticationRequiredError else kind("it broke")
        assert caught.value.next_step
