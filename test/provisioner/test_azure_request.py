"""What is asked of AKS for one Machine: the pool's name and the body, and the settings of the provisioner."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from provisioner import SPOT, InstanceRequest, Taint
from provisioner.azure import AzureProvider, AzureSettings, Credential, InvalidSettings
from provisioner.azure.body import disk_gib, offerings, os_sku, pool_body
from provisioner.azure.names import pool_name, pool_of_node, pool_of_provider_id
from provisioner.errors import InvalidRequest

Ask = Callable[..., InstanceRequest]
GIB = 1 << 30
SETTINGS = AzureSettings("sub", "rg", "cluster")
VMSS = "/providers/Microsoft.Compute/virtualMachineScaleSets/"


def body(request: InstanceRequest, **changes: Any) -> dict[str, Any]:
    properties: dict[str, Any] = pool_body(request, offerings(request)[0], cluster="c1", **changes)["properties"]
    return properties


@pytest.fixture
def provider() -> AzureProvider:
    return AzureProvider(SETTINGS)


@pytest.mark.acceptance("instance-NewAgentPoolObject-with-storage")
def test_the_whole_body(provider: AzureProvider, ask: Ask) -> None:
    """One node of the wanted size, with the Machine's labels and taints, and tags that say whose it is."""
    assert body(ask(provider)) == {
        "count": 1,
        "vmSize": "Standard_NC6s_v3",
        "osDiskSizeGB": 100,
        "osType": "Linux",
        "osSKU": "Ubuntu",
        "type": "VirtualMachineScaleSets",
        "mode": "User",
        "enableAutoScaling": False,
        "nodeLabels": {
            "karpenter.sh/provisioner-name": "default",
            "kaito.sh/workspace": "phi",
            "kaito.sh/workspacenamespace": "default",
            "apps": "phi-3",
            "kaito.sh/machine-type": "gpu",
            "kaito.sh/creation-timestamp": "2026-11-26T08-30-00Z",
        },
        "nodeTaints": ["sku=gpu:NoSchedule"],
        "tags": {
            "kaito-managed-by": "kaito",
            "kaito-cluster": "c1",
            "kaito-owner-kind": "Machine",
            "kaito-owner-name": "ws0f3a9c21b",
            "kaito-owner-uid": "2f6e3c1a-9f0e-4c39-8a51-6f8b7d0c1e11",
        },
    }


@pytest.mark.acceptance("instance-NewAgentPoolObject-with-no-storage")
@pytest.mark.parametrize(
    ("size", "gib"),
    [
        (-1, 0),
        (0, 0),
        (400, 400),  # upstream's preset of falcon-40b: no unit, and GiB are meant
        (30, 30),
        (10 * GIB, 30),
        (30 * GIB, 30),
        (50 * GIB, 50),
        (50 * GIB + 1, 51),
        (100 * GIB, 100),
        (120 * GIB, 120),
        (158 * GIB, 158),
        (120_000_000_000, 112),
    ],
)
def test_the_disk_is_in_gib_and_rounded_up(size: int, gib: int) -> None:
    """Bytes become GiB, rounded up, at least what AKS takes; nothing asked is AKS's default."""
    assert disk_gib(size) == gib


@pytest.mark.acceptance(
    "image-family-AzureLinux",
    "image-family-Ubuntu",
    "image-family-absent-Ubuntu",
    "image-family-case-insensitive",
    "image-family-unknown-Ubuntu",
)
@pytest.mark.parametrize(
    ("family", "sku"),
    [
        ("AzureLinux", "AzureLinux"),
        ("azurelinux", "AzureLinux"),
        ("AZURELINUX", "AzureLinux"),
        ("Ubuntu", "Ubuntu"),
        ("ubuntu", "Ubuntu"),
        ("Windows", "Ubuntu"),
        ("", "Ubuntu"),
    ],
)
def test_the_image_family_is_aks_os_sku(family: str, sku: str) -> None:
    """Known families in any case have AKS's name; anything else is Ubuntu."""
    assert os_sku(family) == sku


def test_an_unknown_image_family_is_told(caplog: pytest.LogCaptureFixture) -> None:
    """What is not honoured is in the log."""
    os_sku("Windows")
    assert "Windows" in caplog.text


