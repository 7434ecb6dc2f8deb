"""The Azure provider's behaviour: whose pools it touches, how it chooses, how it proves who it is."""

from __future__ import annotations

import asyncio
import base64
import json
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from kaito.local.fakearm import Fault, Rules
from provisioner import SPOT, InstanceRequest, InstanceState, errors
from provisioner.azure import AzureProvider, AzureSettings, Credential
from provisioner.errors import CloudError, NameTaken, NotFound, OperationInProgress, QuotaExceeded

pytestmark = pytest.mark.looptime

Ask = Callable[..., InstanceRequest]
Make = Callable[..., Awaitable[Any]]


async def running(azure: Any, provider: AzureProvider, request: InstanceRequest) -> str:
    """Create a pool to its end; its name."""
    name = (await provider.create(request)).name
    await azure.arm.finish(name)
    await provider.get(name)
    azure.arm.journal.clear()
    return name


# ---------------------------------------------------------------------- get, list, create


@pytest.mark.acceptance("instance-Get-success", "cloudprovider-Get-ok")
async def test_get_tells_what_there_is(azure: Any, ask: Ask) -> None:
    """Size, state and owner come from the pool itself."""
    provider = azure.provider()
    name = await running(azure, provider, ask(provider))

    found = await azure.provider().get(name)

    assert (found.name, found.instance_type, found.state) == (name, "Standard_NC6s_v3", InstanceState.RUNNING)
    assert found.owner == ask(provider).owner
    assert found.created_at is not None
    assert not found.stopped


@pytest.mark.acceptance("cloudprovider-Get-doesnt-exist")
async def test_get_of_nothing_is_not_found(azure: Any) -> None:
    """AKS's flat 404 is the absence of the pool."""
    with pytest.raises(NotFound, match="Agent Pool not found"):
        await azure.provider().get("kabc")


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ("Creating", InstanceState.CREATING),
        ("Succeeded", InstanceState.RUNNING),
        ("Updating", InstanceState.RUNNING),
        ("UpgradingNodeImageVersion", InstanceState.RUNNING),
        ("Deleting", InstanceState.DELETING),
        ("deleting", InstanceState.DELETING),
        ("Failed", InstanceState.FAILED),
        ("Canceled", InstanceState.FAILED),
    ],
)
async def test_provisioning_states(azure: Any, ask: Ask, state: str, expected: InstanceState) -> None:
    """A pool that is being upgraded has its node; one that failed or was cancelled says so."""
    provider = azure.provider()
    name = await running(azure, provider, ask(provider))
    azure.arm.pools.pools[name]["properties"]["provisioningState"] = state

    found = await provider.get(name)

    assert found.state is expected
    assert (found.failure is not None) == (expected is InstanceState.FAILED)


async def test_a_stopped_pool_is_told(azure: Any, ask: Ask) -> None:
    """Who misses the node of a stopped cluster can see why."""
    provider = azure.provider()
    name = await running(azure, provider, ask(provider))
    azure.arm.pools.pools[name]["properties"]["powerState"] = {"code": "Stopped"}

    assert (await provider.get(name)).stopped


@pytest.mark.acceptance("instance-FromAPList-no-agent-pools-found", "cloudprovider-List-ok")
async def test_list_of_nothing_is_empty(azure: Any) -> None:
    """A cluster without pools of ours is no error."""
    assert await azure.provider().list() == []


@pytest.mark.acceptance("instance-List-pager-fails", "cloudprovider-List-fail")
async def test_a_page_that_fails_fails_the_list(azure_with: Make, ask: Ask) -> None:
    """Half a list is never taken for the whole: whoever looks for orphans would see some that are none."""
    azure = await azure_with(Rules(create_seconds=0, page_size=1))
    provider = azure.provider()
    for number in range(3):
        await provider.create(ask(provider, uid=f"uid-{number}"))
        await asyncio.sleep(30)
        await provider.list()
    azure.arm.journal.clear()
    # The first page is served, all others are refused.
    azure.arm.rules.faults += [Fault(verb="list", delay=0.1), Fault(verb="list", answer="forbidden", times=0)]

    with pytest.raises(errors.AuthorizationFailed):
        await provider.list()


