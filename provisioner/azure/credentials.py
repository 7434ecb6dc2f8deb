"""The identity under which the Resource Manager is asked.

In: settings. Out: a credential of ``azure.identity.aio``, which reads a federated token anew whenever it needs one
and keeps access tokens until shortly before they end. The caller closes it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from azure.identity.aio import DefaultAzureCredential, ManagedIdentityCredential, WorkloadIdentityCredential

from provisioner.azure.settings import AzureSettings, Credential

if TYPE_CHECKING:
    from azure.core.credentials_async import AsyncTokenCredential


def make_credential(settings: AzureSettings) -> AsyncTokenCredential:
    """The credential that the settings ask for. Raises ``ValueError`` where one of its parts is missing."""
    shared: dict[str, Any] = {"authority": settings.authority or settings.cloud.authority}
    if settings.ca_file:
        shared["connection_verify"] = settings.ca_file
    client_id = settings.client_id or None
    match settings.credential:
        case Credential.WORKLOAD:
            return WorkloadIdentityCredential(
                tenant_id=settings.tenant_id or None,
                client_id=client_id,
                token_file_path=settings.token_file or None,
                **shared,
            )
        case Credential.MANAGED:
            return ManagedIdentityCredential(client_id=client_id)
        case Credential.DEFAULT:
            return DefaultAzureCredential(
                managed_identity_client_id=client_id, workload_identity_client_id=client_id, **shared
            )
