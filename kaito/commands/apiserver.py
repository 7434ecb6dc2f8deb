"""``kaito apiserver``: the embedded cluster's API server, with the controllers that Kubernetes has built in.

One process of ``kaito up``; it can also be started alone. Its folder holds everything it knows: objects,
certificates, tokens. Prints where it serves and the KUBECONFIG to use once it answers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

_TOKENS = 'Lines of token,user,uid,"group1,group2"; made with an administrator\'s token when absent.'


def apiserver(
    data_dir: Annotated[Path, typer.Option(help="Folder of the database, certificates and tokens.")],
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free port, and keeps it.")] = 6443,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    kubeconfig_out: Annotated[
        Path | None, typer.Option(help="Where to write a kubeconfig. [default: in the data folder]")
    ] = None,
    token_file: Annotated[Path | None, typer.Option(help=_TOKENS)] = None,
    kubelet_token_file: Annotated[
        Path | None, typer.Option(help="The bearer token to show to node agents.")
    ] = None,
    service_cidr: Annotated[str, typer.Option(help="Range of ClusterIPs.")] = "127.96.0.0/16",
    controllers: Annotated[bool, typer.Option(help="Run the built-in controllers and the scheduler too.")] = True,
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error.")] = "warning",
) -> None:
    """Serve the Kubernetes API from a folder on this machine, until Ctrl-C."""
    import asyncio
    import logging

    from kaito.errors import CliError
    from kaito.local.apiserver.process import ProcessOptions, run

    level = logging.getLevelNamesMapping().get(log_level.upper())
    if level is None:
        raise CliError(f"--log-level {log_level}: not a level", "use debug, info, warning or error", exit_code=2)
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    options = ProcessOptions(
        data_dir=data_dir.expanduser().absolute(),
        host=host,
        port=port,
        kubeconfig_out=kubeconfig_out,
        token_file=token_file,
        kubelet_token_file=kubelet_token_file,
        service_network=service_cidr,
        controllers=controllers,
    )
    asyncio.run(run(options))