@pytest.mark.acceptance("instance-Create-success-immediate", "cloudprovider-Create-ok")
async def test_create_returns_at_once(azure: Any, ask: Ask) -> None:
    """The operation is started and told with its token; nothing is waited for."""
    provider = azure.provider()
    before = asyncio.get_running_loop().time()

    started = await provider.create(ask(provider))

    assert started.state is InstanceState.CREATING
    assert started.operation
    assert asyncio.get_running_loop().time() == before


@pytest.mark.acceptance("instance-Create-success-after-waiting-for-node")
async def test_the_node_is_there_before_the_pool_runs(azure_with: Make, ask: Ask) -> None:
    """When the operation has ended the node has registered, and it is recognised by what AKS writes on it."""
    nodes: list[tuple[str, Any]] = []

    async def on_node(event: str, node: Any) -> None:
        nodes.append((event, node))

    azure = await azure_with(Rules(create_seconds=180, delete_seconds=60), on_node=on_node)
    provider = azure.provider()
    started = await provider.create(ask(provider))
    assert (await provider.resume(started.name, started.operation)).state is InstanceState.CREATING
    assert nodes == []

    await asyncio.sleep(181)
    instance = await provider.resume(started.name, started.operation)
    ((event, node),) = nodes

    assert (event, instance.state) == ("added", InstanceState.RUNNING)
    assert provider.instance_of(node) == started.name
    assert provider.instance_name("ws0f3a9c21b", "other", node["spec"]["providerID"]) == started.name
    assert node["metadata"]["labels"]["node.kubernetes.io/instance-type"] == "Standard_NC6s_v3"
    assert node["spec"]["taints"] == [{"key": "sku", "value": "gpu", "effect": "NoSchedule"}]
    await provider.delete(started.name)
    await asyncio.sleep(61)
    assert [event for event, _ in nodes] == ["added", "deleted"]


@pytest.mark.acceptance("instance-Create-invalid-name")
@pytest.mark.parametrize("name", ["", "1abc", "Abc", "a-b", "abcdefghijklm"])
async def test_an_invalid_name_is_refused_without_a_call(azure: Any, ask: Ask, name: str) -> None:
    """AKS would refuse it; it is told before."""
    provider = azure.provider()
    with pytest.raises(errors.InvalidRequest, match="is invalid"):
        await provider.create(ask(provider, name=name))
    assert azure.transcript == []


async def test_a_request_without_a_size_is_refused(azure: Any, ask: Ask) -> None:
    """Nothing can be asked of AKS then."""
    provider = azure.provider()
    with pytest.raises(errors.InvalidRequest, match="no instance type"):
        await provider.create(ask(provider, instance_types=()))


# ---------------------------------------------------------------------- delete


@pytest.mark.acceptance("instance-Delete-success", "cloudprovider-Delete-ok")
async def test_delete_starts_the_deletion(azure: Any, ask: Ask) -> None:
    """A pool that is known to be ours is deleted with one call, which returns at once."""
    provider = azure.provider()
    name = await running(azure, provider, ask(provider))

    assert await provider.delete(name)

    assert azure.transcript == [f"delete {name} 202"]
    assert (await provider.get(name)).state is InstanceState.DELETING


@pytest.mark.acceptance("instance-Delete-already-deleting-success")
async def test_delete_of_one_that_goes_already_is_no_call(azure: Any, ask: Ask) -> None:
    """A restarted process finds the deletion under way and leaves it alone."""
    provider = azure.provider()
    name = await running(azure, provider, ask(provider))
    await provider.delete(name)
    azure.arm.journal.clear()

    await azure.provider().delete(name)

    assert azure.transcript == [f"get {name} 200"]


