"""Which AKS cluster the provisioner works on, and as whom.

In: the environment, under the names that the upstream provisioner uses, so that its Deployment's ``env`` serves
unchanged. Out: one frozen value, or ``InvalidSettings`` that names everything that is missing at once. Secrets
are not settings: a federated token stays in its file and is read by the identity library. Nothing of the SDK is
imported here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import quote


class InvalidSettings(ValueError):
    """The settings cannot be used; the text names the variables and what they should hold."""


class Credential(StrEnum):
    """How the provisioner proves who it is."""

    WORKLOAD = "workload"  # a federated service account token
    MANAGED = "managed"  # the identity of the machine or pod it runs on
    DEFAULT = "default"  # whatever the identity library finds, in its own order


@dataclass(frozen=True, slots=True)
class Cloud:
    """One of Azure's clouds: where its Resource Manager and its identity service are."""

    name: str
    endpoint: str
    scope: str
    authority: str


CLOUDS: Mapping[str, Cloud] = {
    cloud.name: cloud
    for cloud in (
        Cloud(
            "AzurePublicCloud",
            "https://management.azure.com",
            "https://management.azure.com/.default",
            "https://login.microsoftonline.com",
        ),
        Cloud(
            "AzureUSGovernmentCloud",
            "https://management.usgovcloudapi.net",
            "https://management.core.usgovcloudapi.net/.default",
            "https://login.microsoftonline.us",
        ),
        Cloud(
            "AzureChinaCloud",
            "https://management.chinacloudapi.cn",
            "https://management.chinacloudapi.cn/.default",
            "https://login.chinacloudapi.cn",
        ),
    )
}
_MAX_OPERATIONS = 32
_POLL_INTERVAL = 15
_SHORT = {"public": "AzurePublicCloud", "usgovernment": "AzureUSGovernmentCloud", "china": "AzureChinaCloud"}


@dataclass(frozen=True, slots=True)
class AzureSettings:
    """The cluster and the identity.

    Attributes:
        tenant_id, client_id: of the identity; empty leaves them to the identity library.
        token_file: the federated token; empty leaves it to the identity library.
        authority: the identity service; empty is the cloud's own.
        endpoint: of the Resource Manager; empty is the cloud's own.
        ca_file: certificate authority of both, where it is not one that everybody trusts.
        subnet_id: resource ID of the subnet for new nodes; empty leaves it to AKS.
        max_operations: how many operations on the cluster's pools at a time are ever tried.
        poll_interval: seconds between two looks at an operation, where Azure asks for none.
    """

    subscription_id: str
    resource_group: str
    cluster: str
    cloud: Cloud = CLOUDS["AzurePublicCloud"]
    credential: Credential = Credential.WORKLOAD
    tenant_id: str = ""
    client_id: str = ""
    token_file: str = ""
    authority: str = ""
    endpoint: str = ""
    ca_file: str = ""
    subnet_id: str = ""
    max_operations: int = _MAX_OPERATIONS
    poll_interval: int = _POLL_INTERVAL

    @property
    def arm(self) -> str:
        """Base URL of the Resource Manager, without a slash at its end."""
        return (self.endpoint or self.cloud.endpoint).rstrip("/")

    @property
    def subscription_path(self) -> str:
        """ARM's path of the subscription."""
        return f"/subscriptions/{quote(self.subscription_id, safe='')}"

    @property
    def cluster_path(self) -> str:
        """ARM's path of the cluster."""
        group, cluster = quote(self.resource_group, safe="()"), quote(self.cluster, safe="")
        return (
            f"{self.subscription_path}/resourceGroups/{group}"
            f"/providers/Microsoft.ContainerService/managedClusters/{cluster}"
        )

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> AzureSettings:
        """Settings of an environment. White space around values is ignored.

        Raises:
            InvalidSettings: a variable is missing or holds something else.
        """

        def value(name: str) -> str:
            return env.get(name, "").strip()

        needed = ["ARM_SUBSCRIPTION_ID", "ARM_RESOURCE_GROUP", "AZURE_CLUSTER_NAME"]
        credential = _credential(value("AZURE_CREDENTIAL"), value("DEPLOYMENT_MODE"))
        if credential is Credential.WORKLOAD:
            # The workload-identity webhook sets these on the pod; without them no token can be had.
            needed += ["AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_FEDERATED_TOKEN_FILE"]
        if missing := [name for name in needed if not value(name)]:
            raise InvalidSettings(f"not set: {', '.join(missing)}")
        endpoint = value("AZURE_RESOURCE_MANAGER_ENDPOINT")
        if endpoint and not endpoint.startswith("https://"):
            raise InvalidSettings(f"AZURE_RESOURCE_MANAGER_ENDPOINT={endpoint}: not an https address")
        return cls(
            subscription_id=value("ARM_SUBSCRIPTION_ID"),
            resource_group=value("ARM_RESOURCE_GROUP"),
            cluster=value("AZURE_CLUSTER_NAME"),
            cloud=_cloud(value("AZURE_ENVIRONMENT")),
            credential=credential,
            tenant_id=value("AZURE_TENANT_ID"),
            client_id=value("AZURE_CLIENT_ID"),
            token_file=value("AZURE_FEDERATED_TOKEN_FILE"),
            authority=value("AZURE_AUTHORITY_HOST"),
            endpoint=endpoint,
            ca_file=value("AZURE_CA_FILE"),
            subnet_id=value("AZURE_SUBNET_ID"),
            max_operations=_positive("AZURE_MAX_OPERATIONS", value("AZURE_MAX_OPERATIONS"), _MAX_OPERATIONS),
            poll_interval=_positive("AZURE_POLL_INTERVAL", value("AZURE_POLL_INTERVAL"), _POLL_INTERVAL),
        )


def _cloud(name: str) -> Cloud:
    wanted = _SHORT.get(name.lower(), name).lower()
    for known, cloud in CLOUDS.items():
        if wanted in ("", known.lower()):
            return cloud
    raise InvalidSettings(f"AZURE_ENVIRONMENT={name}: not one of {', '.join(CLOUDS)}")


def _credential(name: str, deployment_mode: str) -> Credential:
    if not name:
        # Upstream's switch: "managed" is the add-on's, which takes whatever identity it finds.
        return Credential.DEFAULT if deployment_mode == "managed" else Credential.WORKLOAD
    try:
        return Credential(name.lower())
    except ValueError:
        raise InvalidSettings(f"AZURE_CREDENTIAL={name}: not one of {', '.join(Credential)}") from None


def _positive(name: str, text: str, default: int) -> int:
    if not text:
        return default
    if not text.isdigit() or int(text) < 1:
        raise InvalidSettings(f"{name}={text}: not a whole number above 0")
    return int(text)
