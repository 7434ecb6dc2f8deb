"""The children of one Workspace, gathered from the cache.

In: a Workspace and the stores. Out: :class:`Children`. Everything comes from the cache but the ConfigMap with the
engine's settings: of ConfigMaps that are not ours the cache holds the metadata only, which tells when to read one.
"""

from __future__ import annotations

from dataclasses import dataclass

from api import keys
from api.v1alpha1 import Workspace
from controllers.workspace.children import Children
from controllers.workspace.tuning.settings import config_name, name_of
from manager.client import Client
from manager.errors import NotFound
from manager.resources import CONFIGMAPS
from manager.store import Store
from manager.types import Obj

BY_WORKSPACE = "workspace"  # index: "namespace/name" of the Workspace that an object's labels name
BY_CONFIG = "config"  # index on Workspaces: "namespace/name" of the ConfigMap with their settings


@dataclass(frozen=True, slots=True)
class ChildStores:
    """What is read. ``configmaps`` holds the metadata of all, ``adapters`` those that bear a Workspace's label."""

    statefulsets: Store
    jobs: Store
    services: Store
    configmaps: Store
    adapters: Store
    revisions: Store


async def observe_children(
    client: Client, stores: ChildStores, obj: Obj, workspace: Workspace | None, operator: str
) -> Children:
    """The children of a Workspace as stored."""
    name, namespace = obj["metadata"]["name"], obj["metadata"]["namespace"]
    key, adapters = f"{namespace}/{name}", name + keys.ADAPTERS_CONFIG_SUFFIX
    # Of one without the label, which cannot be ours, the metadata is all that is needed.
    known = stores.adapters.get(adapters, namespace) or stores.configmaps.get(adapters, namespace)
    return Children(
        statefulset=stores.statefulsets.get(name, namespace),
        headless=stores.services.get(name + keys.HEADLESS_SUFFIX, namespace),
        adapters=known,
        job=stores.jobs.get(name, namespace),
        configs=await _configs(client, stores, workspace, namespace),
        revisions=tuple(stores.revisions.by_index(BY_WORKSPACE, key)),
        upgrade=(obj["metadata"].get("annotations") or {}).get(keys.UPGRADE) == "true",
        operator=operator,
    )


async def _configs(
    client: Client, stores: ChildStores, workspace: Workspace | None, namespace: str
) -> dict[str, Obj | None]:
    name = workspace.inference.config if workspace and workspace.inference else None
    if workspace is not None and workspace.tuning is not None:
        name = config_name(workspace.tuning)
    if not name:
        return {}
    if stores.configmaps.get(name, namespace) is None:
        return {name: None}
    try:
        return {name: await client.get(CONFIGMAPS, name, namespace)}
    except NotFound:
        return {name: None}


def of_label(obj: Obj) -> list[str]:
    """The Workspace that an object's label names, as "namespace/name"."""
    name = (obj["metadata"].get("labels") or {}).get(keys.WORKSPACE_LABEL)
    return [f"{obj['metadata']['namespace']}/{name}"] if name else []


def of_config(workspace: Obj) -> list[str]:
    """The ConfigMap with a Workspace's settings, as "namespace/name"."""
    inference, tuning = workspace.get("inference"), workspace.get("tuning")
    name = inference.get("config") if isinstance(inference, dict) else None
    if isinstance(tuning, dict):
        name = name_of(tuning.get("config"), tuning.get("method"))
    return [f"{workspace['metadata']['namespace']}/{name}"] if name else []
