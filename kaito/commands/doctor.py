"""``kaito doctor``: what a cluster, and the cloud behind it, lack."""

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

  kaito doctor

  kaito doctor --sku Standard_NC24ads_A100_v4 --sku Standard_NC6s_v3

  kaito doctor -o json --timeout 30

Azure is checked where ARM_SUBSCRIPTION_ID is set (with ARM_RESOURCE_GROUP and AZURE_CLUSTER_NAME).

Exit code: 0 nothing fails, 1 something does, 2 an option that cannot be used. A warning is not a failure.
"""


def doctor(
    sku: Annotated[
        list[str] | None, typer.Option("--sku", help="Is there quota for one more of this size? Repeatable.")
    ] = None,
    provider: Annotated[
        str, typer.Option(help="Cloud: azure, local, byo.", show_default="azure if ARM_SUBSCRIPTION_ID is set")
    ] = "",
    output: Annotated[Output, typer.Option("--output", "-o", help="How to print.")] = Output.TABLE,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds that a single check may take.")] = 10.0,
    local_cloud_url: Annotated[str, typer.Option(help="Address of the local cloud.")] = "http://127.0.0.1:8089",
    local_cloud_token_file: Annotated[
        Path | None, typer.Option(help="File with the local cloud's bearer token.")
    ] = None,
    kubeconfig: Annotated[Path | None, typer.Option(help="Default: $KUBECONFIG, then ~/.kube/config.")] = None,
) -> None:
    """Check what the operator needs: API server, CRDs, rights, webhook, GPUs, clocks, and Azure's role and quota.

    Says pass, warn or fail, and with each what to do. Changes nothing.
    """
    from kaito.doctor.run import Request, run

    request = Request(
        kubeconfig=kubeconfig,
        provider=provider,
        skus=tuple(sku or ()),
        output=str(output),
        timeout=timeout,
        local_url=local_cloud_url,
        local_token=local_cloud_token_file,
    )
    if code := asyncio.run(run(request)):
        raise typer.Exit(code)
