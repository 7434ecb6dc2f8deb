"""Whom it concerns that another Workspace takes or leaves a node.

In: Workspaces and pods that change. Out: requests for the Workspaces that lack nodes and might want that one.
What a Workspace does without touching nodes makes no work for anybody else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from api.conditions import RESOURCE_READY, conditions_of, is_true
from controllers.workspace.target import selector_labels
from manager.informer import Added, Event, Updated
from manager.labelindex import label_pairs, pairs_of
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


BY_SELECTOR = "selector"  # index on Workspaces: one of the labels that they select nodes by


def by_selector(workspace: Obj) -> list[str]:
    """The index function: one label stands for all of a selector, since a node must have them all."""
    return sorted(pairs_of(selector_labels(workspace)))[:1]


def selecting(workspaces: Store, node: Obj) -> Iterable[Obj]:
    """The Workspaces whose selector this node satisfies."""
    found = labels(node)
    for pair in label_pairs(node):
        for workspace in workspaces.by_index(BY_SELECTOR, pair):
            if selector_labels(workspace).items() <= found.items():
                yield workspace


def rivals_of(workspaces: Store) -> Callable[[Obj], Iterable[Request]]:
    """Who lacks nodes and selects some that this Workspace may select too."""

    def requests(changed: Obj) -> Iterable[Request]:
        mine = selector_labels(changed)
        for workspace in filter(_lacks, workspaces.list()):
            theirs = selector_labels(workspace)
            if all(theirs.get(key, value) == value for key, value in mine.items()):
                yield _request(workspace)

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