@pytest.mark.acceptance("image-family-label-only-ignored", "image-family-annotation-precedence")
def test_a_label_of_that_name_is_no_image_family(provider: AzureProvider, ask: Ask) -> None:
    """Only the annotation chooses; a label with the same key stays a label."""
    request = ask(provider, labels={"kaito.sh/node-image-family": "AzureLinux"}, image_family="Ubuntu")
    assert body(request)["osSKU"] == "Ubuntu"


def test_a_nodeclaim_has_the_newer_pool_label(provider: AzureProvider, ask: Ask) -> None:
    """A NodeClaim's node says so in the label that newer Karpenter reads, and in its tags."""
    from dataclasses import replace

    request = ask(provider)
    assert request.owner is not None
    found = body(replace(request, owner=replace(request.owner, kind="NodeClaim")))

    assert found["nodeLabels"]["karpenter.sh/nodepool"] == "kaito"
    assert "karpenter.sh/provisioner-name" not in found["nodeLabels"]
    assert found["tags"]["kaito-owner-kind"] == "NodeClaim"


def test_labels_that_aks_refuses_are_left_out(provider: AzureProvider, ask: Ask) -> None:
    """Labels of the domains that AKS keeps to itself stay out of the PUT, which would fail; others stay."""
    labels = {
        "node.kubernetes.io/instance-type": "x",
        "topology.kubernetes.io/zone": "x",
        "kubernetes.azure.com/mode": "x",
        "k8s.io/a": "x",
        "mykubernetes.io/a": "kept",
        "kaito.sh/machine-type": "overruled",
        "karpenter.sh/provisioner-name": "mine",
    }
    found = body(ask(provider, labels=labels, owner=None))["nodeLabels"]
    assert found == {
        "mykubernetes.io/a": "kept",
        "kaito.sh/machine-type": "gpu",
        "karpenter.sh/provisioner-name": "mine",
    }


def test_startup_taints_are_not_the_pools(provider: AzureProvider, ask: Ask) -> None:
    """AKS restores the taints of a pool, so those that somebody takes off must not be there."""
    request = ask(provider, startup_taints=(Taint("wait", "NoExecute"),), taints=(Taint("a", "NoSchedule"),))
    assert body(request)["nodeTaints"] == ["a=:NoSchedule"]


@pytest.mark.parametrize(("size", "kind"), [("Standard_D4s_v5", "cpu"), ("standard_nc6s_v3", "gpu")])
def test_the_machine_type_follows_from_the_size(provider: AzureProvider, ask: Ask, size: str, kind: str) -> None:
    """The N family, in any case, is the one with GPUs."""
    found = body(ask(provider, instance_types=(size,)))
    assert found["nodeLabels"]["kaito.sh/machine-type"] == kind


def test_spot_zones_and_a_subnet(provider: AzureProvider, ask: Ask) -> None:
    """A spot request says so to AKS and on the node; zones are AKS's numbers; the subnet is the setting's."""
    request = ask(provider, capacity_types=(SPOT,), zones=("eastus-1", "3"))
    found = body(request, subnet_id="/subnets/gpu")

    assert found["scaleSetPriority"] == "Spot"
    assert (found["scaleSetEvictionPolicy"], found["spotMaxPrice"]) == ("Delete", -1)
    assert found["nodeLabels"]["karpenter.sh/capacity-type"] == "spot"
    assert found["availabilityZones"] == ["1", "3"]
    assert found["vnetSubnetID"] == "/subnets/gpu"


def test_offerings_keep_the_authors_order(provider: AzureProvider, ask: Ask) -> None:
    """By type first, then by capacity type, each once."""
    request = ask(provider, instance_types=("B", "A", "B"), capacity_types=(SPOT, "on-demand"))
    assert [str(offering) for offering in offerings(request)] == ["B (spot)", "B", "A (spot)", "A"]


# ---------------------------------------------------------------------- names


