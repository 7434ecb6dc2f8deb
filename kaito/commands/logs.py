"""``kaito logs``: what a Workspace's pod, or any pod, has printed."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer


def logs(
    name: Annotated[str, typer.Argument(help="A Workspace, or pod/NAME.")],
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Keep printing.")] = False,
    tail: Annotated[int | None, typer.Option(min=0, help="Only the last lines.")] = None,
    previous: Annotated[
        bool, typer.Option("--previous", "-p", help="Of the run before the last restart.")
    ] = False,
    namespace: Annotated[
        str | None, typer.Option("--namespace", "-n", help="Namespace; default: the context's.")
    ] = None,
    kubeconfig: Annotated[Path | None, typer.Option(help="Default: $KUBECONFIG, then ~/.kube/config.")] = None,
) -> None:
    """Print the logs of a Workspace's newest pod."""
    from kaito.resource_commands import print_logs

    asyncio.run(print_logs(name, kubeconfig, namespace, follow=follow, tail=tail, previous=previous))
