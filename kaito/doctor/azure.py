"""The checks of Azure: the settings, the identity, what it may do, the clock, and quota for what is to be made.

In: settings of a provisioner. Out: checks. Each is a few plain reads, under the identity that was given. The
region is asked for once. What the identity may not read is a warning and no failure: the provisioner does not
need it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime

from kaito.doctor.cluster import skew
from kaito.doctor.model import Check, Finding, bad, doubtful, good
from provisioner.azure import AzureAccount, AzureSettings
from provisioner.errors import AuthorizationFailed, CloudError

_ROLE = (
    "az role assignment create --role Contributor --assignee <the identity> --scope {scope}; "
    "it takes some minutes to have an effect"
)


class AzureChecks:
    """The checks of one subscription."""

    def __init__(
        self,
        settings: AzureSettings,
        account: AzureAccount,
        *,
        skus: Sequence[str],
        clock: Callable[[], datetime],
    ) -> None:
        self._settings = settings
        self._account = account
        self._skus = tuple(skus)
        self._clock = clock
        self._location: asyncio.Task[str] | None = None

    def all(self) -> list[Check]:
        """Every check, in the order to read them."""
        return [
            Check("Azure: settings", self.configured),
            Check("Azure: credentials", self.credentials),
            Check("Azure: role on the cluster", self.role),
            Check("Azure: clock", self.clock),
            *(Check(f"Azure: quota for {sku}", lambda sku=sku: self.quota(sku)) for sku in self._skus),  # type: ignore[misc]
        ]

    async def configured(self) -> Finding:
        """What is set; that nothing is missing was seen when they were read."""
        its = self._settings
        return good(
            f"cluster {its.cluster} in {its.resource_group}, {its.cloud.name}, credential {its.credential}"
        )

    async def credentials(self) -> Finding:
        """The identity gets a token, and the cluster is there."""
        try:
            return good(f"the cluster answers, in {await self._where()}")
        except CloudError as error:
            return bad(f"{error.reason}: {error.message}", error.next_step)

    async def role(self) -> Finding:
        """The identity may make and remove agent pools."""
        try:
            lacking = await self._account.missing_rights()
        except CloudError as error:
            return _untold(error, "what it may do")
        if lacking:
            what = ", ".join(
                action.removeprefix("Microsoft.ContainerService/managedClusters/") for action in lacking
            )
            return bad(f"it may not: {what}", _ROLE.format(scope=self._settings.cluster_path))
        return good("it may make and remove agent pools")

    async def clock(self) -> Finding:
        """The Resource Manager's clock and ours agree."""
        try:
            there = await self._account.clock()
        except CloudError as error:
            return _untold(error, "the time")
        return skew(there.strftime("%a, %d %b %Y %H:%M:%S GMT") if there else "", self._clock(), "Azure")

    async def quota(self, sku: str) -> Finding:
        """There is room for at least one more machine of this size."""
        try:
            room = (await self._account.quota(await self._where())).room(sku)
        except CloudError as error:
            return _untold(error, "the quota")
        if room.withheld:
            return bad(room.withheld, "ask Azure support for the size, or choose another one (kaito skus list)")
        if room.nodes is None:
            return doubtful("Azure does not say what is left", "look at https://aka.ms/azure-quota")
        if room.nodes < 1 and room.tightest is not None:
            return bad(str(room.tightest), f"have {room.tightest.name} raised: https://aka.ms/azure-quota")
        of = (
            f" (of {room.tightest.name}: {room.tightest.left} of {room.tightest.limit} vCPUs)"
            if room.tightest
            else ""
        )
        return good(f"{room.nodes} more can be had{of}")

    async def _where(self) -> str:
        if self._location is None:
            self._location = asyncio.create_task(self._account.location(), name="region of the cluster")
        return await asyncio.shield(self._location)


def _untold(error: CloudError, what: str) -> Finding:
    if isinstance(error, AuthorizationFailed):
        return doubtful(
            f"this identity may not read {what}: {error.message}",
            "give it Reader on the subscription to have this checked; the provisioner does not need it",
        )
    return bad(f"{error.reason}: {error.message}", error.next_step)