def test_pool_names_are_valid_and_follow_from_the_uid() -> None:
    """Any uid gives a name that AKS takes, always the same, and different uids give different names."""
    names = [pool_name(f"uid-{number}") for number in range(5000)]
    assert all(re.fullmatch(r"[a-z][a-z0-9]{0,11}", name) for name in names)
    assert len(set(names)) == 5000
    assert pool_name("uid-7") == names[7]


@pytest.mark.parametrize("resource_group", ["MC_rg_cluster_eastus", "mc_rg_cluster_eastus"])
def test_a_pool_is_found_by_its_nodes_provider_id(resource_group: str) -> None:
    """The scale set's name holds the pool's, in whatever case AKS writes the rest."""
    base = f"azure:///subscriptions/s/resourceGroups/{resource_group}{VMSS}"
    assert pool_of_provider_id(f"{base}aks-ws0f3a9c21b-12345678-vmss/virtualMachines/0") == "ws0f3a9c21b"
    assert pool_of_provider_id(f"{base.lower()}aks-ws0f3a9c21b-12345678-vmss/virtualmachines/0") == "ws0f3a9c21b"


@pytest.mark.acceptance("instance-Get-pool-ID-cannot-be-parsed", "instance-Delete-ID-cannot-be-parsed")
@pytest.mark.parametrize(
    "provider_id",
    [
        "azure:///subscriptions/s/resourceGroups/g/providers/Microsoft.Compute/virtualMachines/vm0",
        f"azure:///subscriptions/s/resourceGroups/g{VMSS}nodash/virtualMachines/0",
        f"azure:///subscriptions/s/resourceGroups/g{VMSS}aks-p-vmss/virtualMachines/0",
        "local:///instances/ws1",
        "aws:///us-east-1a/i-1",
    ],
)
def test_a_provider_id_of_something_else_is_refused(provider: AzureProvider, provider_id: str) -> None:
    """No name is guessed where the node is not an AKS one: the real instance would be lost."""
    with pytest.raises(InvalidRequest, match="not that of an AKS node") as caught:
        provider.instance_name("ws1", "uid", provider_id)
    assert caught.value.terminal


def test_a_machine_keeps_the_pool_of_an_earlier_provisioner(provider: AzureProvider) -> None:
    """A node that is there decides the name; without one the uid does."""
    provider_id = f"azure:///subscriptions/s/resourceGroups/g{VMSS}aks-ws0f3a9c21b-12345678-vmss/virtualMachines/0"
    assert provider.instance_name("ws0f3a9c21b", "uid", provider_id) == "ws0f3a9c21b"
    assert provider.instance_name("ws0f3a9c21b", "uid") == pool_name("uid")


@pytest.mark.acceptance("instance-FromAgentPool-success", "instance-FromAgentPool-node-is-nil")
@pytest.mark.parametrize(
    ("labels", "provider_id", "pool"),
    [
        ({"agentpool": "p1", "kubernetes.azure.com/agentpool": "p1"}, "", "p1"),
        ({"kubernetes.azure.com/agentpool": "p1"}, "", "p1"),
        ({"agentpool": "p1", "kubernetes.azure.com/agentpool": "p2"}, "", ""),
        ({}, f"azure:///subscriptions/s/resourceGroups/g{VMSS}aks-p3-12345678-vmss/virtualMachines/0", "p3"),
        ({}, "", ""),
    ],
)
def test_a_node_says_which_pool_it_is_of(labels: dict[str, str], provider_id: str, pool: str) -> None:
    """Both labels of AKS must agree; without them the providerID tells; otherwise it is no node of ours."""
    assert pool_of_node({"metadata": {"labels": labels}, "spec": {"providerID": provider_id}}) == pool
    assert pool_of_node({}) == ""


# ---------------------------------------------------------------------- settings

ENV = {
    "ARM_SUBSCRIPTION_ID": "sub",
    "ARM_RESOURCE_GROUP": "rg",
    "AZURE_CLUSTER_NAME": "cluster",
    "AZURE_TENANT_ID": "tenant",
    "AZURE_CLIENT_ID": "client",
    "AZURE_FEDERATED_TOKEN_FILE": "/var/run/secrets/azure/tokens/azure-identity-token",
    "AZURE_AUTHORITY_HOST": "https://login.microsoftonline.com/",
}


