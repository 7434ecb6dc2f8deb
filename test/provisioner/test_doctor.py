"""`kaito doctor`: what each check says when something is wrong, and that it always comes to an end."""

from __future__ import annotations

import asyncio
import copy
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import yaml

from api.crds import crds
from kaito.doctor.azure import AzureChecks
from kaito.doctor.cluster import ClusterChecks, skew
from kaito.doctor.model import Check, Finding, Verdict, exit_code, good, run_checks
from kaito.doctor.needs import needs
from kaito.doctor.run import Request, run
from kaito.doctor.schemas import lacking
from kaito.local.cluster import put
from kaito.local.fakearm import Fault, Rules
from kaito.local.fakearm.account import family
from kaito.local.fakearm.faults import Usage
from manager.client import Client
from manager.errors import AlreadyExists, NotFound
from manager.resources import CRDS, NAMESPACES, NODES
from provisioner.azure import AzureAccount

Make = Callable[..., Awaitable[Any]]
NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)
RBAC = Path(__file__).parents[2] / "config" / "rbac"
A100 = "Standard_NC24ads_A100_v4"


class StaticCredential:
    """A credential whose token never ends."""

    async def get_token(self, *scopes: str, **_: Any) -> Any:
        from azure.core.credentials import AccessToken

        return AccessToken("static", 2_000_000_000)

    async def close(self) -> None:
        """Nothing to release."""


# ------------------------------------------------------------------ running checks


@pytest.mark.looptime
async def test_a_check_that_hangs_or_breaks_has_failed() -> None:
    """The others are not held up; what is told are the limit and the error, never a traceback."""
    told: list[tuple[int, list[str]]] = []

    async def hangs() -> Finding:
        await asyncio.Event().wait()
        raise AssertionError

    async def breaks() -> Finding:
        raise ConnectionResetError("the line\n is dead")

    async def works() -> Finding:
        return good("fine")

    checks = [Check("a", hangs), Check("b", breaks), Check("c", works)]
    results = await run_checks(checks, seconds=7, on_done=lambda done, left: told.append((done, list(left))))

    a, b, c = (result.finding for result in results)
    assert (a.verdict, a.message) == (Verdict.FAIL, "no answer within 7 s")
    assert (b.verdict, b.message) == (Verdict.FAIL, "it could not be found out: the line is dead")
    assert (c.verdict, exit_code(results)) == (Verdict.PASS, 1)
    assert told[-1] == (3, [])
    assert asyncio.get_running_loop().time() == pytest.approx(7, abs=0.1)


@pytest.mark.parametrize(
    ("off", "verdict", "words"),
    [
        (0, Verdict.PASS, "agree within 5 s"),
        (-4, Verdict.PASS, "agree within 5 s"),
        (20, Verdict.WARN, "it is 20 s behind ours"),
        (-300, Verdict.FAIL, "it is 300 s ahead of ours"),
    ],
)
def test_clocks(off: int, verdict: Verdict, words: str) -> None:
    """A few seconds are the network's; a minute breaks tokens and leases."""
    finding = skew(format_datetime(NOW - timedelta(seconds=off), usegmt=True), NOW, "it")
    assert finding.verdict is verdict
    assert words in finding.message


def test_a_server_without_a_clock_is_a_doubt() -> None:
    """No date is no proof of anything."""
    assert skew("", NOW, "it").verdict is Verdict.WARN


# ------------------------------------------------------------------ CRDs and rights