@pytest.mark.acceptance(
    "instance-Delete-returns-NotFound-success",
    "instance-Delete-get-returns-NotFound-success",
    "instance-Delete-poller-returns-404-success",
)
@pytest.mark.parametrize("known", [True, False])
async def test_delete_of_nothing_is_not_found(azure: Any, ask: Ask, known: bool) -> None:
    """The state that a deletion wants: told as NotFound by the look, by the DELETE and by the operation."""
    provider = azure.provider()
    name = await running(azure, provider, ask(provider))
    operation = await provider.delete(name)
    await azure.arm.finish(name)
    azure.arm.rules.faults.append(Fault(verb="poll", answer="no-pool"))
    later = provider if known else azure.provider()

    with pytest.raises(NotFound):
        await later.delete(name)
    with pytest.raises(NotFound):
        await later.resume(name, operation)


@pytest.mark.acceptance("instance-Delete-returns-failure", "cloudprovider-Delete-fail")
async def test_a_deletion_that_is_refused_says_why(azure: Any, ask: Ask) -> None:
    """The lock, or whatever it is, is in the error."""
    provider = azure.provider()
    name = await running(azure, provider, ask(provider))
    azure.arm.rules.faults.append(Fault(verb="delete", answer="locked"))

    with pytest.raises(errors.NotAllowed, match="locked"):
        await provider.delete(name)


@pytest.mark.acceptance("instance-Delete-poller-returns-error")
async def test_a_deletion_that_fails_later_says_why(azure: Any, ask: Ask) -> None:
    """The instance is there and has failed, with the operation's own reason."""
    provider = azure.provider()
    name = await running(azure, provider, ask(provider))
    azure.arm.rules.faults.append(Fault(verb="delete-operation", answer="policy"))
    operation = await provider.delete(name)
    await azure.arm.finish(name)

    failed = await provider.resume(name, operation)

    assert failed.state is InstanceState.FAILED
    assert isinstance(failed.failure, errors.NotAllowed)


# ---------------------------------------------------------------------- what is not ours


async def test_a_foreign_pool_is_neither_used_nor_touched(azure: Any, ask: Ask) -> None:
    """A pool of the same name without our marks survives a create and a delete, and no list shows it."""
    provider = azure.provider()
    name = await running(azure, provider, ask(provider))
    azure.arm.pools.pools[name]["properties"] |= {"tags": None, "nodeLabels": {"mode": "system"}}
    before = json.dumps(azure.arm.pools.pools, sort_keys=True)
    later = azure.provider()

    with pytest.raises(errors.InstanceExists):
        await later.create(ask(later))
    with pytest.raises(NameTaken, match=name):
        await later.get(name)
    with pytest.raises(NameTaken):
        await later.delete(name)

    assert await later.list() == []
    assert json.dumps(azure.arm.pools.pools, sort_keys=True) == before
    assert azure.arm.journal.of("delete") == []


async def test_a_copied_tag_makes_no_pool_ours(azure: Any, ask: Ask) -> None:
    """The uid in the tag must be the one that the name is made of."""
    provider = azure.provider()
    name = await running(azure, provider, ask(provider))
    azure.arm.pools.pools[name]["properties"]["tags"]["kaito-owner-uid"] = "another"

    with pytest.raises(NameTaken):
        await azure.provider().get(name)


async def test_pools_of_the_upstream_provisioner_are_served(azure: Any, ask: Ask) -> None:
    """They have KAITO's and Karpenter's labels and no tags: they are listed with their owner, and can go."""
    provider = azure.provider()
    name = (await provider.create(ask(provider, name="ws0f3a9c21b"))).name
    azure.arm.pools.pools[name]["properties"]["tags"] = None
    await azure.arm.finish(name)
    later = azure.provider()

    (found,) = await later.list()
    assert found.owner is not None
    assert (found.owner.name, found.owner.uid, found.owner.kind) == (name, "", "Machine")
    assert await later.delete(name)


# ---------------------------------------------------------------------- tokens


@pytest.mark.parametrize("token", ["", "nonsense", "1.create.kother.S.on-demand.x", "2.create.NAME.S.on-demand.x"])
async def test_a_token_of_no_use_means_a_look_at_the_pool(azure: Any, ask: Ask, token: str) -> None:
    """Empty, broken, of another pool or of another release: the pool itself tells how it stands."""
    provider = azure.provider()
    name = await running(azure, provider, ask(provider))

    found = await provider.resume(name, token.replace("NAME", name))

    assert found.state is InstanceState.RUNNING
    assert azure.transcript == [f"get {name} 200"]


