"""The history of a Workspace, and the way back: what ``kaito history`` and ``kaito rollback`` do.

In: a Workspace and its ControllerRevisions, which the operator writes. Out: a table or JSON; or a merge patch of
the Workspace, which the operator then follows like any other edit. Nothing is decided about pods here. What may
not change is refused in the words of the admission rules, before anything is sent; a Workspace that somebody else
changes in the meantime is not overwritten.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from api import keys
from api.validation import judge_for_any, shortened
from controllers.workspace.children import Whose, whose
from controllers.workspace.owned import digest
from controllers.workspace.revisions import HALVES, content, number
from kaito.console import note, out, table
from kaito.errors import CliError
from kaito.kube import WORKSPACES, connect, display, refusal
from kaito.local.apiserver.tables.durations import since
from manager.client import Client
from manager.errors import ApiError, Conflict, NotFound
from manager.patches import merge_patch
from manager.resources import CONTROLLERREVISIONS, DEPLOYMENTS, STATEFULSETS
from manager.types import Obj

_LONGEST = 60  # characters of a value in a table or a line


@dataclass(frozen=True, slots=True)
class Entry:
    """One revision. ``current``: it is what the Workspace asks for; ``running``: its pods were made for it.

    Revisions between the two changed data only (adapters), which the pods follow without being made anew.
    """

    number: int
    mark: str
    created: str
    data: Obj
    current: bool
    running: bool


@dataclass(frozen=True, slots=True)
class Change:
    """One field that differs; None stands for absence."""

    path: str
    before: Any
    after: Any

    def __str__(self) -> str:
        return f"{self.path}: {_short(self.before)} → {_short(self.after)}"


async def show_history(name: str, kubeconfig: Path | None, namespace: str | None, output: str) -> None:
    """Print the revisions of a Workspace, the oldest first."""
    async with connect(kubeconfig) as (client, default):
        _, entries = await load(client, namespace or default, name)
    if output == "json":
        before: list[Obj] = [{}, *(entry.data for entry in entries)]
        out(json.dumps([_entry_json(entry, old) for entry, old in zip(entries, before, strict=False)], indent=2))
        return
    if not entries:
        note(f"workspace {name} has no revision yet: the first is written when its workload is made")
        return
    rows, now = [["REVISION", "AGE", "HASH", "STATE", "CHANGED"]], datetime.now(UTC)
    old: Obj = entries[0].data
    for entry in entries:
        state = [word for word, holds in (("wanted", entry.current), ("pods", entry.running)) if holds]
        changed = ", ".join(change.path for change in changes(old, entry.data))
        rows.append([str(entry.number), since(entry.created, now), entry.mark[:10], "+".join(state), changed])
        old = entry.data
    out(table(rows))


async def roll_back(
    name: str, to: int | None, kubeconfig: Path | None, namespace: str | None, output: str, *, dry_run: bool
) -> None:
    """Make an earlier revision the Workspace's specification again.

    Raises:
        CliError: there is no such revision, or it differs in a field that may not change.
    """
    async with connect(kubeconfig) as (client, default):
        space = namespace or default
        workspace, entries = await load(client, space, name)
        current = next((entry for entry in entries if entry.current), None)
        chosen = choose(entries, to, name)
        found = changes(content(workspace), chosen.data)
        refuse_immutable(workspace, with_halves(workspace, chosen.data), chosen.number)
        if found:
            await _write(client, workspace, chosen.data, dry_run=dry_run)
    if output == "json":
        report = {
            "workspace": name,
            "namespace": space,
            "fromRevision": current.number if current else None,
            "toRevision": chosen.number,
            "dryRun": dry_run,
            "changes": [{"path": item.path, "before": item.before, "after": item.after} for item in found],
        }
        out(json.dumps(report, indent=2))
        return
    how = " (dry run)" if dry_run else ""
    if not found:
        out(f"{display(WORKSPACES, name)} is at revision {chosen.number} already{how}")
        return
    out(f"{display(WORKSPACES, name)} rolled back to revision {chosen.number}{how}")
    for item in found:
        out(f"  {item}")
    if not dry_run:
        note(f"  next: kaito get workspace {name} -n {space} -w shows how its pods follow")


async def _write(client: Client, workspace: Obj, data: Obj, *, dry_run: bool) -> None:
    """Send the difference. The operator's reports on the Workspace may come in between, another edit may not."""
    meta = workspace["metadata"]
    seen = workspace
    while seen["metadata"].get("generation") == meta.get("generation"):
        patch = merge_patch(seen, with_halves(seen, data), optimistic_lock=True)
        try:
            await client.patch(WORKSPACES, meta["name"], patch, namespace=meta["namespace"], dry_run=dry_run)
            return
        except Conflict:
            seen = await client.get(WORKSPACES, meta["name"], meta["namespace"])
        except ApiError as error:
            raise refusal(error) from error
    raise CliError(f"workspace {meta['name']} was edited while it was looked at", "run the command again")


