"""What is asked of the subscription beside agent pools: quota, sizes, rights and the clock, on the wire."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from kaito.local.fakearm import Fault, Rules
from kaito.local.fakearm.account import family
from kaito.local.fakearm.faults import Usage
from kaito.plan.run import Request
from kaito.plan.run import run as plan
from provisioner import errors
from provisioner.azure import AzureAccount, QuotaBook
from provisioner.azure.rights import missing
from provisioner.errors import Quota

Make = Callable[..., Awaitable[Any]]
SUBSCRIPTION = "/subscriptions/00000000-0000-0000-0000-000000000001"
CLUSTER = f"{SUBSCRIPTION}/resourceGroups/kaito-rg/providers/Microsoft.ContainerService/managedClusters/kaito"


class StaticCredential:
    """A credential whose token never ends."""

    async def get_token(self, *scopes: str, **_: Any) -> Any:
        from azure.core.credentials import AccessToken

        return AccessToken("static", 2_000_000_000)

    async def close(self) -> None:
        """Nothing to release."""


def account(azure: Any) -> AzureAccount:
    return AzureAccount(azure.settings, credential=StaticCredential)


def wire(azure: Any) -> list[str]:
    """Every request as it went over the wire, with its query and what it was answered."""
    lines = []
    for item in azure.arm.journal.exchanges:
        query = "&".join(f"{key}={value}" for key, value in item.query.items())
        lines.append(f"{item.method} {item.path}?{query} {item.status}")
    return lines


async def test_the_wire_of_a_question_about_quota(azure: Any) -> None:
    """Three plain reads: the cluster for its region, the usages there, the sizes there."""
    async with account(azure) as opened:
        await opened.quota()

    assert wire(azure) == [
        f"GET {CLUSTER}?api-version=2024-01-01 200",
        f"GET {SUBSCRIPTION}/providers/Microsoft.Compute/locations/eastus/usages?api-version=2024-07-01 200",
        f"GET {SUBSCRIPTION}/providers/Microsoft.Compute/skus"
        "?api-version=2021-07-01&$filter=location eq 'eastus' 200",
    ]
    assert {item.headers["authorization"] for item in azure.arm.journal.exchanges} == {"Bearer"}


async def test_the_wire_of_a_question_about_rights(azure: Any) -> None:
    """One plain read at the cluster's own scope, where the role is."""
    async with account(azure) as opened:
        assert await opened.missing_rights() == []

    assert wire(azure) == [
        f"GET {CLUSTER}/providers/Microsoft.Authorization/permissions?api-version=2022-04-01 200"
    ]


async def test_the_tightest_quota_decides(azure_with: Make) -> None:
    """Nodes that are left are those of the family or of the region, whichever is less; pages are followed."""
    rules = Rules(
        page_size=7,
        usages={
            family("Standard_NC24ads_A100_v4"): Usage(used=24, limit=96),
            family("Standard_NC6s_v3"): Usage(used=0, limit=600),
            "cores": Usage(used=50, limit=100),
            "lowPriorityCores": Usage(limit=48),
        },
        withheld=["Standard_NC40ads_H100_v5"],
    )
    azure = await azure_with(rules)
    async with account(azure) as opened:
        book = await opened.quota()

    assert book.left("standard_nc24ads_a100_v4") == 2
    assert book.room("Standard_NC24ads_A100_v4").tightest == Quota(
        "Total Regional vCPUs", 24, 100, 50, 50, "eastus"
    )
    assert book.left("Standard_NC6s_v3") == 8
    assert book.room("Standard_NC24ads_A100_v4", spot=True).nodes == 2
    assert book.room("Standard_NC40ads_H100_v5").withheld == (
        "Standard_NC40ads_H100_v5 is withheld from this subscription in eastus (NotAvailableForSubscription)"
    )
    assert book.room("Standard_XX1").withheld == "Standard_XX1 is not offered in eastus"
    assert len(azure.arm.journal.of("skus")) > 1


