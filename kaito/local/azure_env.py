"""The settings that point a provisioner at the stand-in. Pure, and imports nothing: `kaito up` reads it.

In: the stand-in's folder and port. Out: the environment, under the names that the real Azure's settings have.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

FEDERATED = "federated-token"  # to the stand-in any assertion will do; the flow is the real one


def environment(state: Path, port: int) -> Mapping[str, str]:
    """The settings of a provisioner of this subscription; they win over whatever a shell has of the real Azure."""
    url = f"https://127.0.0.1:{port}"
    return {
        "ARM_SUBSCRIPTION_ID": "00000000-0000-0000-0000-000000000001",
        "ARM_RESOURCE_GROUP": "kaito-rg",
        "AZURE_CLUSTER_NAME": "kaito",
        "AZURE_ENVIRONMENT": "AzurePublicCloud",
        "AZURE_CREDENTIAL": "workload",
        "AZURE_TENANT_ID": "00000000-0000-0000-0000-00000000000a",
        "AZURE_CLIENT_ID": "00000000-0000-0000-0000-00000000000b",
        "AZURE_FEDERATED_TOKEN_FILE": str(state / FEDERATED),
        "AZURE_AUTHORITY_HOST": url,
        "AZURE_RESOURCE_MANAGER_ENDPOINT": url,
        "AZURE_CA_FILE": str(state / "pki" / "ca.crt"),
        "AZURE_SUBNET_ID": "",
        "AZURE_MAX_OPERATIONS": "",
        "AZURE_POLL_INTERVAL": "1",
        "NO_PROXY": "127.0.0.1",
    }
