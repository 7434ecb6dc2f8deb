"""``kaito registry``: a small OCI registry on this machine; one process of ``kaito up``, and of use alone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def registry(
    data_dir: Annotated[Path, typer.Option(help="Folder of everything that is pushed.")],
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free port.")] = 5001,
    credentials: Annotated[
        Path | None, typer.Option(help="File of lines user:password; without it everybody may push and pull.")
    ] = None,
) -> None:
    """Serve a small OCI registry from a folder on this machine, until Ctrl-C.

    docker, skopeo and oras can push to it and pull from it (plain http: skopeo needs --dest-tls-verify=false).
    """
    import asyncio

    from kaito.local.registry.process import read_credentials, run

    known = read_credentials(credentials) if credentials else None
    asyncio.run(run(data_dir.expanduser().absolute(), host, port, known))