async def test_a_token_cannot_send_our_access_token_elsewhere(azure: Any, azure_with: Make, ask: Ask) -> None:
    """A token that somebody edited to lead to another host is not followed; the pool is looked up instead."""
    provider = azure.provider()
    started = await provider.create(ask(provider))
    thief = await azure_with()
    head, _, sdk_token = started.operation.rpartition(".")
    forged = base64.b64decode(sdk_token).decode().replace(azure.arm.url, thief.arm.url)
    assert thief.arm.url in forged
    azure.arm.journal.clear()

    found = await provider.resume(started.name, f"{head}.{base64.b64encode(forged.encode()).decode()}")

    assert found.state is InstanceState.CREATING
    assert azure.transcript == [f"get {started.name} 200"]
    assert thief.transcript == []


async def test_an_operation_that_arm_has_forgotten_is_no_error(azure: Any, ask: Ask) -> None:
    """ARM drops operations after a while; the pool outlives them."""
    provider = azure.provider()
    started = await provider.create(ask(provider))
    await azure.arm.finish(started.name)
    azure.arm.pools.operations.clear()

    assert (await provider.resume(started.name, started.operation)).state is InstanceState.RUNNING


# ---------------------------------------------------------------------- several candidates


async def test_the_next_size_is_tried_where_one_is_out_of_stock(azure_with: Make, ask: Ask) -> None:
    """Capacity, quota and availability are reasons to go on to the next size, in the author's order."""
    faults = [
        Fault(verb="put", sku="A", answer="allocation", times=0),
        Fault(verb="put", sku="B", answer="quota", times=0),
        Fault(verb="put", sku="C", answer="not-in-subscription", times=0),
        Fault(verb="put", sku="D", answer="sku", times=0),
    ]
    azure = await azure_with(Rules(faults=faults))
    provider = azure.provider()
    types = ("A", "B", "C", "D", "E", "F")

    started = await provider.create(ask(provider, instance_types=types))

    assert started.instance_type == "E"
    sizes = [exchange.body["properties"]["vmSize"] for exchange in azure.arm.journal.of("put")]
    assert sizes == ["A", "B", "C", "D", "E"]


async def test_what_was_refused_is_tried_last_for_a_while(azure_with: Make, ask: Ask) -> None:
    """The next Machine starts with what works; ten minutes later the first choice has its turn again."""
    azure = await azure_with(Rules(create_seconds=0, faults=[Fault(verb="put", sku="A", answer="allocation")]))
    provider = azure.provider()
    used = []
    for number, pause in enumerate((0, 0, 601)):
        await asyncio.sleep(pause)
        started = await provider.create(ask(provider, uid=f"uid-{number}", instance_types=("A", "B")))
        used.append(started.instance_type)
        await asyncio.sleep(1)
        await provider.get(started.name)

    assert used == ["B", "B", "A"]


@pytest.mark.parametrize("by_token", [True, False])
async def test_a_size_that_fails_later_is_not_the_next_attempts(
    azure_with: Make, ask: Ask, by_token: bool
) -> None:
    """An allocation that fails within the operation counts like one that is refused at once."""
    azure = await azure_with(Rules(faults=[Fault(verb="create-operation", answer="allocation-zonal")]))
    provider = azure.provider()
    request = ask(provider, instance_types=("A",), capacity_types=(SPOT, "on-demand"))
    started = await provider.create(request)
    await azure.arm.finish(started.name)

    if by_token:
        failed = await provider.resume(started.name, started.operation)
    else:
        failed = await provider.get(started.name)
    assert isinstance(failed.failure, errors.CapacityUnavailable)
    await provider.delete(started.name)
    await azure.arm.finish(started.name)
    with pytest.raises(NotFound):
        await provider.get(started.name)
    await provider.create(request)

    first, second = azure.arm.journal.of("put", status=201)
    assert first.body["properties"]["scaleSetPriority"] == "Spot"
    assert "scaleSetPriority" not in second.body["properties"]


