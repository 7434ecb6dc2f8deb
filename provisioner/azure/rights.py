"""What an identity may do on the cluster, from the permissions that ARM lists for whoever asks.

In: ARM's list of permissions at the cluster's scope. Out: which of the actions that the provisioner needs are
missing. Pure. An entry allows what matches one of its actions and none of its notActions; ``*`` matches anything,
also across slashes, and letters count alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any

NEEDED = (
    "Microsoft.ContainerService/managedClusters/read",
    "Microsoft.ContainerService/managedClusters/agentPools/read",
    "Microsoft.ContainerService/managedClusters/agentPools/write",
    "Microsoft.ContainerService/managedClusters/agentPools/delete",
)


def missing(permissions: Iterable[Mapping[str, Any]], needed: Iterable[str] = NEEDED) -> list[str]:
    """The needed actions that no entry allows, in their order."""
    entries = list(permissions)
    return [action for action in needed if not any(_allows(entry, action) for entry in entries)]


def _allows(entry: Mapping[str, Any], action: str) -> bool:
    return _any(entry.get("actions"), action) and not _any(entry.get("notActions"), action)


def _any(patterns: Iterable[str] | None, action: str) -> bool:
    return any(fnmatchcase(action.lower(), str(pattern).lower()) for pattern in patterns or ())
