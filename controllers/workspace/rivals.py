"""Whom it concerns that another Workspace takes or leaves a node.

In: Workspaces and pods that change. Out: requests for the Workspaces that lack nodes and might want that one.
What a Workspace does without touching nodes makes no work for anybody else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from api.conditions import RESOURCE_READY, conditions_of, is_true
from controllers.workspace.target import selector_labels
from manager.informer import Added, Event, Updated
from manager.labelindex import pairs_of
from manager.meta import labels
from manager.store import Store
from manager.types import Obj, Request


def nodes_of_workspace(workspace: Obj) -> list[str]:
    """The nodes that it says it uses."""
    return [str(name) for name in (workspace.get("status") or {}).get("workerNodes") or []]


def node_of_pod(pod: Obj) -> list[str]:
    """The node that the pod is bound to."""
    node = (pod.get("spec") or {}).get("nodeName")
    return [str(node)] if node else []


def moves(place: Callable[[Obj], list[str]]) -> Callable[[Event], bool]:
    """Only changes of where something is: that it comes somewhere, moves, or goes."""

    def predicate(event: Event) -> bool:
        if isinstance(event, Updated):
            return place(event.old) != place(event.new)
        return not (isinstance(event, Added) and event.initial) and bool(place(event.obj))

    return predicate


BY_KEYS = "selector-keys"  # index on Workspaces: the keys that they select nodes by; there are few sorts
BY_SELECTOR = "selector"  # and: those keys with one of their values


def by_keys(workspace: Obj) -> list[str]:
    """The index function of ``BY_KEYS``."""
    return [",".join(sorted(selector_labels(workspace)))]


def by_selector(workspace: Obj) -> list[str]:
    """The index function of ``BY_SELECTOR``."""
    (keys,) = by_keys(workspace)
    return [f"{keys} {pair}" for pair in pairs_of(selector_labels(workspace))]


def compatible(workspaces: Store, labels: Mapping[str, str]) -> Iterable[Obj]:
    """The Workspaces whose selector contradicts none of these labels. Those of other values are not looked at."""
    for keys in workspaces.index_values(BY_KEYS):
        shared = [key for key in keys.split(",") if key in labels]
        if shared:
            found = workspaces.by_index(BY_SELECTOR, f"{keys} {shared[0]}={labels[shared[0]]}")
        else:
            found = workspaces.by_index(BY_KEYS, keys)
        for workspace in found:
            if all(labels.get(key, value) == value for key, value in selector_labels(workspace).items()):
                yield workspace


def selecting(workspaces: Store, node: Obj) -> Iterable[Obj]:
    """The Workspaces whose selector this node satisfies."""
    found = labels(node)
    for workspace in compatible(workspaces, found):
        wanted = selector_labels(workspace)
        if wanted and wanted.items() <= found.items():
            yield workspace


def rivals_of(workspaces: Store) -> Callable[[Obj], Iterable[Request]]:
    """Who lacks nodes and selects some that this Workspace may select too."""

    def requests(changed: Obj) -> Iterable[Request]:
        yield from map(_request, filter(_lacks, compatible(workspaces, selector_labels(changed))))

    return requests


def waiting_for(workspaces: Store, nodes: Store) -> Callable[[Obj], Iterable[Request]]:
    """Who lacks nodes and selects the one that this pod is on."""

    def requests(pod: Obj) -> Iterable[Request]:
        for name in node_of_pod(pod):
            yield from map(_request, filter(_lacks, selecting(workspaces, nodes.get(name) or {})))

    return requests


def _lacks(workspace: Obj) -> bool:
    return not is_true(conditions_of(workspace), RESOURCE_READY)


def _request(workspace: Obj) -> Request:
    return Request(workspace["metadata"]["namespace"], workspace["metadata"]["name"])
