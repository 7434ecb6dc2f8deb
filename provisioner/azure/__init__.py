"""Azure: one Machine is one AKS agent pool of one node. The SDK is imported when the first call is made."""

from __future__ import annotations

from provisioner.azure.account import AzureAccount
from provisioner.azure.provider import AzureProvider
from provisioner.azure.quota import QuotaBook, Room
from provisioner.azure.settings import AzureSettings, Credential, InvalidSettings

__all__ = [
    "AzureAccount",
    "AzureProvider",
    "AzureSettings",
    "Credential",
    "InvalidSettings",
    "QuotaBook",
    "Room",
]