def test_an_older_crd_is_found_out() -> None:
    """A missing version, column, subresource or field is named; additions of the server are not."""
    wanted = crds()[0]
    same = copy.deepcopy(wanted)
    same["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["more"] = {"type": "string"}
    old = copy.deepcopy(wanted)
    first, _ = old["spec"]["versions"]
    del old["spec"]["versions"][1]
    del first["schema"]["openAPIV3Schema"]["properties"]["resource"]["properties"]["instanceType"]
    first["additionalPrinterColumns"].pop(0)
    del first["subresources"]["status"]

    assert lacking(wanted, same) == []
    found = lacking(wanted, old)
    assert "version v1beta1" in found
    assert any("instanceType" in item for item in found)
    assert any("column" in item for item in found)
    assert any("subresource status" in item for item in found)


def test_what_is_asked_for_is_what_the_manifests_grant() -> None:
    """The generated list has every verb of the shipped roles; `make generate` renews it."""
    asked = {(need.account, need.verb, need.resource, need.subresource, need.namespace) for need in needs()}
    assert ("kaito-workspace", "patch", "workspaces", "status", "") in asked
    assert ("kaito-machine", "update", "leases", "", "kaito-system") in asked
    granted = set()
    for path in RBAC.glob("*.yaml"):
        for item in yaml.safe_load_all(path.read_text()):
            for rule in (item or {}).get("rules") or []:
                named = rule.get("resourceNames") or [""]
                parts = product(rule["apiGroups"], rule["resources"], rule["verbs"], named)
                granted |= {(item["metadata"]["name"], item["kind"], *part) for part in parts}
    shared = [item for item in granted if item[0] == "kaito-leader-election"]  # both accounts have it
    both = {item for item in asked if item[3] == "" and item[4] == "kaito-system" and item[2] == "leases"}
    assert len(both) == 2 * len(shared)
    assert {(need.verb, need.resource) for need in needs()} == {(it[4], it[3].partition("/")[0]) for it in granted}


@asynccontextmanager
async def checks_of(server: Any) -> AsyncIterator[tuple[Client, ClusterChecks]]:
    async with Client(server.config) as client:
        yield client, ClusterChecks(client, server.config, lambda: datetime.now(UTC))


async def test_rights_are_asked_for_the_service_accounts(api_server: Any) -> None:
    """Without an account, the asker's own rights count; an account without a role may do nothing."""
    async with checks_of(api_server) as (client, checks):
        await _forget_accounts(client)
        mine = await checks.rights("kaito-machine")
        try:
            await client.create(NAMESPACES, {"metadata": {"name": "kaito-system"}})
        except AlreadyExists:
            pass  # another test of this session needs it too
        account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "kaito-machine"}}
        await client.request("POST", "/api/v1/namespaces/kaito-system/serviceaccounts", body=account)
        its = await checks.rights("kaito-machine")
        await _forget_accounts(client)

    assert mine.verdict is Verdict.PASS
    assert "there is no service account kaito-machine" in mine.message
    if api_server.kind == "real":
        assert its.verdict is Verdict.FAIL
        assert its.message.startswith("kaito-machine may not ")
        assert its.fix == "kubectl apply -k config/rbac"
    else:  # where everybody may do everything, so may it
        assert its.verdict is Verdict.PASS


async def _forget_accounts(client: Client) -> None:
    for name in ("clusterrolebindings/kaito-machine", "clusterrolebindings/kaito-webhook"):
        try:
            await client.request("DELETE", f"/apis/rbac.authorization.k8s.io/v1/{name}")
        except NotFound:
            pass  # it was not there
    for kind in ("serviceaccounts/kaito-machine",):
        try:
            await client.request("DELETE", f"/api/v1/namespaces/kaito-system/{kind}")
        except NotFound:
            pass  # it was not there


async def test_the_cluster_is_looked_at(api_server: Any) -> None:
    """Version, clock, CRDs, and the webhook that is missing are told as they are."""
    async with checks_of(api_server) as (client, checks):
        assert (await checks.api_server()).verdict is Verdict.PASS
        assert (await checks.api_clock()).verdict is Verdict.PASS
        for crd in crds():
            await put(client, CRDS, crd)
        async with asyncio.timeout(20):
            while (await checks.definitions()).verdict is not Verdict.PASS:
                await asyncio.sleep(0.05)
        webhook = await checks.webhook()
        certificate = await checks.webhook_certificate()

    assert webhook.verdict is Verdict.WARN
    assert "kubectl apply -k config/default" in webhook.fix
    assert certificate.verdict is Verdict.SKIP