@pytest.mark.acceptance("auth-config-BaseVars", "settings-defaults")
def test_upstreams_environment_serves() -> None:
    """The variables of the upstream Deployment are enough, with workload identity and the public cloud."""
    settings = AzureSettings.from_env(ENV)
    assert (settings.subscription_id, settings.resource_group, settings.cluster) == ("sub", "rg", "cluster")
    assert (settings.tenant_id, settings.client_id) == ("tenant", "client")
    assert settings.credential is Credential.WORKLOAD
    assert settings.arm == "https://management.azure.com"


@pytest.mark.acceptance("auth-config-TrimSpace")
def test_white_space_is_ignored() -> None:
    """Values with spaces and newlines around them, as Secrets often have, are trimmed."""
    assert AzureSettings.from_env({key: f" {value}\n" for key, value in ENV.items()}) == AzureSettings.from_env(
        ENV
    )


@pytest.mark.acceptance("auth-config-MissingRequired", "auth-config-Validate", "settings-missing-clusterName")
@pytest.mark.parametrize("name", ["ARM_SUBSCRIPTION_ID", "ARM_RESOURCE_GROUP", "AZURE_CLUSTER_NAME"])
def test_missing_variables_are_named(name: str) -> None:
    """Each that is missing is told by name, all of them at once."""
    with pytest.raises(InvalidSettings, match=f"not set: {name}$"):
        AzureSettings.from_env({**ENV, name: " "})
    with pytest.raises(InvalidSettings, match=name):
        AzureSettings.from_env({})


@pytest.mark.parametrize("name", ["AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_FEDERATED_TOKEN_FILE"])
def test_workload_identity_needs_its_variables(name: str) -> None:
    """They come from the webhook; the other credentials do without."""
    with pytest.raises(InvalidSettings, match=name):
        AzureSettings.from_env({**ENV, name: ""})
    for other in (
        {"AZURE_CREDENTIAL": "managed"},
        {"AZURE_CREDENTIAL": "default"},
        {"DEPLOYMENT_MODE": "managed"},
    ):
        assert AzureSettings.from_env({**ENV, name: "", **other}).credential is not Credential.WORKLOAD


@pytest.mark.acceptance("auth-config-GetAzureClientConfig")
@pytest.mark.parametrize(
    ("name", "endpoint", "scope"),
    [
        ("", "https://management.azure.com", "https://management.azure.com/.default"),
        ("AzurePublicCloud", "https://management.azure.com", "https://management.azure.com/.default"),
        (
            "AzureUSGovernmentCloud",
            "https://management.usgovcloudapi.net",
            "https://management.core.usgovcloudapi.net/.default",
        ),
        ("azurechinacloud", "https://management.chinacloudapi.cn", "https://management.chinacloudapi.cn/.default"),
        ("china", "https://management.chinacloudapi.cn", "https://management.chinacloudapi.cn/.default"),
    ],
)
def test_sovereign_clouds(name: str, endpoint: str, scope: str) -> None:
    """Each cloud has its own Resource Manager, token scope and identity service; they are the SDK's own."""
    from azure.core import AzureClouds
    from azure.mgmt.core.tools import get_arm_endpoints

    settings = AzureSettings.from_env({**ENV, "AZURE_ENVIRONMENT": name})
    assert (settings.arm, settings.cloud.scope) == (endpoint, scope)
    known = [get_arm_endpoints(cloud) for cloud in AzureClouds]
    assert {"resource_manager": endpoint + "/", "credential_scopes": [scope]} in known


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("AZURE_ENVIRONMENT", "AzureGermanCloud"),
        ("AZURE_CREDENTIAL", "password"),
        ("AZURE_RESOURCE_MANAGER_ENDPOINT", "http://127.0.0.1"),
        ("AZURE_MAX_OPERATIONS", "0"),
        ("AZURE_MAX_OPERATIONS", "many"),
    ],
)
def test_unusable_values_are_told(name: str, value: str) -> None:
    """The message has the variable, its value and what it may be."""
    with pytest.raises(InvalidSettings, match=f"{name}={value}"):
        AzureSettings.from_env({**ENV, name: value})
