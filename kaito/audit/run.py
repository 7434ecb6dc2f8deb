"""The command's work: read, judge, print, and delete if a person agrees.

In: what was asked for. Out: text, and the exit code: 0 clean, 1 findings that remain, 2 no audit could be made.
Nothing is deleted without ``--delete``, and then only after a yes.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import typer

from controllers.audit import GRACE, Audit, audit
from controllers.settings import utc_now
from kaito.audit.gather import gather
from kaito.audit.remove import remove
from kaito.audit.render import render, to_obj
from kaito.clouds import make_provider, rates
from kaito.console import note, out, step
from kaito.errors import CliError
from kaito.kube import connect
from manager.client import Client
from provisioner import CloudProvider


@dataclass(frozen=True, slots=True)
class Request:
    """What the command was asked for."""

    provider: str = "azure"
    kubeconfig: Path | None = None
    local_url: str = ""
    local_token: Path | None = None
    output: str = "table"
    grace: float = GRACE
    prices: Path | None = None
    region: str | None = None
    delete: bool = False
    yes: bool = False
    timeout: float = 1800.0


async def run(request: Request) -> int:
    """Audit once. Returns the exit code.

    Raises:
        CliError: the cloud or the cluster could not be asked, or an option cannot be used (exit code 2).
    """
    money = rates(request.prices, request.region)
    provider = make_provider(
        request.provider, url=request.local_url, token_file=request.local_token, terminal=True
    )
    try:
        async with connect(request.kubeconfig) as (client, _):
            with step("cloud and cluster compared"):
                world = await gather(provider, client)
            found = audit(world, utc_now(), money, grace=request.grace)
            removed = await _remove(request, provider, client, found) if request.delete else None
    except CliError as error:
        raise CliError(error.message, error.next_step, exit_code=2, title=error.title) from error
    finally:
        await provider.close()
    _print(request, found, removed)
    if removed is None:
        return 1 if found.findings else 0
    return 1 if removed or len(found.findings) > len(found.orphans) else 0


async def _remove(
    request: Request, provider: CloudProvider, client: Client, found: Audit
) -> dict[str, str] | None:
    """Why orphans are still there, by name, empty when all are gone; None when nothing was tried."""
    orphans = found.orphans
    if not orphans:
        return None
    note(render(found))
    if not request.yes and not _agreed(len(orphans)):
        note("nothing was deleted")
        return None
    return await remove(provider, client, orphans, grace=request.grace, timeout=request.timeout)


def _agreed(count: int) -> bool:
    if not sys.stdin.isatty():
        raise CliError(
            f"--delete would delete {count} instances, and nobody can be asked here",
            "add --yes once you have read the list",
            exit_code=2,
        )
    return typer.confirm(f"\nDelete {count} instance{'s' if count > 1 else ''} for good?", err=True)


def _print(request: Request, found: Audit, failed: dict[str, str] | None) -> None:
    if request.output == "json":
        gone = [] if failed is None else [item.name for item in found.orphans if item.name not in failed]
        document = {**to_obj(found), "deleted": gone, "notDeleted": failed or {}}
        out(json.dumps(document, indent=2, ensure_ascii=False))
        return
    if failed is None:
        out(render(found))
        return
    out(f"{len(found.orphans) - len(failed)} of {len(found.orphans)} orphaned instances were deleted.")
    for name, why in failed.items():
        out(f"{name}: {why}")
