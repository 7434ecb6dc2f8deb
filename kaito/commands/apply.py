"""``kaito apply``: create or change objects from manifests by server-side apply, after a check on this side."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer


def apply(
    filename: Annotated[
        list[str], typer.Option("--filename", "-f", help="Manifest, folder, or - for standard input.")
    ],
    namespace: Annotated[
        str | None, typer.Option("--namespace", "-n", help="Namespace; default: the context's.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Have the server check it, change nothing.")] = False,
    kubeconfig: Annotated[Path | None, typer.Option(help="Default: $KUBECONFIG, then ~/.kube/config.")] = None,
) -> None:
    """Create or change objects.

    Nothing is sent unless every object of every file passes the checks that can be made here.
    """
    from kaito.manifests import read
    from kaito.resource_commands import apply_objects

    asyncio.run(apply_objects(read(filename), kubeconfig, namespace, dry_run=dry_run))
