"""The command's work: find the subject, read, explain, print."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from kaito.console import out
from kaito.errors import CliError
from kaito.explain.chain import Chain, explain_workspace
from kaito.explain.collect import see_machine, see_workspace
from kaito.explain.machine import explain_machine
from kaito.explain.render import render
from kaito.kube import connect, find_resource
from manager.client import Client
from manager.errors import NotFound

_WORKSPACE_WORDS = ("workspace", "workspaces", "wk", "wks")


@dataclass(frozen=True, slots=True)
class Request:
    """What the command was asked for."""

    subject: str
    namespace: str | None = None
    output: str = "table"
    kubeconfig: Path | None = None


async def run(request: Request) -> int:
    """Explain the subject and print it. Returns the exit code: 0 ready, 1 not.

    Raises:
        CliError: there is no such subject, or the words name none (exit code 2).
    """
    async with connect(request.kubeconfig) as (client, default):
        chain = await explain(client, request.subject, request.namespace or default)
    if request.output == "json":
        out(json.dumps(chain.to_obj(), indent=2, ensure_ascii=False))
    else:
        out(render(chain, wide=request.output == "wide"))
    return chain.exit_code


async def explain(client: Client, subject: str, namespace: str) -> Chain:
    """The chain of ``NAME`` (a Workspace), ``workspace/NAME`` or ``machine/NAME``.

    Raises:
        CliError: there is no such object (exit code 2).
    """
    kind, slash, name = subject.rpartition("/")
    if (slash and not kind) or not name or "/" in kind:
        raise CliError(f"'{subject}' is not NAME or KIND/NAME", "kaito explain WORKSPACE", exit_code=2)
    now = datetime.now(UTC)
    try:
        if not kind or kind.lower().partition(".")[0] in _WORKSPACE_WORDS:
            seen = await see_workspace(client, name, namespace)
            return explain_workspace(seen.obs, seen.events, now, seen.notes)
        resource = await find_resource(client, kind)
        if resource.kind not in ("Machine", "NodeClaim"):
            raise CliError(
                f"kaito explain knows workspaces and machines, not {resource.plural}",
                f"kubectl describe {kind} {name}",
                exit_code=2,
            )
        found = await see_machine(client, resource, name)
        return explain_machine(found.machine, found.nodes, found.events, now, found.notes)
    except NotFound as error:
        what = kind or "workspace"
        where = f" in namespace {namespace}" if what in _WORKSPACE_WORDS else ""
        space = f" -n {namespace}" if where else ""
        raise CliError(
            f"there is no {what} '{name}'{where}",
            f"kaito get {what}{space} lists those that exist",
            exit_code=2,
        ) from error
