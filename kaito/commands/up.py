"""``kaito up`` and ``kaito down``: the embedded cluster, kept running until Ctrl-C."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

HomeOption = Annotated[
    Path | None,
    typer.Option("--home", envvar="KAITO_HOME", help="The cluster's folder. [default: ~/.local/share/kaito]"),
]
PortOption = Annotated[
    int | None, typer.Option(min=1, max=65535, help="Port of the API server; default: a free one, kept.")
]
DelayOption = Annotated[
    float, typer.Option(min=0, max=86400, help="Seconds that a simulated GPU node takes to appear.")
]
WeightsOption = Annotated[
    list[str] | None,
    typer.Option(help="PRESET=FOLDER: real weights for a preset, instead of the stand-in model. Repeatable."),
]
CloudOption = Annotated[
    str,
    typer.Option(help="local, or fake-azure: the operator works with Azure's own SDK on a stand-in of Azure."),
]
FaultsOption = Annotated[
    Path | None,
    typer.Option(
        help="With fake-azure: YAML of delays, limits, quotas and faults; see `kaito fake-azure --help`."
    ),
]


def up(
    home: HomeOption = None,
    port: PortOption = None,
    node_delay: DelayOption = 2.0,
    weights: WeightsOption = None,
    cloud: CloudOption = "local",
    faults: FaultsOption = None,
) -> None:
    """Start a Kubernetes cluster on this machine with the operator in it, and keep it running.

    Everything is real but the hardware: kubectl talks to it, GPU nodes are simulated, containers are processes.
    Its state stays in the cluster's folder and is there again at the next start. Ctrl-C stops it.
    """
    from kaito.local.cluster import Options, run_up

    options = Options.of(home, port=port, node_delay=node_delay, weights=weights or [], cloud=cloud, faults=faults)
    asyncio.run(run_up(options))


def down(home: HomeOption = None) -> None:
    """Stop the cluster that `kaito up` runs in another terminal; its state is kept."""
    from kaito.local.cluster import Options, stop_running

    stop_running(Options.of(home))


def demo(
    manifest: Annotated[Path | None, typer.Option(help="Another Workspace manifest.")] = None,
    prompt: Annotated[str, typer.Option(help="What to ask.")] = "What is KAITO?",
    node_delay: DelayOption = 2.0,
    cloud: CloudOption = "local",
    faults: FaultsOption = None,
    timeout: Annotated[float, typer.Option(min=0, help="Seconds to wait until the Workspace is ready.")] = 300.0,
    tuning: Annotated[
        bool,
        typer.Option(
            "--tuning", help="Show tuning instead: train an adapter, push it, serve it, ask with and without it."
        ),
    ] = False,
) -> None:
    """Show the whole path once: cluster, operator, Workspace, GPU node, vLLM, /chat; then clean up.

    Uses a temporary folder; nothing is left behind, also after Ctrl-C.
    """
    if tuning:
        from kaito.errors import CliError
        from kaito.local.tuning_demo import run_tuning_demo

        if manifest is not None:
            step = "leave one of the two out"
            raise CliError("--manifest is for the other demonstration, and not for --tuning", step, exit_code=2)
        asyncio.run(run_tuning_demo(node_delay=node_delay, timeout=timeout, cloud=cloud, faults=faults))
        return
    from kaito.local.demo import run_demo

    asyncio.run(run_demo(manifest, prompt, node_delay=node_delay, timeout=timeout, cloud=cloud, faults=faults))
