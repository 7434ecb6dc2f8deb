"""``kaito get``: the server's own tables, or the objects as JSON, YAML or names; once, or as they change.

In: a query as typed. Out: on standard output, what kubectl prints for it. The server makes the columns and their
cells; a watch asks for the row of every object that changed, so that both always come from the same place.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from pathlib import Path

from kaito.console import column_widths, note, out, table
from kaito.endpoint import curls
from kaito.errors import CliError
from kaito.kube import WORKSPACES, connect, display, find_resource
from manager.client import Client
from manager.errors import ConnectionFailed, Gone, NotFound
from manager.resources import SERVICES
from manager.types import Obj, Resource

TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"  # Accept header for server-side tables
_AGAIN = 1.0  # seconds before a watch that broke is opened again


@dataclass(frozen=True, slots=True)
class Query:
    """What ``get`` was asked for."""

    kind: str
    name: str | None
    namespace: str | None
    all_namespaces: bool = False
    selector: str | None = None

    def checked(self) -> Query:
        """The query with ``KIND/NAME`` taken apart.

        Raises:
            CliError: its parts contradict each other (exit code 2).
        """
        kind, slash, typed = self.kind.partition("/")
        if slash and (self.name or not typed):
            raise CliError(f"'{self.kind}' is not KIND/NAME", "kaito get workspace NAME", exit_code=2)
        name = typed if slash else self.name
        if "," in kind:
            raise CliError("kaito get shows one kind at a time", f"kaito get {kind.split(',')[0]}", exit_code=2)
        if name is not None and ("/" in name or not name or name in (".", "..")):
            raise CliError(f"'{name}' is not a name", "kaito get KIND lists the names", exit_code=2)
        if name and self.all_namespaces:
            raise CliError("a resource cannot be retrieved by name across all namespaces", "use -n", exit_code=2)
        if name and self.selector:
            raise CliError("a name cannot be given together with a selector", "leave one out", exit_code=2)
        return Query(kind, name, self.namespace, self.all_namespaces, self.selector)


async def show(query: Query, output: str, kubeconfig: Path | None, *, watch: bool = False) -> None:
    """Print one object or a list; with ``watch``, then a row for every change, until interrupted.

    Raises:
        CliError: unknown kind, no such object, or a watch that is not of a table (exit code 2).
    """
    query = query.checked()
    if watch and output not in ("table", "wide"):
        raise CliError(f"--watch shows tables only, not {output}", "leave -o out", exit_code=2)
    async with connect(kubeconfig) as (client, default):
        resource = await find_resource(client, query.kind)
        namespace = None if query.all_namespaces or not resource.namespaced else query.namespace or default
        if watch:
            await _watch(client, resource, namespace, query, wide=output == "wide")
            return
        reply = await _fetch(client, resource, namespace, query, as_table=output in ("table", "wide"))
        hints = await _hints(client, resource, namespace, query) if output in ("table", "wide") else []
    if output == "json":
        out(json.dumps(_plain(resource, reply), indent=4, ensure_ascii=False, sort_keys=True))
    elif output == "yaml":
        import yaml

        out(yaml.safe_dump(_plain(resource, reply), allow_unicode=True).rstrip())
    elif output == "name":
        for item in reply["items"] if _is_list(reply) else [reply]:
            out(display(resource, item["metadata"]["name"]))
    else:
        rows = table_rows(reply, wide=output == "wide", with_namespace=_named_spaces(resource, query))
        if len(rows) > 1:
            out(table(rows))
            for hint in hints:
                note(hint)
        else:
            note(f"No resources found{f' in {namespace} namespace' if namespace else ''}")


async def _hints(client: Client, resource: Resource, namespace: str | None, query: Query) -> list[str]:
    """Of one Workspace: how to call it, or how to find out why it cannot be called yet."""
    if resource.kind != WORKSPACES.kind or resource.group != WORKSPACES.group or not query.name:
        return []
    obj, service = await asyncio.gather(
        client.get(WORKSPACES, query.name, namespace),
        client.get(SERVICES, query.name, namespace),
        return_exceptions=True,
    )
    if isinstance(obj, BaseException):
        return []
    conditions = (obj.get("status") or {}).get("conditions") or []
    if not any(item.get("type") == "WorkspaceReady" and item.get("status") == "True" for item in conditions):
        space = f" -n {query.namespace}" if query.namespace else ""
        return [f"why: kaito explain {query.name}{space}"]
    return [f"call: {line}" for line in curls(service, "")] if not isinstance(service, BaseException) else []


def table_rows(reply: Obj, *, wide: bool, with_namespace: bool) -> list[list[str]]:
    """Header and cells of a server-side Table."""
    columns = reply.get("columnDefinitions", [])
    shown = [i for i, c in enumerate(columns) if wide or not c.get("priority")]
    rows = [[columns[i]["name"].upper() for i in shown]]
    rows += [[_cell(row["cells"][i]) for i in shown] for row in reply.get("rows") or []]
    if with_namespace:
        names = [r["object"]["metadata"].get("namespace", "") for r in reply.get("rows") or []]
        rows = [[first, *rest] for first, rest in zip(["NAMESPACE", *names], rows, strict=True)]
    return rows


async def _fetch(
    client: Client, resource: Resource, namespace: str | None, query: Query, *, as_table: bool
) -> Obj:
    return await client.request(
        "GET",
        resource.path(namespace, query.name),
        query={"labelSelector": query.selector},
        headers={"Accept": TABLE if as_table else "application/json"},
    )


async def _watch(client: Client, resource: Resource, namespace: str | None, query: Query, *, wide: bool) -> None:
    """The table, then a row whenever an object's row may have changed; a lost watch lists again."""
    with_namespace = _named_spaces(resource, query)
    printed: dict[tuple[str, str], list[str]] = {}
    widths: list[int] = []

    def show_rows(reply: Obj) -> None:
        nonlocal widths
        header, *rows = table_rows(reply, wide=wide, with_namespace=with_namespace)
        keys = [_key(row["object"]) for row in reply.get("rows") or []]
        fresh = [(key, row) for key, row in zip(keys, rows, strict=True) if printed.get(key) != row]
        lines = [row for _, row in fresh]
        if lines and not widths:
            lines.insert(0, header)
        if lines:
            widths = column_widths(lines, widths or None)
            out(table(lines, widths))
        printed.update(fresh)

    while True:
        reply = await _fetch(client, resource, namespace, query, as_table=True)
        show_rows(reply)
        try:
            async for event in client.watch(
                resource,
                namespace,
                resource_version=str(reply["metadata"].get("resourceVersion", "")),
                label_selector=query.selector,
                field_selector=f"metadata.name={query.name}" if query.name else None,
            ):
                if event.type == "BOOKMARK":
                    continue
                key = _key(event.object)
                if event.type == "DELETED":
                    if last := printed.pop(key, None):
                        out(table([last], widths))
                    continue
                try:
                    path = resource.path(key[0] or None, key[1])
                    show_rows(await client.request("GET", path, headers={"Accept": TABLE}))
                except NotFound:
                    pass  # it went in the meantime; the watch says so next
        except (Gone, ConnectionFailed):
            # The history was too short or the connection broke: list again, which also finds out a dead server.
            await asyncio.sleep(_AGAIN)


def _key(obj: Obj) -> tuple[str, str]:
    return obj["metadata"].get("namespace", ""), obj["metadata"]["name"]


def _named_spaces(resource: Resource, query: Query) -> bool:
    return query.all_namespaces and resource.namespaced


def _is_list(reply: Obj) -> bool:
    return str(reply.get("kind", "")).endswith("List") and isinstance(reply.get("items"), list)


def _plain(resource: Resource, reply: Obj) -> Obj:
    """An answer as kubectl prints it: any list is a ``List`` of complete objects; managedFields are left out."""
    if not _is_list(reply):
        return _without_managers(reply)
    typed = {"apiVersion": resource.api_version, "kind": resource.kind}
    items = [_without_managers({**typed, **item}) for item in reply["items"]]
    return {"apiVersion": "v1", "items": items, "kind": "List", "metadata": {"resourceVersion": ""}}


def _without_managers(obj: Obj) -> Obj:
    return {**obj, "metadata": {k: v for k, v in obj.get("metadata", {}).items() if k != "managedFields"}}


def _cell(value: object) -> str:
    if value is None:
        return "<none>"
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value).replace("\n", "\\n")
