"""``kaito node``: run the pods of simulated nodes as processes of this machine."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer


def node(
    state_dir: Annotated[Path, typer.Option(help="Folder of the agent: volumes, logs, instances, addresses.")],
    token_file: Annotated[Path, typer.Option(help="Bearer token of the kubelet API and the local cloud.")],
    kubeconfig: Annotated[
        Path | None, typer.Option(help="API server; default: KUBECONFIG, ~/.kube/config.")
    ] = None,
    instances_listen: Annotated[str, typer.Option(help="HOST:PORT of the local cloud's API.")] = "127.0.0.1:10260",
    kubelet_port: Annotated[int, typer.Option(help="Port of the kubelet API.")] = 10250,
    node_delay: Annotated[str, typer.Option(help="How long an instance takes to appear: 2, 2s, 1m.")] = "2s",
    weights: Annotated[list[str] | None, typer.Option(help="PRESET=FOLDER: weights on this machine.")] = None,
    images: Annotated[Path | None, typer.Option(help="A table of images to put before kaito's own.")] = None,
    client_ca: Annotated[
        Path | None, typer.Option(help="Authority whose client certificates may use the kubelet API.")
    ] = None,
    anonymous: Annotated[
        bool, typer.Option(help="Let everybody use the kubelet API. For tests: it runs commands.")
    ] = False,
    shutdown_grace: Annotated[
        float, typer.Option(help="Most seconds that containers get when the agent ends.")
    ] = 15.0,
    orphan_timeout: Annotated[
        float, typer.Option(help="Seconds after which containers end when no agent looks after them.")
    ] = 30.0,
    keep_containers: Annotated[
        bool, typer.Option(help="At SIGTERM, leave the containers to the next agent instead of stopping them.")
    ] = False,
) -> None:
    """Run the pods of simulated nodes as processes of this machine.

    Works against any API server, the embedded one or a real kube-apiserver.
    """
    from kaito.local.node.command import run_node, seconds

    host, _, port = instances_listen.rpartition(":")
    asyncio.run(
        run_node(
            kubeconfig,
            token_file,
            state=state_dir,
            kubelet_port=kubelet_port,
            instances=(host or "127.0.0.1", port),
            node_delay=seconds(node_delay),
            weights=weights or [],
            images=images,
            client_ca=client_ca,
            anonymous=anonymous,
            shutdown_grace=shutdown_grace,
            orphan_seconds=orphan_timeout,
            keep=keep_containers,
        )
    )
