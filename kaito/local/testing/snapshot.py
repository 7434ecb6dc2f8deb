"""Everything that belongs to the Workspaces of a namespace, in words that are the same in every run.

In: a cluster. Out: objects by kind and name, without what differs from run to run: uids, times, versions of
objects, addresses, and names that are made of a uid. Two runs that end alike give equal values; generations are
kept, so that a write more than was needed shows.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from controllers.resources import MACHINES, NODECLAIMS
from controllers.workspace.children import FINGERPRINT
from kaito.local.testing.paper import Paper
from manager.errors import NotFound
from manager.resources import (
    CONFIGMAPS,
    CONTROLLERREVISIONS,
    DEPLOYMENTS,
    NODES,
    PODS,
    REPLICASETS,
    SERVICES,
    STATEFULSETS,
)
from manager.types import Obj, Resource

_NAMED = (DEPLOYMENTS, STATEFULSETS, SERVICES, CONFIGMAPS, CONTROLLERREVISIONS, REPLICASETS, PODS)
_MADE = (MACHINES, NODECLAIMS)
_NOT_OURS = ("kube-root-ca.crt", "kubernetes")
_OF_A_RUN = ("clusterIP", "clusterIPs", "nodePort", "providerID", "podCIDR", "podCIDRs")
_ANNOTATIONS = (FINGERPRINT,)  # made of what has a uid in it


async def snapshot(paper: Paper, name: str) -> dict[str, Any]:
    """A Workspace and everything around it; what is being deleted is still there."""
    found: dict[str, Any] = {}
    try:
        workspace: Obj | None = await paper.get(name)
    except NotFound:
        workspace = None
    if workspace is not None:
        found["workspace"] = _workspace(workspace)
    for resource in _NAMED:
        items = (await paper.client.list(resource, paper.namespace)).items
        kept = [item for item in items if item["metadata"]["name"] not in _NOT_OURS]
        if kept and resource is PODS:
            found["placed"] = sorted(str(item["spec"].get("nodeName")) for item in kept)
        if kept:
            found[resource.plural] = sorted(map(_pod if resource is PODS else _child, kept), key=json.dumps)
    made = await of_all_kinds(paper)
    nodes = await nodes_of(paper)
    if made:
        found["made"] = [_machine(item) for item in made]
    if nodes:
        found["nodes"] = [_node(item) for item in nodes]
    if paper.cloud.instances:
        found["instances"] = sorted(
            (item["name"], item["state"], item["instanceType"]) for item in paper.cloud.instances.values()
        )
    renamed: dict[str, Any] = json.loads(_renamed(json.dumps(found), (item["metadata"]["name"] for item in made)))
    return renamed


async def of_all_kinds(paper: Paper) -> list[Obj]:
    """The Machines and NodeClaims of the namespace, by name."""
    found: list[Obj] = []
    for resource in _MADE:
        found += await _served(paper, resource)
    return sorted(found, key=lambda item: str(item["metadata"]["name"]))


async def nodes_of(paper: Paper) -> list[Obj]:
    """The nodes that were made for the namespace, by name."""
    selector = f"kaito.sh/workspacenamespace={paper.namespace}"
    found = (await paper.client.list(NODES, label_selector=selector)).items
    return sorted(found, key=lambda item: str(item["metadata"]["name"]))


async def _served(paper: Paper, resource: Resource) -> list[Obj]:
    try:
        listed = await paper.client.list(resource, label_selector=f"kaito.sh/workspacenamespace={paper.namespace}")
    except NotFound:
        return []
    return listed.items


def _renamed(text: str, names: Iterable[str]) -> str:
    for number, name in enumerate(sorted(names)):
        text = text.replace(name, f"made-{number}")
    return text


def _metadata(obj: Obj) -> dict[str, Any]:
    meta = obj["metadata"]
    return {
        "name": meta["name"],
        "generation": meta.get("generation"),
        "labels": meta.get("labels"),
        "annotations": {
            key: value for key, value in (meta.get("annotations") or {}).items() if key not in _ANNOTATIONS
        },
        "finalizers": sorted(meta.get("finalizers") or []),
        "owners": [(owner["kind"], owner["name"]) for owner in meta.get("ownerReferences") or []],
        "leaving": bool(meta.get("deletionTimestamp")),
    }


def _child(obj: Obj) -> dict[str, Any]:
    return {
        "metadata": _metadata(obj),
        "spec": _steady(obj.get("spec")),
        "data": obj.get("data"),
        "revision": obj.get("revision"),
    }


def _pod(obj: Obj) -> dict[str, Any]:
    ready = [
        item["status"] for item in (obj.get("status") or {}).get("conditions") or [] if item["type"] == "Ready"
    ]
    labels = obj["metadata"].get("labels")
    containers = [(item["name"], item.get("image"), item.get("command")) for item in obj["spec"]["containers"]]
    return {
        "labels": labels,
        "bound": bool(obj["spec"].get("nodeName")),  # which one takes which node is chance
        "containers": containers,
        "ready": ready,
        "leaving": bool(obj["metadata"].get("deletionTimestamp")),
    }


def _workspace(obj: Obj) -> dict[str, Any]:
    status = obj.get("status") or {}
    kept = {
        key: status.get(key) for key in ("observedGeneration", "workerNodes", "targetNodeCount", "state", "eta")
    }
    states = [item.get("state") for item in status.get("adapters") or []]
    return {
        "metadata": _metadata(obj),
        "conditions": _conditions(obj),
        "adapters": states,
        **kept,
        **{key: obj.get(key) for key in ("resource", "inference")},
    }


def _machine(obj: Obj) -> dict[str, Any]:
    meta = {key: value for key, value in _metadata(obj).items() if key != "annotations"}
    return {"kind": obj["kind"], "metadata": meta, "spec": obj.get("spec"), "conditions": _conditions(obj)}


def _node(obj: Obj) -> dict[str, Any]:
    meta = _metadata(obj)
    taints = [(item["key"], item["effect"]) for item in (obj.get("spec") or {}).get("taints") or []]
    return {key: meta[key] for key in ("name", "labels", "finalizers", "owners")} | {"taints": sorted(taints)}


def _conditions(obj: Obj) -> list[tuple[str, str, str]]:
    listed = (obj.get("status") or {}).get("conditions") or []
    return sorted((item["type"], item["status"], item.get("reason") or "") for item in listed)


def _steady(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _steady(item) for key, item in value.items() if key not in _OF_A_RUN}
    return [_steady(item) for item in value] if isinstance(value, list) else value
