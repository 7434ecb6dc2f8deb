"""``kaito chat``: ask a Workspace a question, as the seed's curl does."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer


def chat(
    workspace: Annotated[str, typer.Argument(help="The Workspace to ask.")],
    prompt: Annotated[str, typer.Argument(help="The question.")],
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Most tokens of the answer.")] = None,
    namespace: Annotated[
        str | None, typer.Option("--namespace", "-n", help="Namespace; default: the context's.")
    ] = None,
    kubeconfig: Annotated[Path | None, typer.Option(help="Default: $KUBECONFIG, then ~/.kube/config.")] = None,
) -> None:
    """Ask a Workspace a question through its Service's /chat.

    The Service's address must be reachable from here: it is on a local cluster (`kaito up`), and inside a
    remote one. Elsewhere use kubectl port-forward and curl.
    """
    from kaito.chat import ask_workspace
    from kaito.console import out

    out(asyncio.run(ask_workspace(workspace, prompt, kubeconfig, namespace, max_tokens=max_tokens)))