def test_what_azure_does_not_say_is_not_guessed() -> None:
    """A size without a quota, and a book without sizes, have an unknown number of nodes left."""
    sku = {"resourceType": "virtualMachines", "name": "Standard_NC6s_v3", "family": "f", "capabilities": None}
    assert QuotaBook.read("eastus", [sku, {"name": "disk"}], [{"name": {}}]).left("Standard_NC6s_v3") is None
    assert QuotaBook.read("eastus", [], []).left("Standard_NC6s_v3") is None


async def test_rights_that_are_missing_are_named(azure_with: Make) -> None:
    """A role that only reads lacks writing and deleting."""
    azure = await azure_with(Rules(allowed=["*/read"]))
    async with account(azure) as opened:
        lacking = await opened.missing_rights()

    assert lacking == [
        "Microsoft.ContainerService/managedClusters/agentPools/write",
        "Microsoft.ContainerService/managedClusters/agentPools/delete",
    ]


@pytest.mark.parametrize(
    ("entries", "lacking"),
    [
        ([{"actions": ["*"]}], []),
        ([{"actions": ["microsoft.containerservice/*"]}], []),
        ([{"actions": ["*"], "notActions": ["Microsoft.ContainerService/*/delete"]}], ["delete"]),
        ([{"actions": ["*"], "notActions": ["*"]}, {"actions": ["*"]}], []),
        ([], ["read", "read", "write", "delete"]),
    ],
)
def test_permissions_are_matched_as_azure_does(entries: list[Any], lacking: list[str]) -> None:
    """An entry allows its actions less its notActions, and one entry is enough."""
    assert [action.rpartition("/")[2] for action in missing(entries)] == lacking


async def test_the_clock_of_the_resource_manager(azure: Any) -> None:
    """The reply's own date, to compare with ours."""
    async with account(azure) as opened:
        there = await opened.clock()

    assert there is not None
    assert abs((there - datetime.now(UTC)).total_seconds()) < 5


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        ("forbidden", errors.AuthorizationFailed),
        ("throttled", errors.Throttled),
        ("no-cluster", errors.Misconfigured),
        ("unavailable", errors.CloudUnavailable),
    ],
)
@pytest.mark.looptime
async def test_a_read_that_is_refused_is_typed(
    azure_with: Make, answer: str, kind: type[errors.CloudError]
) -> None:
    """The same table of refusals holds for plain requests."""
    azure = await azure_with(Rules(faults=[Fault(verb="cluster", answer=answer, times=0)]))

    async with account(azure) as opened:
        with pytest.raises(errors.CloudError) as caught:
            await opened.location()

    assert type(caught.value) is kind
    assert caught.value.next_step


@pytest.mark.parametrize(("used", "spot", "code"), [(90, False, 1), (0, False, 0), (90, True, 0)])
async def test_plan_asks_for_the_quota(
    azure_with: Make,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    used: int,
    spot: bool,
    code: int,
) -> None:
    """`kaito plan --quota azure` judges with what Azure says is left, read once."""
    sku = "Standard_NC24ads_A100_v4"
    azure = await azure_with(Rules(usages={family(sku): Usage(used=used, limit=96)}))
    manifest = tmp_path / "ws.yaml"
    manifest.write_text(
        "{apiVersion: kaito.sh/v1alpha1, kind: Workspace, metadata: {name: w}, "
        f"resource: {{instanceType: {sku}, labelSelector: {{matchLabels: {{apps: w}}}}}}, "
        "inference: {preset: {name: phi-2}}}"
    )
    for name, value in azure.environment(tmp_path).items():
        monkeypatch.setenv(name, value)

    found = await asyncio.to_thread(plan, Request([str(manifest)], quota="azure", spot=spot))

    assert found == code
    assert ("the quota leaves 0 nodes" in capsys.readouterr().out) == bool(code)
    assert azure.transcript == ["cluster 200", "usages 200", "skus 200"]
