"""``kaito get``: the server's own tables, or the objects as JSON or YAML."""

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
    YAML = "yaml"
    NAME = "name"


def get(
    kind: Annotated[
        str, typer.Argument(help="Kind, plural or short name: workspace, wk, pods, svc, machines ...")
    ],
    name: Annotated[str | None, typer.Argument(help="One object; default: all.")] = None,
    namespace: Annotated[
        str | None, typer.Option("--namespace", "-n", help="Namespace; default: the context's.")
    ] = None,
    all_namespaces: Annotated[bool, typer.Option("--all-namespaces", "-A", help="All namespaces.")] = False,
    selector: Annotated[
        str | None, typer.Option("--selector", "-l", help="Label selector, as in a=b,c!=d.")
    ] = None,
    output: Annotated[Output, typer.Option("--output", "-o", help="How to print.")] = Output.TABLE,
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Then a row for every change, until Ctrl-C.")
    ] = False,
    kubeconfig: Annotated[Path | None, typer.Option(help="Default: $KUBECONFIG, then ~/.kube/config.")] = None,
) -> None:
    """Show objects, with the columns that the server gives them."""
    from kaito.tables import Query, show

    query = Query(kind, name, namespace, all_namespaces=all_namespaces, selector=selector)
    asyncio.run(show(query, str(output), kubeconfig, watch=watch))
