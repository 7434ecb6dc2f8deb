"""``kaito rollback``: an earlier revision of a Workspace becomes what it asks for."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from kaito.commands.history import Output

EXAMPLES = """Examples:\n
  kaito history phi\n
  kaito rollback phi --dry-run\n
  kaito rollback phi --to-revision 3"""


def rollback(
    workspace: Annotated[str, typer.Argument(help="The Workspace.")],
    to_revision: Annotated[
        int | None, typer.Option(min=1, help="A number of `kaito history`.  [default: the one before]")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Let the server check it, no more.")] = False,
    namespace: Annotated[
        str | None, typer.Option("--namespace", "-n", help="Namespace; default: the context's.")
    ] = None,
    output: Annotated[Output, typer.Option("--output", "-o", help="How to print.")] = Output.TABLE,
    kubeconfig: Annotated[Path | None, typer.Option(help="Default: $KUBECONFIG, then ~/.kube/config.")] = None,
) -> None:
    """Go back to an earlier revision of a Workspace; its pods follow as after any edit."""
    from kaito.revisions import roll_back

    asyncio.run(roll_back(workspace, to_revision, kubeconfig, namespace, str(output), dry_run=dry_run))
