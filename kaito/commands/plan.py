"""``kaito plan``: what a manifest would become, what it costs and what will not work. Needs no cluster."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Output(StrEnum):
    """How to print."""

    TABLE = "table"
    WIDE = "wide"
    JSON = "json"
    YAML = "yaml"


class Cloud(StrEnum):
    """Where nodes would be made."""

    AZURE = "azure"
    AWS = "aws"
    ARC = "arc"


class Quota(StrEnum):
    """Whose quota can be asked for."""

    AZURE = "azure"


EXAMPLES = """Examples

  kaito plan -f workspace.yaml

  kaito plan -f workspace.yaml --cheapest --context 32768

  kaito plan -f workspace.yaml --prices ours.yaml --region westeurope --spot

  kaito plan -f workspace.yaml --quota azure

  kubectl get workspace phi -o yaml | kaito plan -f - -o json

A price file is YAML or JSON, and its prices go before the packaged ones: {currency: USD, date: 2026-11-01,
source: our contract, prices: [{instanceType: Standard_NC24ads_A100_v4, region: westeurope, onDemand: 3.40,
spot: 0.55}]}

Exit code: 0 everything works as written, 1 something does not fit or does not run, 2 a manifest that is refused.
"""


def plan(
    filename: Annotated[
        list[str],
        typer.Option("--filename", "-f", help="Manifest, folder, or - for standard input; may be repeated."),
    ],
    output: Annotated[
        Output, typer.Option("--output", "-o", help="wide adds what was tried and passed over.")
    ] = Output.TABLE,
    context: Annotated[
        int,
        typer.Option(
            min=0, help="Tokens that one request must be able to have.", show_default="4096, or the limit"
        ),
    ] = 0,
    cheapest: Annotated[
        bool, typer.Option("--cheapest", help="Choose the instance type, whatever the manifest names.")
    ] = False,
    old_gpus: Annotated[
        bool, typer.Option("--old-gpus", help="Choose among GPUs without bfloat16 (T4, V100) too.")
    ] = False,
    cloud: Annotated[
        Cloud | None,
        typer.Option(help="Whose instance types to choose from.", show_default="the named type's, else azure"),
    ] = None,
    region: Annotated[str, typer.Option(help="Whose prices count.", show_default="the first known")] = "",
    existing_nodes: Annotated[
        bool,
        typer.Option(
            "--existing-nodes", help="The nodes are there (or simulated): nothing is asked of the cloud."
        ),
    ] = False,
    spot: Annotated[bool, typer.Option("--spot", help="Go by spot prices.")] = False,
    quota: Annotated[
        Quota | None, typer.Option(help="Ask the cloud how many nodes its quota still allows (ARM_*, `az login`).")
    ] = None,
    prices: Annotated[
        Path | None, typer.Option(help="File with prices of your own, before the packaged ones.")
    ] = None,
    registry: Annotated[
        str, typer.Option(help="Where the images of presets are.", show_default="the operator's")
    ] = "",
) -> None:
    """Show what a manifest would become: objects, nodes, cost, and what will not work and why.

    The operator's own decision is run on the manifest, so plan and operator cannot disagree. No cluster is needed.
    """
    from kaito.plan.run import Request, run

    code = run(
        Request(
            sources=filename,
            output=str(output),
            context=context or None,
            cheapest=cheapest,
            old_gpus=old_gpus,
            cloud=str(cloud) if cloud else "",
            region=region or None,
            spot=spot,
            existing_nodes=existing_nodes,
            prices=prices,
            registry=registry or None,
            quota=str(quota) if quota else "",
        )
    )
    if code:
        raise typer.Exit(code)
