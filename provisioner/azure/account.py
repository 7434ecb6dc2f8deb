"""What a person wants to know of the subscription before Machines are made: region, quota, rights, the clock.

In: the provisioner's own settings and identity. Out: plain values, or a ``CloudError``. Only reads; each is a
plain ARM request, because no SDK of ours covers it, on the client that agent pools use too. The operator never
needs any of it: what ``kaito doctor`` and ``kaito plan --quota`` ask, a Machine finds out by asking for a pool.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Self
from urllib.parse import quote

from provisioner.azure.quota import QuotaBook
from provisioner.azure.rights import missing
from provisioner.azure.settings import AzureSettings
from provisioner.errors import AuthorizationFailed, CloudUnavailable

if TYPE_CHECKING:
    from azure.core.credentials_async import AsyncTokenCredential

    from provisioner.azure.arm import Arm

_CLUSTER_VERSION = "2024-01-01"
_SKUS_VERSION = "2021-07-01"
_USAGES_VERSION = "2024-07-01"
_PERMISSIONS_VERSION = "2022-04-01"


class AzureAccount:
    """One cluster's subscription, as an async context manager. Its methods raise only ``CloudError``."""

    def __init__(
        self, settings: AzureSettings, *, credential: Callable[[], AsyncTokenCredential] | None = None
    ) -> None:
        self._settings = settings
        self._make_credential = credential
        self._arm: Arm | None = None

    def __repr__(self) -> str:
        return f"<AzureAccount {self._settings.cluster}>"

    async def __aenter__(self) -> Self:
        from provisioner.azure.arm import Arm
        from provisioner.azure.credentials import make_credential

        try:
            made = self._make_credential() if self._make_credential else make_credential(self._settings)
        except ValueError as error:
            raise AuthorizationFailed(f"the credential cannot be made: {error}") from error
        self._arm = Arm(self._settings, made, user_agent="kaito")
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._arm is not None:
            await self._arm.close()

    async def location(self) -> str:
        """The region of the cluster."""
        body, _ = await self._opened.read(self._settings.cluster_path, **{"api-version": _CLUSTER_VERSION})
        if not isinstance(body.get("location"), str):
            raise CloudUnavailable("Azure describes the cluster without a location")
        return str(body["location"])

    async def clock(self) -> datetime | None:
        """The Resource Manager's time, of the cluster's own reply; None where it says none."""
        _, headers = await self._opened.read(self._settings.cluster_path, **{"api-version": _CLUSTER_VERSION})
        try:
            return parsedate_to_datetime(headers.get("Date", ""))
        except ValueError:
            return None

    async def quota(self, location: str = "") -> QuotaBook:
        """The quotas and sizes of a region, of the cluster's own where none is named."""
        where = location or await self.location()
        compute = f"{self._settings.subscription_path}/providers/Microsoft.Compute"
        usages = await self._opened.read_all(
            f"{compute}/locations/{quote(where, safe='')}/usages", **{"api-version": _USAGES_VERSION}
        )
        skus = await self._opened.read_all(
            f"{compute}/skus", **{"api-version": _SKUS_VERSION, "$filter": f"location eq '{where}'"}
        )
        return QuotaBook.read(where, skus, usages)

    async def missing_rights(self) -> list[str]:
        """The actions that the provisioner needs on the cluster and that its identity may not do."""
        path = f"{self._settings.cluster_path}/providers/Microsoft.Authorization/permissions"
        return missing(await self._opened.read_all(path, **{"api-version": _PERMISSIONS_VERSION}))

    @property
    def _opened(self) -> Arm:
        if self._arm is None:
            raise RuntimeError("use it as an async context manager")
        return self._arm
