"""How the commands speak to a cluster: the connection, and names of kinds as people type them.

In: a kubeconfig and words such as ``wk``, ``workspaces`` or ``deploy.apps``. Out: an open ``Client`` and the
``Resource`` meant, looked up in the server's own discovery, so that custom resources and their short names work
without a list of ours. Cluster errors leave as :class:`kaito.errors.CliError`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from manager.client import Client
from manager.errors import ApiError, ConfigError, ConnectionFailed
from manager.types import Obj, Resource

from kaito.errors import CliError


@asynccontextmanager
async def connect(kubeconfig: Path | None) -> AsyncIterator[tuple[Client, str]]:
    """An open client and the namespace of the current context.

    Raises:
        CliError: there is no usable kubeconfig, the server cannot be reached, or it refused a request.
    """
    from manager.kubeconfig import load_config

    try:
        config = await load_config(kubeconfig)
    except ConfigError as error:
        raise CliError(
            str(error), "start a cluster with `kaito up` and export the KUBECONFIG that it prints"
        ) from error
    try:
        async with Client(config, field_manager="kaito-cli") as client:
            yield client, config.namespace
    except ConnectionFailed as error:
        raise CliError(
            f"cannot reach the API server at {config.server}: {error}",
            "is it running? `kaito up` starts a local one; KUBECONFIG names the one that is used",
        ) from error
    except ApiError as error:
        raise CliError(error.message) from error


@dataclass(frozen=True, slots=True)
class Mapping:
    """A resource as discovery describes it."""

    resource: Resource
    singular: str
    short_names: tuple[str, ...]

    def answers_to(self, word: str) -> bool:
        """Whether a person who types ``word`` means this resource."""
        name, _, group = word.lower().partition(".")
        if group and not (self.resource.group == group or self.resource.group.startswith(group + ".")):
            return False
        names = {self.resource.plural, self.singular, self.resource.kind.lower(), *self.short_names}
        return name in names


async def find_resource(client: Client, word: str) -> Resource:
    """The resource that ``word`` means.

    Raises:
        CliError: nothing on the server answers to it.
    """
    found = [m for m in await mappings(client) if m.answers_to(word)]
    if not found:
        raise CliError(
            f"the server has no resource type '{word}'",
            "`kubectl api-resources` lists them; is the operator's CRD installed? (kubectl apply -k config/crd)",
        )
    return found[0].resource


async def resource_of(client: Client, obj: Obj) -> Resource:
    """The resource that a manifest's apiVersion and kind name.

    Raises:
        CliError: the fields are missing, or the server does not serve that kind.
    """
    api_version, kind = obj.get("apiVersion"), obj.get("kind")
    if not isinstance(api_version, str) or not isinstance(kind, str):
        raise CliError("the manifest has no apiVersion or kind", "add both; see config/samples for complete ones")
    group, _, version = api_version.rpartition("/")
    for mapping in await _group(client, group, version):
        if mapping.resource.kind == kind:
            return mapping.resource
    raise CliError(
        f"the server does not know kind {kind} of {api_version}",
        "is the CRD installed, and apiVersion and kind spelled right?",
    )


async def mappings(client: Client) -> list[Mapping]:
    """All listable resources of the server, in the server's order, preferred versions only."""
    result = await _group(client, "", "v1")
    groups = await client.request("GET", "/apis")
    for group in groups.get("groups", []):
        preferred = group.get("preferredVersion") or group["versions"][0]
        result += await _group(client, group["name"], preferred["version"])
    return result


async def _group(client: Client, group: str, version: str) -> list[Mapping]:
    path = f"/apis/{group}/{version}" if group else f"/api/{version}"
    try:
        listing = await client.request("GET", path)
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
