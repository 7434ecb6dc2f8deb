"""``kaito skus``: the instance types that the catalogue knows."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Output(StrEnum):
    """How to print."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"
    NAME = "name"


app = typer.Typer(
    help="The instance types that the catalogue knows: GPUs, memory, prices, retirements.",
    epilog="kaito skus list --fits microsoft/phi-4",
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def skus(context: typer.Context) -> None:
    """List the instance types, or show one."""
    if context.invoked_subcommand is None:
        list_skus()


LIST_EXAMPLES = """Examples

  kaito skus list --usable

  kaito skus list --cloud aws --gpu L4

  kaito skus list --fits microsoft/phi-4 --context 16384
"""


@app.command("list", epilog=LIST_EXAMPLES)
def list_skus(
    search: Annotated[str, typer.Argument(help="Part of the name.")] = "",
    cloud: Annotated[str, typer.Option(help="azure, aws or arc.")] = "",
    gpu: Annotated[str, typer.Option(help="Part of the GPU's name, such as A100.")] = "",
    min_memory: Annotated[str, typer.Option(help="GPU memory over all GPUs at least, such as 80Gi.")] = "",
    usable: Annotated[
        bool, typer.Option("--usable", help="Only those that may be chosen: not retired, not too old, whole GPUs.")
    ] = False,
    fits: Annotated[str, typer.Option(help="Only those that hold this preset; adds nodes and layout.")] = "",
    context: Annotated[
        int, typer.Option(min=0, help="With --fits: tokens that one request must have.", show_default="4096")
    ] = 0,
    region: Annotated[str, typer.Option(help="Whose prices to show.", show_default="the first known")] = "",
    prices: Annotated[Path | None, typer.Option(help="File with prices of your own.")] = None,
    output: Annotated[Output, typer.Option("--output", "-o", help="How to print.")] = Output.TABLE,
) -> None:
    """List the instance types."""
    from kaito.sku_rows import SkuFilter, print_skus

    print_skus(
        SkuFilter(
            search=search,
            cloud=cloud,
            gpu=gpu,
            min_memory=min_memory,
            usable=usable,
            fits=fits,
            context=context or None,
            region=region or None,
        ),
        prices,
        str(output),
    )


@app.command("show", epilog="kaito skus show Standard_NC6s_v3")
def show(
    instance_type: Annotated[str, typer.Argument(help="Instance type, in any case.")],
    prices: Annotated[Path | None, typer.Option(help="File with prices of your own.")] = None,
    output: Annotated[Output, typer.Option("--output", "-o", help="How to print.")] = Output.TABLE,
) -> None:
    """Show one instance type."""
    from kaito.sku_rows import print_sku

    print_sku(instance_type, prices, str(output))
