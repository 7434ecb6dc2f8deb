"""``kaito explain``: why a Workspace is not ready, whose turn it is, and what to type next."""

from __future__ import annotations

import asyncio
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Output(StrEnum):
    """How to print."""

    TABLE = "table"
    WIDE = "wide"
    JSON = "json"


EXAMPLES = """Examples

  kaito explain phi

  kaito explain machine/ws1a2b3c4d5

  kaito explain phi -n team-a -o json | jq .blocking

The first line is the answer, the last ones are what to type. In between is what happened, from the manifest over
the machine, the cloud, the node and the pod to the engine.

Exit code: 0 ready, 1 not ready, 2 there is no such object, or the words name none.
"""


def explain(
    subject: Annotated[str, typer.Argument(help="A Workspace, or machine/NAME.")],
    namespace: Annotated[
        str | None, typer.Option("--namespace", "-n", help="Namespace; default: the context's.")
    ] = None,
    output: Annotated[
        Output, typer.Option("--output", "-o", help="wide shows every moment, json everything.")
    ] = Output.TABLE,
    kubeconfig: Annotated[Path | None, typer.Option(help="Default: $KUBECONFIG, then ~/.kube/config.")] = None,
) -> None:
    """Show how a Workspace came to where it is, what keeps it from being ready, and what to do about it.

    What blocks is decided by the operator's own functions on the same objects, so the two cannot disagree.
    """
    from kaito.explain.run import Request, run

    code = asyncio.run(run(Request(subject, namespace, str(output), kubeconfig)))
    if code:
        raise typer.Exit(code)
