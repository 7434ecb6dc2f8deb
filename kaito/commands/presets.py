"""``kaito presets``: the models that a manifest can name, and any other by its own files."""

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
    NAME = "name"


app = typer.Typer(
    help="The models that a manifest can name: what they need, and where they fit.",
    epilog="kaito presets list qwen --fits Standard_NV36ads_A10_v5",
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def presets(context: typer.Context) -> None:
    """List the models that a manifest can name, or show one."""
    if context.invoked_subcommand is None:
        list_presets()


LIST_EXAMPLES = """Examples

  kaito presets list phi

  kaito presets list --tunable --fits Standard_NC24ads_A100_v4 --context 16384

  kaito presets list --era v0.3 -o json
"""


@app.command("list", epilog=LIST_EXAMPLES)
def list_presets(
    search: Annotated[str, typer.Argument(help="Part of the name, the licence or the architecture.")] = "",
    era: Annotated[str, typer.Option(help="v0.3 (weights in images) or v0.12 (weights from the hub).")] = "",
    tunable: Annotated[bool, typer.Option("--tunable", help="Only those that can be tuned.")] = False,
    tools: Annotated[bool, typer.Option("--tools", help="Only those that call tools.")] = False,
    reasoning: Annotated[bool, typer.Option("--reasoning", help="Only those that think aloud.")] = False,
    fits: Annotated[str, typer.Option(help="Only those that fit one node of this instance type.")] = "",
    context: Annotated[
        int, typer.Option(min=0, help="With --fits: tokens that one request must have.", show_default="4096")
    ] = 0,
    output: Annotated[Output, typer.Option("--output", "-o", help="How to print.")] = Output.TABLE,
) -> None:
    """List the models that a manifest can name."""
    from kaito.preset_rows import PresetFilter, print_presets

    print_presets(
        PresetFilter(
            search=search,
            era=era,
            tunable=tunable,
            tools=tools,
            reasoning=reasoning,
            fits=fits,
            context=context or None,
        ),
        str(output),
    )


SHOW_EXAMPLES = """Examples

  kaito presets show phi-3-mini-4k-instruct --on Standard_NC6s_v3

  kaito presets show meta-llama/Llama-3.3-70B-Instruct --on Standard_NC96ads_A100_v4 --context 65536

  kaito presets show my-org/my-model --from ./downloaded-model -o json
"""


@app.command("show", epilog=SHOW_EXAMPLES)
def show(
    name: Annotated[str, typer.Argument(help="Preset, alias, or Hugging Face id.")],
    folder: Annotated[
        Path | None, typer.Option("--from", help="Folder with the model's own files, for a model of no catalogue.")
    ] = None,
    on: Annotated[str, typer.Option(help="Instance type: how it would be laid out there.")] = "",
    context: Annotated[
        int, typer.Option(min=0, help="With --on: tokens that one request must have.", show_default="4096")
    ] = 0,
    output: Annotated[Output, typer.Option("--output", "-o", help="How to print.")] = Output.TABLE,
) -> None:
    """Show one model: weights, context, cache, parsers, image, and how it runs on an instance type."""
    from kaito.preset_rows import print_preset

    print_preset(name, folder, on, context or None, str(output))