async def load(client: Client, namespace: str, name: str) -> tuple[Obj, list[Entry]]:
    """A Workspace and its revisions, the oldest first.

    Raises:
        CliError: there is no such Workspace.
    """
    try:
        workspace = await client.get(WORKSPACES, name, namespace)
    except NotFound as error:
        raise refusal(error) from error
    # A StatefulSet's own revisions bear the same label: the owner tells them apart.
    selector = f"{keys.WORKSPACE_LABEL}={name}"
    stored = (await client.list(CONTROLLERREVISIONS, namespace, label_selector=selector)).items
    uid, mark = workspace["metadata"]["uid"], digest(content(workspace))
    running = await _running(client, namespace, name, uid)
    entries = [
        Entry(
            number=number(item),
            mark=(found := str((item["metadata"].get("annotations") or {}).get(keys.WORKSPACE_HASH) or "")),
            created=str(item["metadata"].get("creationTimestamp") or ""),
            data=item.get("data") or {},
            current=found == mark,
            running=number(item) == running,
        )
        for item in stored
        if whose(name, uid, item) is Whose.OURS
    ]
    return workspace, sorted(entries, key=lambda entry: entry.number)


async def _running(client: Client, namespace: str, name: str, uid: str) -> int | None:
    for resource in (STATEFULSETS, DEPLOYMENTS):
        try:
            workload = await client.get(resource, name, namespace)
        except NotFound:
            continue
        text = (workload["metadata"].get("annotations") or {}).get(keys.WORKSPACE_REVISION, "")
        if whose(name, uid, workload) is Whose.OURS and text.isdecimal():
            return int(text)
    return None


def choose(entries: list[Entry], to: int | None, name: str) -> Entry:
    """The revision asked for, else the one before the current.

    Raises:
        CliError: there is none.
    """
    current = next((entry for entry in entries if entry.current), None)
    if to is not None:
        chosen = next((entry for entry in entries if entry.number == to), None)
        if chosen is None:
            have = ", ".join(str(entry.number) for entry in entries) or "none"
            raise CliError(f"workspace {name} has no revision {to}", f"it has {have}: kaito history {name}")
        return chosen
    earlier = [
        entry for entry in entries if not entry.current and (current is None or entry.number < current.number)
    ]
    if not earlier:
        raise CliError(
            f"workspace {name} has no earlier revision to go back to", f"kaito history {name} shows all"
        )
    return earlier[-1]


def refuse_immutable(before: Obj, after: Obj, chosen: int) -> None:
    """Raises ``CliError`` where going back would change what may not change."""
    found = [str(item) for item in shortened(judge_for_any(after, before).violations)]
    if found:
        raise CliError(
            f"revision {chosen} cannot be gone back to: " + "; ".join(found),
            "a workspace keeps these fields for its life; make another one from that revision",
        )


def with_halves(workspace: Obj, data: Obj) -> Obj:
    """The Workspace with the parts that a revision holds."""
    rest = {key: value for key, value in workspace.items() if key not in HALVES}
    return {**rest, **{half: data[half] for half in HALVES if data.get(half) is not None}}


def changes(before: Any, after: Any, path: str = "") -> list[Change]:
    """The fields that differ, each named once at the deepest mapping that both have."""
    if isinstance(before, dict) and isinstance(after, dict):
        found: list[Change] = []
        for key in sorted({*before, *after}):
            deeper = f"{path}.{key}" if path else str(key)
            found += changes(before.get(key), after.get(key), deeper)
        return found
    return [] if before == after else [Change(path, before, after)]


def _entry_json(entry: Entry, before: Obj) -> Obj:
    return {
        "revision": entry.number,
        "hash": entry.mark,
        "created": entry.created,
        "wanted": entry.current,
        "running": entry.running,
        "changed": [change.path for change in changes(before, entry.data)] if before else [],
        "data": entry.data,
    }


def _short(value: Any) -> str:
    text = "absent" if value is None else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
