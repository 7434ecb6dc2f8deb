"""Asking a cloud how many nodes its quota still allows, for `kaito plan --quota`.

In: the name of a cloud, whose settings are the environment's. Out: an answer that is read once, before anything
is judged, so that the judgement stays pure. A cloud that cannot be asked ends the command: a plan that silently
left the quota out would promise too much.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kaito.clouds import azure_settings
from kaito.console import step
from kaito.errors import CliError
from kaito.plan.judge import Quota

if TYPE_CHECKING:
    from provisioner.azure import QuotaBook


@dataclass(frozen=True, slots=True)
class _Spot:
    """The quota of spot nodes, which is one of its own."""

    book: QuotaBook

    def left(self, instance_type: str) -> int | None:
        return self.book.room(instance_type, spot=True).nodes


def quota_source(cloud: str, region: str | None = None, *, spot: bool = False) -> Quota:
    """The quota of the cluster's region, or of the one that is named.

    Raises:
        CliError: the cloud is not one that can be asked, or it cannot be reached (exit code 2).
    """
    if cloud != "azure":
        raise CliError(f"--quota {cloud}: only azure can be asked", "leave it out, or --quota azure", exit_code=2)
    from provisioner.azure import AzureAccount
    from provisioner.errors import CloudError

    settings = azure_settings(terminal=True)

    async def read() -> Quota:
        async with AzureAccount(settings) as account:
            book = await account.quota(region or "")
            return _Spot(book) if spot else book

    try:
        with step("quota read"):
            return asyncio.run(read())
    except CloudError as error:
        raise CliError(
            f"the quota cannot be read: {error.reason}: {error.message}", error.next_step, exit_code=2
        ) from error
