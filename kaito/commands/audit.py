"""``kaito audit``: instances that nobody owns, in GPU-hours and money."""

from __future__ import annotations

import asyncio
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Output(StrEnum):
    """How to print."""

    TABLE = "table"
    JSON = "json"


EXAMPLES = """Examples

  kaito audit

  kaito audit -o json --prices ours.yaml

  kaito audit --delete

Only instances that bear this provisioner's mark are looked at: a pool of somebody else is never listed or touched.

Azure is set up by ARM_SUBSCRIPTION_ID, ARM_RESOURCE_GROUP and AZURE_CLUSTER_NAME, and asked as whom `az login`
made.

Exit code: 0 nothing leaks, 1 something does, 2 no audit could be made.
"""


def audit(
    provider: Annotated[str, typer.Option(help="Cloud: azure, local, byo.")] = "azure",
    output: Annotated[Output, typer.Option("--output", "-o", help="How to print.")] = Output.TABLE,
    grace: Annotated[
        float, typer.Option(min=0, help="Seconds that an instance may be without a Machine.")
    ] = 300.0,
    delete: Annotated[
        bool, typer.Option("--delete", help="Delete the orphaned instances, after asking. Without it: a dry run.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="With --delete: do not ask.")] = False,
    timeout: Annotated[float, typer.Option(min=0, help="With --delete: seconds to wait for the end.")] = 1800.0,
    prices: Annotated[Path | None, typer.Option(help="File with prices of your own (kaito plan --help).")] = None,
    region: Annotated[str, typer.Option(help="Whose prices count.", show_default="the first known")] = "",
    local_cloud_url: Annotated[str, typer.Option(help="Address of the local cloud.")] = "http://127.0.0.1:8089",
    local_cloud_token_file: Annotated[
        Path | None, typer.Option(help="File with the local cloud's bearer token.")
    ] = None,
    kubeconfig: Annotated[Path | None, typer.Option(help="Default: $KUBECONFIG, then ~/.kube/config.")] = None,
) -> None:
    """Compare the cloud with the cluster: instances without a Machine, Machines without an instance, lone nodes.

    Says how old they are, how many GPU-hours they have taken and what they cost. Changes nothing unless told to.
    """
    from kaito.audit.run import Request, run

    request = Request(
        provider=provider,
        kubeconfig=kubeconfig,
        local_url=local_cloud_url,
        local_token=local_cloud_token_file,
        output=str(output),
        grace=grace,
        prices=prices,
        region=region or None,
        delete=delete,
        yes=yes,
        timeout=timeout,
    )
    if code := asyncio.run(run(request)):
        raise typer.Exit(code)