async def test_a_gpu_node_without_a_plugin_is_found(api_server: Any, namespace: str) -> None:
    """A node of a GPU size that offers no GPU fails with the fix, and passes when it offers one."""
    name = f"gpu-{namespace}"
    async with checks_of(api_server) as (client, checks):
        labels = {"node.kubernetes.io/instance-type": A100}
        await client.create(NODES, {"metadata": {"name": name, "labels": labels}, "spec": {}})
        try:
            before = await checks.gpus()
            amounts = {"nvidia.com/gpu": "1", "cpu": "1", "memory": "1Gi", "pods": "10"}
            status = {"status": {"capacity": amounts, "allocatable": amounts}}
            await client.patch(NODES, name, status, subresource="status")
            after = await checks.gpus()
        finally:
            await client.delete(NODES, name)

    assert before.verdict is Verdict.FAIL
    assert before.message.endswith("a GPU node that offers no nvidia.com/gpu")
    assert "config/device-plugin" in before.fix
    assert after.verdict is Verdict.PASS


# ------------------------------------------------------------------ Azure


@pytest.mark.parametrize(
    ("rules", "check", "verdict", "words", "fix"),
    [
        (Rules(), "credentials", "pass", "in eastus", ""),
        (
            Rules(faults=[Fault(verb="cluster", answer="no-group", times=0)]),
            "credentials",
            "fail",
            "ProvisionerMisconfigured: Resource group 'rg' could not be found",
            "ARM_RESOURCE_GROUP",
        ),
        (Rules(), "role", "pass", "may make and remove agent pools", ""),
        (
            Rules(allowed=["*/read"]),
            "role",
            "fail",
            "it may not: agentPools/write, agentPools/delete",
            "az role assignment create --role Contributor",
        ),
        (
            Rules(faults=[Fault(verb="permissions", answer="forbidden", times=0)]),
            "role",
            "warn",
            "may not read what it may do",
            "Reader",
        ),
        (Rules(), "clock", "pass", "Azure and this machine agree", ""),
        (
            Rules(),
            "quota",
            "pass",
            "4 more can be had (of Standard NCADSA100v4 Family vCPUs: 100 of 100 vCPUs)",
            "",
        ),
        (
            Rules(usages={family(A100): Usage(used=90, limit=96)}),
            "quota",
            "fail",
            "the quota Standard NCADSA100v4 Family vCPUs in eastus is too small: "
            "this needs 24 more vCPUs, the limit is 96, 90 are in use, 6 are left",
            "have Standard NCADSA100v4 Family vCPUs raised: https://aka.ms/azure-quota",
        ),
        (Rules(withheld=[A100]), "quota", "fail", "withheld from this subscription", "ask Azure support"),
        (
            Rules(faults=[Fault(verb="usages", answer="forbidden", times=0)]),
            "quota",
            "warn",
            "may not read the quota",
            "the provisioner does not need it",
        ),
    ],
)
async def test_azure_is_looked_at(
    azure_with: Make, rules: Rules, check: str, verdict: str, words: str, fix: str
) -> None:
    """Each check says what is the case, and what to type where it is not well."""
    azure = await azure_with(rules)
    async with AzureAccount(azure.settings, credential=StaticCredential) as account:
        checks = AzureChecks(azure.settings, account, skus=[A100], clock=lambda: datetime.now(UTC))
        ask = {"credentials": checks.credentials, "role": checks.role, "clock": checks.clock}
        finding = await (ask[check]() if check in ask else checks.quota(A100))

    assert str(finding.verdict) == verdict
    assert words in finding.message
    assert fix in finding.fix
    assert bool(finding.fix) == (verdict != "pass")


async def test_the_whole_command(
    api_server: Any,
    azure_with: Make,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Everything at once, as JSON: the region is asked for once, and the exit code follows from what fails."""
    azure = await azure_with(Rules(allowed=["*/read"]))
    for name, value in azure.environment(tmp_path).items():
        monkeypatch.setenv(name, value)
    code = await run(Request(kubeconfig=api_server.kubeconfig, skus=(A100,), output="json", timeout=30))
    document = json.loads(capsys.readouterr().out)
    found = {item["name"]: item for item in document["checks"]}

    assert (code, document["healthy"]) == (1, False)
    assert found["API server"]["verdict"] == "pass"
    assert found["Azure: role on the cluster"]["verdict"] == "fail"
    assert found[f"Azure: quota for {A100}"]["verdict"] == "pass"
    assert all(item["fix"] for item in document["checks"] if item["verdict"] in ("warn", "fail"))
    assert len(azure.arm.journal.of("cluster")) == 2  # for the region, and for the clock
