"""``kaito history``: what a Workspace has asked for, revision by revision."""

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


def history(
    workspace: Annotated[str, typer.Argument(help="The Workspace.")],
    namespace: Annotated[
        str | None, typer.Option("--namespace", "-n", help="Namespace; default: the context's.")
    ] = None,
    output: Annotated[
        Output, typer.Option("--output", "-o", help="json adds each revision's content.")
    ] = Output.TABLE,
    kubeconfig: Annotated[Path | None, typer.Option(help="Default: $KUBECONFIG, then ~/.kube/config.")] = None,
) -> None:
    """List a Workspace's revisions: what changed, what is wanted now, and what its pods were made for."""
    from kaito.revisions import show_history

    asyncio.run(show_history(workspace, kubeconfig, namespace, str(output)))
