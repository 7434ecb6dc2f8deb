"""How the commands speak to a cluster: the connection, and names of kinds as people type them.

In: a kubeconfig and words such as ``wk``, ``workspaces`` or ``deploy.apps``. Out: an open ``Client`` and the
``Resource`` meant, looked up in the server's own discovery, so that custom resources and their short names work
without a list of ours. Cluster errors leave as :class:`kaito.errors.CliError`, a refusal in kubectl's words.
"""

from __future__ import annotations

import asyncio
import difflib
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from kaito.console import note
from kaito.errors import CliError
from manager.client import Client
from manager.errors import ApiError, ConfigError, ConnectionFailed, Forbidden, Unauthorized
from manager.types import Obj, Resource

WORKSPACES = Resource("kaito.sh", "v1alpha1", "workspaces", "Workspace")
_START = "`kaito up` starts a cluster on this machine and prints the KUBECONFIG to export"


@asynccontextmanager
async def connect(kubeconfig: Path | None) -> AsyncIterator[tuple[Client, str]]:
    """An open client and the namespace of the current context.

    Raises:
        CliError: there is no usable kubeconfig, the server cannot be reached, or it refused a request.
    """
    from manager.kubeconfig import load_config

    with translated(), _warnings():
        config = await load_config(kubeconfig)
        async with Client(config, field_manager="kaito-cli") as client:
            yield client, config.namespace


@contextmanager
def translated() -> Iterator[None]:
    """Errors of a client leave the block as CliErrors."""
    try:
        yield
    except ConfigError as error:
        raise CliError(
            " ".join(str(error).split()), f"name another with --kubeconfig or KUBECONFIG; {_START}"
        ) from error
    except ConnectionFailed as error:
        raise CliError(
            f"the API server does not answer: {error}",
            f"is it running, and is it the one that KUBECONFIG names? {_START}",
        ) from error
    except ApiError as error:
        raise refusal(error) from error


def refusal(error: ApiError) -> CliError:
    """A server's refusal as kubectl words it."""
    if isinstance(error, Unauthorized):
        return CliError(
            "You must be logged in to the server (Unauthorized)", "are the kubeconfig's credentials old?"
        )
    reason = error.reason or f"HTTP {error.status}"
    return CliError(error.message, title=f"Error from server ({reason})")


@dataclass(frozen=True, slots=True)
class Mapping:
    """A resource as discovery describes it."""

    resource: Resource
    singular: str
    short_names: tuple[str, ...]

    @property
    def names(self) -> set[str]:
        """All words that mean this resource, without a group."""
        return {self.resource.plural, self.singular, self.resource.kind.lower(), *self.short_names}

    def answers_to(self, word: str) -> bool:
        """Whether a person who types ``word`` means this resource: ``name``, ``name.group`` (which may be cut at a
        dot) or ``name.version.group``."""
        name, _, group = word.lower().partition(".")
        if name not in self.names:
            return False
        mine = self.resource.group
        return not group or f"{mine}.".startswith(f"{group}.") or group == f"{self.resource.version}.{mine}"


def display(resource: Resource, name: str) -> str:
    """An object as kubectl names it: ``pod/x``, ``workspace.kaito.sh/x``."""
    return f"{resource.kind.lower()}{f'.{resource.group}' if resource.group else ''}/{name}"


async def find_resource(client: Client, word: str) -> Resource:
    """The resource that ``word`` means.

    Raises:
        CliError: nothing on the server answers to it.
    """
    known = await mappings(client)
    for mapping in known:
        if mapping.answers_to(word):
            return mapping.resource
    near = difflib.get_close_matches(word.lower(), sorted(set().union(*(m.names for m in known))), n=1)
    if near:
        advice = f"did you mean {near[0]}?"
    elif any(m.resource.group == "kaito.sh" for m in known):
        advice = "kaito's own are workspaces and machines"
    else:
        advice = "this cluster has no KAITO; install it with: kubectl apply -k config/default"
    raise CliError(f'the server doesn\'t have a resource type "{word}"', advice)


async def resource_of(client: Client, obj: Obj) -> Resource:
    """The resource that a manifest's apiVersion and kind name.

    Raises:
        CliError: the server does not serve that kind.
    """
    api_version, kind = str(obj["apiVersion"]), str(obj["kind"])
    group, _, version = api_version.rpartition("/")
    served = await _group(client, group, version)
    for mapping in served:
        if mapping.resource.kind == kind:
            return mapping.resource
    near = difflib.get_close_matches(kind, [mapping.resource.kind for mapping in served], n=1)
    if near:
        advice = f"did you mean {near[0]}?"
    elif group == "kaito.sh":
        advice = "this cluster has no KAITO, or another version; install it with: kubectl apply -k config/default"
    else:
        advice = "is apiVersion spelled right, and the CRD installed?"
    raise CliError(f'no matches for kind "{kind}" in version "{api_version}"', advice)


async def mappings(client: Client) -> list[Mapping]:
    """All listable resources of the server, in the server's order, each in one version: its group's preferred one
    where that has it. Not every version has every kind: karpenter.sh/v1 has NodeClaims and no Machines."""
    groups = (await client.request("GET", "/apis")).get("groups", [])
    pairs = [("", "v1")]
    for group in groups:
        versions = [item["version"] for item in group["versions"]]
        preferred = (group.get("preferredVersion") or {}).get("version", versions[0])
        pairs += [(group["name"], version) for version in sorted(versions, key=lambda one: one != preferred)]
    found = await asyncio.gather(*(_group(client, *pair) for pair in pairs))
    first: dict[tuple[str, str], Mapping] = {}
    for mapping in (mapping for version in found for mapping in version):
        first.setdefault((mapping.resource.group, mapping.resource.plural), mapping)
    return list(first.values())


async def _group(client: Client, group: str, version: str) -> list[Mapping]:
    path = f"/apis/{group}/{version}" if group else f"/api/{version}"
    try:
        listing = await client.request("GET", path)
    except (Unauthorized, Forbidden):
        raise
    except ApiError:
        return []  # an API group whose server is down or gone must not hide the others
    found = []
    for entry in listing.get("resources", []):
        if "/" in entry["name"] or "list" not in entry.get("verbs", []):
            continue
        resource = Resource(group, version, entry["name"], entry["kind"], bool(entry.get("namespaced")))
        singular = entry.get("singularName") or entry["kind"].lower()
        found.append(Mapping(resource, singular, tuple(entry.get("shortNames") or ())))
    return found


_said: set[str] = set()


def warn(text: str) -> None:
    """Print a warning as kubectl prints a server's; one that was found here and comes from there again, once."""
    if text not in _said:
        _said.add(text)
        note(f"Warning: {text}")


class _Warnings(logging.Handler):
    """Shows the warnings that a server sends with its answers, as kubectl does."""

    def emit(self, record: logging.LogRecord) -> None:
        warn(str(record.args[0] if isinstance(record.args, tuple) and record.args else record.getMessage()))


@contextmanager
def _warnings() -> Iterator[None]:
    log, handler = logging.getLogger("kaito.manager.client"), _Warnings(logging.WARNING)
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)
