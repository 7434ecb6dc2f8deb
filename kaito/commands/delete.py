"""``kaito delete``: delete objects by name or by manifest and wait until they are gone."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer


def delete(
    kind: Annotated[str | None, typer.Argument(help="Kind, plural or short name; or KIND/NAME.")] = None,
    name: Annotated[str | None, typer.Argument(help="The object.")] = None,
    filename: Annotated[list[str] | None, typer.Option("--filename", "-f", help="Manifest instead.")] = None,
    namespace: Annotated[
        str | None, typer.Option("--namespace", "-n", help="Namespace; default: the context's.")
    ] = None,
    wait: Annotated[bool, typer.Option(help="Wait until the objects are gone.")] = True,
    timeout: Annotated[float, typer.Option(min=0, help="Seconds to wait.")] = 120.0,
    kubeconfig: Annotated[Path | None, typer.Option(help="Default: $KUBECONFIG, then ~/.kube/config.")] = None,
) -> None:
    """Delete objects."""
    from kaito.errors import CliError
    from kaito.manifests import read
    from kaito.resource_commands import delete_named, delete_objects

    if filename and (kind or name):
        raise CliError("give either -f or a kind and a name, not both", "kaito delete --help", exit_code=2)
    if filename:
        asyncio.run(delete_objects(read(filename), kubeconfig, namespace, wait=wait, timeout=timeout))
        return
    if kind and "/" in kind and not name:
        kind, _, name = kind.partition("/")
    if not kind or not name:
        raise CliError("nothing to delete", "kaito delete workspace NAME, or kaito delete -f FILE", exit_code=2)
    asyncio.run(delete_named(kind, name, kubeconfig, namespace, wait=wait, timeout=timeout))