async def test_all_sizes_refused_is_the_reason_that_may_change(azure_with: Make, ask: Ask) -> None:
    """With one size that will never do and one without quota, the quota is what a person can see to."""
    faults = [
        Fault(verb="put", sku="A", answer="sku", times=0),
        Fault(verb="put", sku="B", answer="quota", times=0),
    ]
    azure = await azure_with(Rules(faults=faults))
    provider = azure.provider()

    with pytest.raises(QuotaExceeded):
        await provider.create(ask(provider, instance_types=("A", "B")))


async def test_an_error_that_is_not_the_sizes_ends_the_search(azure_with: Make, ask: Ask) -> None:
    """A missing permission is the same for every size."""
    azure = await azure_with(Rules(faults=[Fault(verb="put", answer="forbidden", times=0)]))
    provider = azure.provider()

    with pytest.raises(errors.AuthorizationFailed):
        await provider.create(ask(provider, instance_types=("A", "B")))
    assert len(azure.arm.journal.of("put")) == 1


# ---------------------------------------------------------------------- turns


async def test_a_machine_in_the_queue_costs_no_call(azure_with: Make, ask: Ask) -> None:
    """While it waits its pool is known not to exist, and when it is not wanted any more it just leaves."""
    azure = await azure_with(Rules(max_operations=1))
    provider = azure.provider()
    await provider.create(ask(provider, uid="first"))
    second, third = ask(provider, uid="second"), ask(provider, uid="third")
    for request in (second, third):
        with pytest.raises(OperationInProgress):
            await provider.create(request)
    azure.arm.journal.clear()

    with pytest.raises(OperationInProgress) as caught:
        await provider.create(third)
    with pytest.raises(NotFound):
        await provider.get(third.name)
    with pytest.raises(NotFound):
        await provider.delete(second.name)

    assert caught.value.message == "AKS works on 1 other agent pool of this cluster, 1 more wait before this one"
    assert caught.value.retry_delay(7) == 10
    assert azure.transcript == []


async def test_a_pool_that_may_exist_is_not_taken_for_absent(azure_with: Make, ask: Ask) -> None:
    """The PUT arrived and no reply came; while the Machine waits to try again, its pool is still found."""
    azure = await azure_with(Rules(faults=[Fault(verb="put", answer="unavailable", times=0)]))
    provider = azure.provider(max_operations=1)
    request = ask(provider)
    with pytest.raises(errors.CloudUnavailable):
        await provider.create(request)
    azure.arm.rules.faults.clear()
    other = azure.provider()
    await other.create(request)
    await azure.arm.finish(request.name)
    await provider.create(ask(provider, uid="busy"))
    with pytest.raises(OperationInProgress):
        await provider.create(request)

    assert (await provider.get(request.name)).state is InstanceState.RUNNING
    with pytest.raises(OperationInProgress):
        await provider.delete(request.name)


async def test_deletions_go_before_creations(azure_with: Make, ask: Ask) -> None:
    """What costs money and is not wanted goes first."""
    azure = await azure_with(Rules(max_operations=1))
    provider = azure.provider()
    old = await running(azure, provider, ask(provider, uid="old"))
    busy = (await provider.create(ask(provider, uid="busy"))).name
    for uid in ("a", "b"):
        with pytest.raises(OperationInProgress):
            await provider.create(ask(provider, uid=uid))
    with pytest.raises(OperationInProgress):
        await provider.delete(old)
    await azure.arm.finish(busy)
    await provider.get(busy)

    with pytest.raises(OperationInProgress):
        await provider.create(ask(provider, uid="a"))
    assert await provider.delete(old)


async def test_someone_elses_operation_is_waited_out(azure_with: Make, ask: Ask) -> None:
    """An upgrade by hand keeps the cluster busy: one try now and then, ever more rarely, until it is over."""
    azure = await azure_with(Rules(faults=[Fault(verb="put", answer="another-operation", times=4)]))
    provider = azure.provider()
    waits = []
    for _ in range(4):
        with pytest.raises(OperationInProgress) as caught:
            await provider.create(ask(provider))
        waits.append(caught.value.retry_delay(1))
        with pytest.raises(OperationInProgress):
            await provider.create(ask(provider, uid="other"))
        await asyncio.sleep(waits[-1])

    assert (await provider.create(ask(provider))).state is InstanceState.CREATING
    assert waits == [5, 10, 20, 40]
    assert len(azure.arm.journal.of("put", status=409)) == 4


