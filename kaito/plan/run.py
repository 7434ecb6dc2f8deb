"""The command's work: read, judge, print. Here are the files and the clock that the judgement knows nothing of."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from api.sizing import Wish
from controllers.settings import DEFAULT_REGISTRY
from kaito.console import note, out
from kaito.errors import CliError
from kaito.manifests import read
from kaito.plan.judge import Around, judge
from kaito.plan.quota import quota_source
from kaito.plan.render import render, summary
from kaito.plan.verdict import Verdict, exit_code
from kaito.pricefile import prices as price_book


@dataclass(frozen=True, slots=True)
class Request:
    """What the command was asked for."""

    sources: list[str]
    output: str = "table"
    context: int | None = None
    cheapest: bool = False
    old_gpus: bool = False
    cloud: str = ""
    region: str | None = None
    spot: bool = False
    existing_nodes: bool = False
    prices: Path | None = None
    registry: str | None = None
    quota: str = ""


def run(request: Request) -> int:
    """Judge every Workspace of the sources and print the verdicts. Returns the exit code.

    Raises:
        CliError: nothing can be read, or there is no Workspace in it (exit code 2).
    """
    try:
        objects = read(request.sources)
    except CliError as error:
        raise CliError(error.message, error.next_step, exit_code=2) from error
    workspaces = [obj for obj in objects if obj["kind"] == "Workspace"]
    if not workspaces:
        kinds = ", ".join(sorted({str(obj["kind"]) for obj in objects}))
        raise CliError(f"there is no Workspace in it, only {kinds}", "kaito plan -f WORKSPACE.yaml", exit_code=2)
    around = Around(
        now=datetime.now(UTC),
        prices=price_book(request.prices),
        wish=Wish(request.cloud, request.region, request.spot, request.context, old_gpus=request.old_gpus),
        cheapest=request.cheapest,
        existing_nodes=request.existing_nodes,
        registry=request.registry or DEFAULT_REGISTRY,
        quota=quota_source(request.quota, request.region, spot=request.spot) if request.quota else None,
    )
    verdicts = [judge(obj, objects, around) for obj in workspaces]
    _print(verdicts, request.output)
    if len(objects) > len(workspaces):
        note(f"{len(objects) - len(workspaces)} other objects were read and not judged")
    return exit_code(verdicts)


def _print(verdicts: list[Verdict], output: str) -> None:
    if output in ("json", "yaml"):
        document = {
            "fits": all(verdict.fits for verdict in verdicts),
            "workspaces": [verdict.to_obj() for verdict in verdicts],
        }
        if output == "json":
            out(json.dumps(document, indent=2, ensure_ascii=False))
            return
        import yaml

        plain = json.loads(json.dumps(document))  # without anchors for what is there twice
        out(yaml.safe_dump(plain, allow_unicode=True, sort_keys=False).rstrip())
        return
    out("\n\n".join(render(verdict, wide=output == "wide") for verdict in verdicts))
    if len(verdicts) > 1:
        out()
        out(summary(verdicts))
