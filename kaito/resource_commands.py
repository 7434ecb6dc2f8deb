"""What ``apply``, ``delete`` and ``logs`` do: a client call per object, answered in the server's words.

They cover what a person without kubectl needs, and speak as kubectl does, so that what is learned here holds
there. A Workspace is validated here by the same pure function that the operator uses, and the server is asked to
refuse before it is asked to do: a mistake in one of ten objects leaves all ten as they were.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from api.validation import Verdict, World, judge_for_any, shortened
from kaito.console import out
from kaito.errors import CliError
from kaito.kube import WORKSPACES, connect, display, find_resource, refusal, resource_of, translated, warn
from manager.client import Client, PatchType
from manager.errors import ApiError, NotFound
from manager.resources import PODS
from manager.types import Obj, Resource

_UNCHANGED = "correct the manifest and apply it again; nothing was changed"


@dataclass(frozen=True, slots=True)
class Target:
    """One object that a command is about, and where it lives."""

    resource: Resource
    obj: Obj

    @property
    def name(self) -> str:
        """Its name."""
        return str(self.obj["metadata"]["name"])

    @property
    def namespace(self) -> str | None:
        """Its namespace; None if it is cluster-scoped."""
        found = self.obj["metadata"].get("namespace")
        return str(found) if found and self.resource.namespaced else None

    def __str__(self) -> str:
        return display(self.resource, self.name)


async def apply_objects(
    objects: list[Obj], kubeconfig: Path | None, namespace: str | None, *, dry_run: bool
) -> None:
    """Apply all objects, or none if one of them is wrong.

    Raises:
        CliError: a check failed here or on the server, or an object changed hands in between.
    """
    check(objects)
    async with connect(kubeconfig) as (client, default):
        await _rehearse(client, objects, namespace, default)
        for obj in objects:
            target = placed(obj, await resource_of(client, obj), namespace, default)
            before = await _existing(client, target)
            after = await _apply(client, target, dry_run=dry_run)
            out(f"{target} {_verb(before, after)}{' (server dry run)' if dry_run else ''}")


def check(objects: Iterable[Obj]) -> None:
    """Check what can be checked without a server, and say what is worth saying.

    The rules are the webhook's in their most lenient form: how the operator at hand was started is not known.

    Raises:
        CliError: an object would be refused; all reasons are named.
    """
    given = list(objects)
    maps = {str(obj["metadata"]["name"]): obj for obj in given if obj["kind"] == "ConfigMap"}
    workspaces = [obj for obj in given if is_workspace(obj)]
    verdicts = [(obj, judge_for_any(obj, world=World(config_maps=maps))) for obj in workspaces]
    problems = [line for obj, verdict in verdicts for line in _lines(obj, verdict)]
    if problems:
        raise CliError("\n  ".join(_headed(problems)), _UNCHANGED)
    for _, verdict in verdicts:
        for text in verdict.warnings:
            warn(text)


async def delete_objects(
    objects: list[Obj], kubeconfig: Path | None, namespace: str | None, *, wait: bool, timeout: float
) -> None:
    """Delete all objects that are there, then wait until they are gone.

    Raises:
        CliError: one of them was not there, or is still there after ``timeout`` seconds (exit code 3).
    """
    async with connect(kubeconfig) as (client, default):
        targets = [placed(obj, await resource_of(client, obj), namespace, default) for obj in objects]
        await _delete(client, targets, wait=wait, timeout=timeout)


async def delete_named(
    kind: str, name: str, kubeconfig: Path | None, namespace: str | None, *, wait: bool, timeout: float
) -> None:
    """Delete one object by a kind as typed and a name. Raises as :func:`delete_objects`."""
    async with connect(kubeconfig) as (client, default):
        resource = await find_resource(client, kind)
        target = placed({"kind": kind, "metadata": {"name": name}}, resource, namespace, default)
        await _delete(client, [target], wait=wait, timeout=timeout)


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
        kind, slash, rest = name.partition("/")
        if slash and kind not in ("pod", "pods", "po", "workspace", "workspaces", "wk"):
            raise CliError(f"'{name}' is neither a Workspace nor pod/NAME", "kaito logs WORKSPACE", exit_code=2)
        of_pod = slash and kind.startswith("po")
        pod = rest if of_pod else await _newest(client, rest if slash else name, space)
        query = {"follow": follow or None, "previous": previous or None, "tailLines": tail}
        async for line in client.stream_lines(PODS.path(space, pod, "log"), query=query):
            sys.stdout.write(line.decode("utf-8", "replace") + "\n")
            if follow:
                sys.stdout.flush()


def placed(obj: Obj, resource: Resource, namespace: str | None, default: str) -> Target:
    """The object with its namespace: the manifest's own, else the one asked for, else the context's.

    Raises:
        CliError: the manifest names another namespace than the one asked for (exit code 2).
    """
    metadata = dict(obj["metadata"])
    if not resource.namespaced:
        metadata.pop("namespace", None)
    else:
        own = metadata.get("namespace")
        if own and namespace and own != namespace:
            raise CliError(
                f'the namespace "{own}" of {obj["kind"]} {metadata["name"]} is not the namespace "{namespace}"',
                f"leave -n out, or use -n {own}",
                exit_code=2,
            )
        metadata["namespace"] = own or namespace or default
    return Target(resource, {**obj, "metadata": metadata})


async def _rehearse(client: Client, objects: list[Obj], namespace: str | None, default: str) -> None:
    """Have the server check every object, changing nothing.

    An object that needs another one of the same batch, a new namespace or a new kind, cannot be checked before.
    """
    brings_kinds = any(obj["kind"] == "CustomResourceDefinition" for obj in objects)
    new_spaces = {obj["metadata"]["name"] for obj in objects if obj["kind"] == "Namespace"}
    problems: list[CliError] = []
    seen: set[tuple[Resource, str | None, str]] = set()
    for obj in objects:
        try:
            target = placed(obj, await resource_of(client, obj), namespace, default)
            await _rehearse_one(client, target, seen)
        except CliError as error:
            if error.exit_code != 1 or not brings_kinds:
                problems.append(error)
        except NotFound as error:
            if (obj["metadata"].get("namespace") or namespace) not in new_spaces:
                problems.append(refusal(error))
        except ApiError as error:
            problems.append(refusal(error))
    if len(problems) == 1:
        found = problems[0]
        hint = found.next_step or _UNCHANGED
        raise CliError(found.message, hint, exit_code=found.exit_code, title=found.title)
    if problems:
        raise CliError("\n  ".join(_headed([problem.message for problem in problems])), _UNCHANGED)


async def _rehearse_one(client: Client, target: Target, seen: set[tuple[Resource, str | None, str]]) -> None:
    key = (target.resource, target.namespace, target.name)
    if key in seen:
        raise CliError(
            f"two of the objects are {target}: the second would change the first",
            "apply them one at a time, or each in a namespace of its own with -n",
        )
    seen.add(key)
    before = await _existing(client, target)
    after = await _apply(client, target, dry_run=True)
    # Apply leaves what the manifest does not mention, so the rules are held against both together.
    if before is not None and is_workspace(target.obj):
        wrong = _lines(after, judge_for_any(after, before))
        if wrong:
            raise CliError("\n  ".join(_headed(wrong)), _UNCHANGED)


async def _apply(client: Client, target: Target, *, dry_run: bool) -> Obj:
    """Server-side apply that refuses unknown fields, where the server can (1.25 and newer)."""
    return await client.request(
        "PATCH",
        target.resource.path(target.namespace, target.name),
        query={
            "fieldManager": client.field_manager,
            "force": True,
            "fieldValidation": "Strict",
            "dryRun": "All" if dry_run else None,
        },
        body=target.obj,
        headers={"Content-Type": PatchType.APPLY.value},
    )


async def _delete(client: Client, targets: list[Target], *, wait: bool, timeout: float) -> None:
    missing: list[CliError] = []
    left: list[tuple[Target, str]] = []
    for target in targets:
        found = await _existing(client, target)
        try:
            # Background as kubectl: the default of some kinds would leave their pods behind.
            await client.delete(target.resource, target.name, target.namespace, propagation="Background")
        except NotFound as error:
            missing.append(refusal(error))
            continue
        out(f"{target} deleted")
        left.append((target, str((found or target.obj)["metadata"].get("uid", ""))))
    if wait:
        await _until_gone(client, left, timeout)
    if missing:
        raise missing[0]


async def _until_gone(client: Client, left: list[tuple[Target, str]], timeout: float) -> None:
    for target, uid in left:
        try:
            async with asyncio.timeout(timeout):
                # Polls: a watch could begin after the object had gone. Another uid is another object.
                while (found := await _existing(client, target)) and found["metadata"].get("uid") == uid:
                    await asyncio.sleep(0.2)
        except TimeoutError as error:
            space = f" -n {target.namespace}" if target.namespace else ""
            raise CliError(
                f"{target} is still there after {timeout:.0f} s",
                f"its finalizers say who is at work: kaito get {target}{space} -o yaml",
                exit_code=3,
            ) from error


async def _newest(client: Client, workspace: str, namespace: str) -> str:
    pods = (await client.list(PODS, namespace, label_selector=f"kaito.sh/workspace={workspace}")).items
    if not pods:
        with translated():
            await client.get(
                WORKSPACES, workspace, namespace
            )  # a Workspace that is not there is the better answer
        raise CliError(
            f"the Workspace '{workspace}' has no pod in namespace {namespace} yet",
            f"kaito get workspace {workspace} -n {namespace} -o wide shows what it waits for",
        )
    pods.sort(key=lambda pod: str(pod["metadata"].get("creationTimestamp", "")))
    return str(pods[-1]["metadata"]["name"])


def is_workspace(obj: Obj) -> bool:
    """Whether the rules of ``api.validation`` are about this object."""
    return obj["kind"] == "Workspace" and str(obj["apiVersion"]).startswith("kaito.sh/")


def _lines(obj: Obj, verdict: Verdict) -> list[str]:
    return [f"{obj['metadata']['name']}: {violation}" for violation in shortened(verdict.violations)]


def _headed(problems: list[str]) -> list[str]:
    return problems if len(problems) == 1 else [f"{len(problems)} mistakes:", *problems]


async def _existing(client: Client, target: Target) -> Obj | None:
    try:
        return await client.get(target.resource, target.name, target.namespace)
    except NotFound:
        return None


def _verb(before: Obj | None, after: Obj) -> str:
    if before is None:
        return "created"
    same = before["metadata"].get("resourceVersion") == after["metadata"].get("resourceVersion")
    return "unchanged" if same else "configured"