# ---------------------------------------------------------------------- credentials


async def test_workload_identity(azure: Any, ask: Ask, tmp_path: Path) -> None:
    """The federated token is exchanged once for an access token, which then serves all calls."""
    token = tmp_path / "token"
    token.write_text("federated")
    provider = federated(azure, token)

    for _ in range(3):
        assert await provider.list() == []

    (asked,) = azure.arm.identity.asked
    assert asked["tenant"] == "tenant-1"
    assert asked["client_assertion"] == "federated"
    assert asked["scope"] == "https://management.azure.com/.default"
    assert azure.transcript == ["list 200"] * 3


@pytest.mark.acceptance("auth-config-federated-credential-missing")
async def test_a_missing_federated_credential_says_so(azure: Any, tmp_path: Path) -> None:
    """The identity service's words are told, and what to check; nothing panics."""
    token = tmp_path / "token"
    token.write_text("federated")
    azure.arm.identity.refuse = "AADSTS70021: No matching federated identity record found for presented assertion."
    provider = federated(azure, token)

    with pytest.raises(errors.AuthorizationFailed, match="AADSTS70021") as caught:
        await provider.list()

    assert "federated credential" in caught.value.next_step
    assert azure.transcript == []


async def test_a_missing_token_file_is_an_authorization_failure(azure: Any, tmp_path: Path) -> None:
    """The webhook that mounts it is not installed, for instance."""
    provider = federated(azure, tmp_path / "absent")

    with pytest.raises(CloudError) as caught:
        await provider.list()

    assert caught.value.reason == "AuthorizationFailed"


async def test_a_token_that_arm_does_not_accept_is_an_authorization_failure(azure: Any) -> None:
    """Revoked or of another tenant: told as what it is."""
    azure.arm.identity.tokens.clear()

    with pytest.raises(errors.AuthorizationFailed, match="access token is invalid"):
        await azure.provider().list()


@pytest.mark.parametrize("kind", [Credential.MANAGED, Credential.DEFAULT])
async def test_managed_identity(azure: Any, monkeypatch: pytest.MonkeyPatch, kind: Credential) -> None:
    """The machine's metadata service gives the token, also when the identity library looks for itself."""
    monkeypatch.setenv("AZURE_POD_IDENTITY_AUTHORITY_HOST", azure.arm.metadata_url)
    monkeypatch.setenv("AZURE_TOKEN_CREDENTIALS", "managedidentitycredential")
    provider = azure.connected(credential=kind, client_id="client-1")

    assert await provider.list() == []

    assert azure.arm.identity.asked[-1]["client_id"] == "client-1"
    assert azure.arm.identity.asked[-1]["resource"] == "https://management.azure.com"


def federated(azure: Any, token: Path) -> AzureProvider:
    """A provider as in a pod with workload identity."""
    made: AzureProvider = azure.connected(
        credential=Credential.WORKLOAD, tenant_id="tenant-1", client_id="client-1", token_file=str(token)
    )
    return made


# ---------------------------------------------------------------------- what it costs


def test_the_sdk_is_imported_by_the_first_call_only() -> None:
    """Whoever does not use the Azure provider does not pay for the SDK, nor does one that was only made.

    Takes the start of a Python process.
    """
    program = (
        "import sys, provisioner.azure as a\n"
        "a.AzureProvider(a.AzureSettings('s', 'g', 'c'))\n"
        "print([name for name in sys.modules if name.split('.')[0] in ('azure', 'msal', 'aiohttp')])"
    )
    done = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_settings_can_be_made_by_hand() -> None:
    """Three names are enough; all else has a default."""
    assert "cluster" in repr(AzureProvider(AzureSettings("sub", "rg", "cluster")))
