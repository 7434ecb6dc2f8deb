"""What ``apply``, ``get``, ``delete`` and ``logs`` do: a client call per object, answered in the server's words.

They cover what a person without kubectl needs, and speak as kubectl does, so that what is learned here holds
there. A Workspace is validated here by the same pure function that the operator uses, before anything is sent.
"""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import dataclass
from pathlib import Path

import yaml
from api.validation import validate_create
from manager.client import Client
from manager.errors import ApiError, NotFound
from manager.resources import PODS
from manager.types import Obj, Resource

from kaito.console import note, out, table
from kaito.errors import CliError
from kaito.kube import connect, find_resource, resource_of

TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"  # Accept header for server-side tables
_KIND_ONLY = "kaito-cli/kind"  # marks a target that was named by a word, not by a manifest


@dataclass(frozen=True, slots=True)
class Query:
    """What ``get`` was asked for."""

    kind: str
    name: str | None
    namespace: str | None
    all_namespaces: bool = False
    selector: str | None = None


def target(kind: str, name: str) -> Obj:
    """A stand-in object for a kind and a name as typed."""
    return {"apiVersion": _KIND_ONLY, "kind": kind, "metadata": {"name": name}}


async def apply_objects(
    objects: list[Obj], kubeconfig: Path | None, namespace: str | None, *, dry_run: bool
) -> None:
    """Apply all objects, or none if one of them fails the checks made on this side.

    Raises:
        CliError: a check failed, or the server refused an object.
    """
    check(objects)
    async with connect(kubeconfig) as (client, default):
        for obj in objects:
            resource = await resource_of(client, obj)
            where = _placed(obj, resource, namespace or default)
            before = await _existing(client, resource, where)
            after = await client.apply(resource, where, dry_run=dry_run)
            out(f"{_display(resource, where)} {_verb(before, after)}{' (server dry run)' if dry_run else ''}")


def check(objects: list[Obj]) -> None:
    """Check what can be checked without a server.

    Raises:
        CliError: an object would be refused; all reasons are named.
    """
    problems = [line for obj in objects for line in _problems(obj)]
    if problems:
        raise CliError("\n  ".join(["nothing was changed:", *problems]), "correct the manifest and apply it again")


async def show(query: Query, output: str, kubeconfig: Path | None) -> None:
    """Print one object or a list.

    Raises:
        CliError: unknown kind, or no such object.
    """
    async with connect(kubeconfig) as (client, default):
        resource = await find_resource(client, query.kind)
        namespace = None if query.all_namespaces or not resource.namespaced else query.namespace or default
        path = resource.path(namespace, query.name)
        params = {"labelSelector": query.selector} if query.selector else None
        accept = TABLE if output in ("table", "wide") else "application/json"
        reply = await client.request("GET", path, query=params, headers={"Accept": accept})
    if output == "json":
        out(json.dumps(reply, indent=2))
    elif output == "yaml":
        out(yaml.safe_dump(reply, sort_keys=False).rstrip())
    elif output == "name":
        for item in reply.get("items", [reply]):
            out(f"{resource.plural}/{item['metadata']['name']}")
    else:
        rows = table_rows(reply, wide=output == "wide", with_namespace=query.all_namespaces)
        if len(rows) > 1:
            out(table(rows))
        else:
            note(f"No resources found{f' in {namespace} namespace' if namespace else ''}.")


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


async def delete_objects(
    objects: list[Obj], kubeconfig: Path | None, namespace: str | None, *, wait: bool, timeout: float
) -> None:
    """Delete all objects, then wait until they are gone.

    Raises:
        CliError: one of them was not there, or is still there after ``timeout`` seconds (exit code 3).
    """
    async with connect(kubeconfig) as (client, default):
        left: list[tuple[Resource, Obj]] = []
        for obj in objects:
            typed = obj["apiVersion"] == _KIND_ONLY
            resource = await (find_resource(client, obj["kind"]) if typed else resource_of(client, obj))
            where = _placed(obj, resource, namespace or default)
            await client.delete(resource, where["metadata"]["name"], where["metadata"].get("namespace"))
            out(f"{_display(resource, where)} deleted")
            left.append((resource, where))
        if not wait:
            return
        try:
            async with asyncio.timeout(timeout):
                for resource, obj in left:
                    while await _existing(client, resource, obj) is not None:
                        await asyncio.sleep(0.2)  # polls the server; there is no event for "gone" to wait on here
        except TimeoutError as error:
            raise CliError(
                f"still there after {timeout:.0f} s: {_display(resource, obj)}",
                "its finalizers say who is at work: kaito get KIND NAME -o yaml",
                exit_code=3,
            ) from error


async def print_logs(
    name: str,
    kubeconfig: Path | None,
    namespace: str | None,
    *,
    follow: bool,
    tail: int | None,
    previous: bool,
) -> None:
    """Print the log of ``pod/NAME``, or of the newest pod of the Workspace NAME.

    Raises:
        CliError: there is no such pod yet.
    """
    async with connect(kubeconfig) as (client, default):
        space = namespace or default
        pod = name.split("/", 1)[1] if name.startswith(("pod/", "pods/")) else await _newest(client, name, space)
        query = {"follow": "true" if follow else None, "previous": "true" if previous else None}
        query["tailLines"] = str(tail) if tail is not None else None
        params = {key: value for key, value in query.items() if value is not None}
        async for line in client.stream_lines(PODS.path(space, pod, "log"), query=params):
            sys.stdout.write(line.decode("utf-8", "replace") + "\n")
            if follow:
                sys.stdout.flush()


async def _newest(client: Client, workspace: str, namespace: str) -> str:
    pods = (await client.list(PODS, namespace, label_selector=f"kaito.sh/workspace={workspace}")).items
    if not pods:
        raise CliError(
            f"the Workspace '{workspace}' has no pod in namespace {namespace} yet",
            f"kaito get workspace {workspace} -o wide shows what it waits for",
        )
    pods.sort(key=lambda pod: str(pod["metadata"].get("creationTimestamp", "")))
    return str(pods[-1]["metadata"]["name"])


def _problems(obj: Obj) -> list[str]:
    if obj.get("kind") != "Workspace" or not str(obj.get("apiVersion", "")).startswith("kaito.sh/"):
        return []
    name = (obj.get("metadata") or {}).get("name", "?")
    return [f"{name}: {v.path}: {v.message}{f' ({v.hint})' if v.hint else ''}" for v in validate_create(obj)]


def _placed(obj: Obj, resource: Resource, namespace: str) -> Obj:
    metadata = dict(obj.get("metadata") or {})
    if not metadata.get("name"):
        raise CliError(f"a {obj.get('kind')} has no metadata.name", "give it one")
    if resource.namespaced:
        metadata.setdefault("namespace", namespace)
    return {**obj, "metadata": metadata}


async def _existing(client: Client, resource: Resource, obj: Obj) -> Obj | None:
    try:
        return await client.get(resource, obj["metadata"]["name"], obj["metadata"].get("namespace"))
    except NotFound:
        return None
    except ApiError as error:
        raise CliError(error.message) from error


def _verb(before: Obj | None, after: Obj) -> str:
    if before is None:
        return "created"
    same = before["metadata"].get("resourceVersion") == after["metadata"].get("resourceVersion")
    return "unchanged" if same else "configured"


def _display(resource: Resource, obj: Obj) -> str:
    kind = resource.kind.lower() + (f".{resource.group}" if resource.group else "")
    return f"{kind}/{obj['metadata']['name']}"


def _cell(value: object) -> str:
    if value is None:
        return "<none>"
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)
